"""Film a policy: an episode as a video (MP4), and as a strip of eight pictures (PNG) beside it.

Examples:
  python -m tools.render_policy 0123456789abcdef0123456789abcdef --out stand.mp4
  python -m tools.render_policy policy --out stand.mp4
  python -m tools.render_policy exported --out stand.mp4 --action mode --seed 3
  python -m tools.render_policy policy --out mine.mp4 --environment MyEnvironment-v0 --import my_environment

The source is the run id of a cell, its checkpoint, a folder that `policy.save` wrote, or an exported folder. The
episode is the first one of an evaluation with that seed. Drawing needs EGL or OSMesa (apt install libegl1 or
libosmesa6), and the video imageio-ffmpeg (pip install 'spinrl[video]'). Exit code: 0 when both were written, 2 when
something given was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch

from harness.command_line import imported_module
from harness.commands import typed
from harness.entry_point import entry_point
from harness.exporting.card import ExportedPolicy
from harness.exporting.finished import finished_cell
from spinrl.errors import UserError
from spinrl.export import CARD, FORMATS, load_runner
from spinrl.face.filming import filmed
from spinrl.face.policy import FILE
from spinrl.face.saved import load
from spinrl.policies import Policy
from spinrl.specs import ActionSpec
from spinrl.tasks import EPISODE_STEPS, TASKS


@attrs.frozen(eq=False)
class Actor:
    """A policy, the task that it is for, and the seed of its training or 0."""

    policy: Policy
    task: str
    seed: int


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.render_policy"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("source", help="run id of a cell, runs:/<id>, a checkpoint, a saved policy or an exported folder")
    made.add_argument("--out", type=Path, required=True, help="the video to write, ending in .mp4")
    made.add_argument("--environment", metavar="ID", help="an id of Gymnasium (default: the policy's own task)")
    made.add_argument("--seed", type=int, help="of the evaluation (default: that of the training)")
    made.add_argument("--action", choices=["sample", "mode"], default="sample", help="(default: sample)")
    made.add_argument("--steps", type=int, default=EPISODE_STEPS, help=f"at most (default: {EPISODE_STEPS})")
    made.add_argument(
        "--tracking-uri", help="MLflow store (default: MLFLOW_TRACKING_URI, else mlflow.db in this folder)"
    )
    made.add_argument(
        "--import",
        action="append",
        default=[],
        dest="modules",
        metavar="MODULE",
        type=imported_module,
        help="a module, or a .py file, with components or environments of your own; repeatable",
    )
    return made


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    actor = found(options.source, options.tracking_uri)
    if options.environment is None and actor.task not in TASKS:
        raise UserError(f"the policy's data {actor.task!r} is of no task of the benchmark; give --environment ID")
    seed = actor.seed if options.seed is None else options.seed
    shot = filmed(
        actor.policy,
        options.environment or actor.task,
        options.out,
        seed=seed,
        action=options.action,
        steps=options.steps,
    )
    print(f"return {shot.returned:.1f} in {shot.steps:,} steps; written to {shot.video} and {shot.strip}")
    return 0


def found(source: str, tracking_uri: str | None) -> Actor:
    """The policy that a source names.

    Raises:
        UserError: when there is none, or it cannot be read.
    """
    folder = Path(source)
    if (folder / FILE).is_file():
        saved = load(folder)
        return Actor(saved.module, saved.task, saved.seed)
    if (folder / CARD).is_file():
        return _exported(folder)
    cell = finished_cell(source, tracking_uri)
    return Actor(cell.policy, cell.key.task, cell.key.seed)


def _exported(folder: Path) -> Actor:
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        spec, size, task = ActionSpec(card["nvec"]), int(card["observation_size"]), str(card["task"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / CARD} is not the card of an exported policy") from error
    formats = [name for name in FORMATS if (folder / f"run_{name}.py").is_file()]
    if not formats:
        raise UserError(f"{folder} has no run_<format>.py")
    return Actor(ExportedPolicy(load_runner(folder, formats[0]), size, spec), task, 0)


if __name__ == "__main__":
    sys.exit(main())
