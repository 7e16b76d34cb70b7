"""Train the behaviour policies that datasets are collected with (DecQN), and ship expert and medium.

Examples:
  python -m tools.train_behavior --task cheetah-run --hours 1
  python -m tools.train_behavior --task humanoid-stand --hours 8 --set 'DecQN.num_actors=4'   # not of all cores
  python -m tools.train_behavior --task dog-trot --bins 10 --folder /data/dog10
  python -m tools.train_behavior --task dog-trot --bins 10 --start-from 3   # from the shipped expert of 3 bins
  python -m tools.train_behavior --task humanoid-stand --ship-only   # choose and ship from what is trained so far

Training resumes from its folder after any interruption, kill -9 included. Shipped weights land in the package's
own folder, where collection finds them.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib

from spinrl.errors import UserError

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from harness.command_line import add_configuration_options, both_signals_stop, configuration_words, use_packaged_configs
from harness.commands import typed
from harness.entry_point import entry_point
from spinrl.behaviors import Behavior, load_behavior
from spinrl.behaviors.train.decqn import DecQN
from spinrl.behaviors.train.loop import train
from spinrl.behaviors.train.ship import choose, ship
from spinrl.config import load
from spinrl.data import home
from spinrl.tasks import get_task


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.train_behavior"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--task", required=True, help="name of the task, e.g. humanoid-stand")
    made.add_argument("--bins", type=int, default=3, help="choices per sub-action (default 3)")
    made.add_argument(
        "--hours", type=float, default=8.0, help="stop after so many hours of this invocation (default 8)"
    )
    made.add_argument("--updates", type=int, help="stop after so many gradient steps in all")
    made.add_argument("--folder", type=Path, help="folder of the training (default: in the spinrl cache)")
    add_configuration_options(made, "a further gin file; gin/behaviors/TASK.gin comes first", "DecQN.n_step=5")
    made.add_argument(
        "--start-from",
        type=int,
        metavar="BINS",
        help="begin with the shipped expert of the task with so many bins (the same number improves it further)",
    )
    made.add_argument(
        "--fresh-replay",
        action="store_true",
        help="forget the transitions of before, as when DecQN.shaping has changed; networks and counts go on (give it "
        "once: every start with it forgets again)",
    )
    made.add_argument("--ship", type=Path, help="folder for weights and cards (default: the installed package)")
    made.add_argument("--overwrite", action="store_true", help="replace an expert of higher mean return too")
    made.add_argument(
        "--trial",
        action="append",
        default=[],
        type=_trial,
        metavar="WHAT=RETURN",
        dest="trials",
        help="result of another training of the task, for the cards: 'batch 256, 25k updates = 894'",
    )
    made.add_argument("--notes", help="text for the cards")
    made.add_argument("--ship-only", action="store_true", help="train nothing; choose and ship from the folder")
    return made


def _trial(text: str) -> dict[str, Any]:
    what, _, value = text.rpartition("=")
    try:
        return {"what": what.strip(), "return": float(value)}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form WHAT=RETURN") from None


def draw_learning_curve(folder: Path) -> Path | None:
    """Draw the greedy return over hours into the folder."""
    points = sorted(
        (record["time"], record["return"])
        for path in folder.glob("greedy-*.jsonl")
        for record in map(json.loads, path.read_text(encoding="utf-8").splitlines())
    )
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(7, 4))
    hours = [(at - points[0][0]) / 3600 for at, _ in points]
    values = [value for _, value in points]
    smooth = [sum(values[max(0, i - 9) : i + 1]) / len(values[max(0, i - 9) : i + 1]) for i in range(len(values))]
    axes.plot(hours, values, ".", markersize=3, color="0.7", label="episode")
    axes.plot(hours, smooth, color="#0072B2", label="mean of the last ten")
    axes.set(xlabel="hours since the first episode", ylabel="return of the greedy policy", ylim=(0, None))
    axes.legend(frameon=False)
    path = folder / "learning_curve.png"
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return path


def run_training(config: DecQN, folder: Path, start: Behavior | None, options: argparse.Namespace) -> None:
    """Train until the hours or the updates are spent, printing a line of progress every ten seconds."""
    config = config.on_this_machine()
    print(f"learner on {config.device}, actors: {config.num_actors}")
    started = time.monotonic()
    for progress in train(config, folder, command=command(options), start=start, fresh_replay=options.fresh_replay):
        left = options.hours * 3600 - (time.monotonic() - started)
        greedy = progress.get("greedy")
        print(
            f"{progress['updates']:>9,} updates  {progress['env_steps']:>11,} env steps  "
            f"{progress.get('updates_per_second', 0.0):6.1f} updates/s  "
            f"greedy return {'–' if greedy is None else f'{greedy:.1f}'}  {left / 60:.0f} min left",
            flush=True,
        )
        if left <= 0 or (options.updates is not None and progress["updates"] >= options.updates):
            return


def command(options: argparse.Namespace) -> str:
    """The command of the training for its card, without folder and duration."""
    words = ["--task", options.task, "--bins", options.bins]
    words += ["--start-from", options.start_from] if options.start_from else []
    words += ["--fresh-replay"] if options.fresh_replay else []
    return f"{typed('tools.train_behavior')} {shlex.join(map(str, [*words, *configuration_words(options)]))}"


def configuration(options: argparse.Namespace) -> DecQN:
    """The configuration from the task's gin file and the options.

    Raises:
        ConfigError: when a file or a binding is wrong.
    """
    files = [f"gin/behaviors/{options.task}.gin", *options.gin]
    return load(DecQN, files, [f"DecQN.bins={options.bins}", *options.bindings]).value


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    use_packaged_configs()
    try:
        get_task(options.task).action_spec(options.bins)
        config = configuration(options)
        start = load_behavior(options.task, options.start_from, "expert") if options.start_from else None
        if start is not None and config.hidden != (hidden := tuple(start.card["hidden"])):
            raise ValueError(
                f"the expert of {options.start_from} bins has other hidden layers; add --set 'DecQN.hidden={hidden}'"
            )
    except (UserError, KeyError, ValueError) as error:
        print(error.args[0] if isinstance(error, KeyError) else error, file=sys.stderr)
        return 2
    folder = options.folder or home() / "behaviors" / f"{options.task}-{options.bins}bins"
    target = options.ship or Path(str(resources.files("spinrl.behaviors") / "weights"))
    torch.set_num_threads(1)  # the update is too small to split; the actors use the other cores
    print(f"training folder: {folder}")
    if not options.ship_only:
        try:
            with both_signals_stop():
                run_training(config, folder, start, options)
        except KeyboardInterrupt:
            print("stopped; the same command resumes from here")
            return 130
        except (UserError, RuntimeError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
        except OSError as error:
            print(error if isinstance(error, UserError) else f"{error}; name another --folder", file=sys.stderr)
            return 2
    print(f"learning curve: {draw_learning_curve(folder)}")
    for level, candidate in choose(config, folder).items():
        card = ship(
            config,
            candidate,
            level,
            target,
            command=command(options),
            trials=options.trials,
            notes=options.notes,
            overwrite=options.overwrite,
        )
        print(f"{level}: {candidate.mean:.1f} over {len(candidate.returns)} episodes -> {card}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
