"""Import data that was logged elsewhere, as a store that experiments train on.

Examples:
  python -m tools.import_dataset log.csv --choices 3,3,5 --episode-column patient --ends terminal
  python -m tools.import_dataset clicks.csv --column "observations=*" --column actions=banner,offer \\
      --column rewards=clicked --episode-column session --step-column time --ends terminal --choices 12,4
  python -m tools.import_dataset train.parquet validation.parquet --choices 3 --ends timeout --name robot
  python -m tools.import_dataset logs.hdf5 --one-hot 3,2,5
  python -m tools.import_dataset minari:spinrl/humanoid-stand/medium-3bins-v0
  python -m tools.import_dataset 3_bins/cheetah-run-medium      # in the folder DMC_DISCRETE_DATA_DIR, or a path

FILE is one of
  .csv .tsv .csv.gz .parquet .pq .feather .npz .h5 .hdf5, or a folder of parts of one table
      Columns with a row per step: observations, actions, rewards; terminals (ended by the task), timeouts (by a time
      limit) or dones (by either); next_observations, episode, step, allowed and propensities if there are any. Usual
      names, and those of Tianshou, RLlib, LeRobot, d3rlpy and robomimic, are known; others are given by --column.
      Arrays of (episodes, steps, ...) are taken apart. Several files each have episodes of their own.
  minari:ID
      a Minari dataset of this machine with MultiDiscrete actions
  <bins>_bins/<task>-<tier>
      a published pickle of the benchmark; it is read without being unpickled

An action is one index per sub-action, from 0. What a file leaves open is asked for by an option; what was taken from
it, what was left out, and what looks wrong is printed. Nothing is left behind of a file that is refused. Exit code: 0
when the store is there, 2 when something given was wrong or the file is refused, 130 when stopped by Ctrl-C.
docs/own_data.md tells more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.command_line import both_signals_stop
from harness.commands import typed
from harness.entry_point import entry_point
from harness.terminal.progress import ProgressLine, Stage
from spinrl.cache import made_alone
from spinrl.data import Store
from spinrl.data.importers.meanings import GIVEN
from spinrl.data.importers.recipes import imported_folder
from spinrl.data.importers.request import Request, placed
from spinrl.data.importers.result import ImportResult
from spinrl.data.importers.values import MISSING


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.import_dataset"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("files", metavar="FILE", nargs="+", help="file to import, as above")
    made.add_argument("--name", help="name of the dataset (default: from the file's name)")
    made.add_argument("--task", help="name of the task, for a simulator (default: NAME)")
    made.add_argument("--tier", help="name of the tier (default: logged)")
    made.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the store, in place of the spinrl cache")
    made.add_argument("--replace", action="store_true", help="replace an existing dataset of that name")
    made.add_argument("--bins", type=int, help="choices per sub-action, for a pickle whose folder does not say")
    columns = made.add_argument_group("options for what files of columns do not say")
    columns.add_argument(
        "--choices",
        metavar="M,M,...",
        help="choices of each sub-action, or one number for all; observed: the largest value is the last choice",
    )
    columns.add_argument("--one-hot", metavar="M,M,...", help="choices of each sub-action, for one-hot actions")
    columns.add_argument(
        "--action-offset",
        metavar="K,K,...",
        help="number of each sub-action's first choice, or one number for all (default 0); write --action-offset=-2",
    )
    columns.add_argument("--ends", choices=("terminal", "timeout"), help="kind of ends that the file does not explain")
    columns.add_argument(
        "--episode-length", type=int, metavar="STEPS", help="steps after which an episode ends at the latest"
    )
    columns.add_argument("--episode-column", metavar="NAME", help="column that is constant within an episode")
    columns.add_argument(
        "--step-column", metavar="NAME", help="column that rises within an episode; rows are sorted by it"
    )
    columns.add_argument(
        "--missing",
        choices=MISSING,
        help="missing observations: fill in the column's mean or zero, or drop the row and cut the episode there",
    )
    columns.add_argument(
        "--column",
        action="append",
        metavar="MEANING=NAME,...",
        help=f"the columns of {', '.join(GIVEN)}; names, first..last, patterns such as lab_*, and -NAME to leave "
        "one out; no name ignores the meaning; repeatable",
    )
    return made


@contextmanager
def shown(console: Console, label: str, doing: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress with the time left; yields the callback with (done, in all)."""
    with ProgressLine(1, console) as progress:
        stage: Stage | None = None

        def update(done: int, total: int) -> None:
            nonlocal stage
            stage = stage or progress.stage(label, doing, total, unit)
            stage.update(done)

        yield update


def summary(result: ImportResult) -> Table:
    """Summary of the import, for the terminal."""
    store, returns = result.store, result.store.returns
    lengths = store.data["episodes", "length"].numpy()
    about, nvec = store.metadata, store.metadata.nvec
    choices = f"{nvec[0]} each" if about.bins else ", ".join(map(str, nvec))
    made = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False, padding=(0, 1))
    for what, value in (
        ("task, tier", f"{about.task}, {about.tier}"),
        ("transitions", f"{about.transitions:,}"),
        ("episodes", f"{about.episodes:,}, of {lengths.min():,} to {lengths.max():,} steps"),
        ("ended by the task", f"{int(store.data['transitions', 'terminated'].sum()):,}"),
        ("observation", f"{about.observation_size} entries"),
        ("action", f"{len(nvec)} sub-actions; choices: {choices}"),
        *((extra, "yes, for every step") for extra in about.extras),
        ("return", f"{returns.mean():.4g} ± {np.std(returns):.4g}, {returns.min():.4g} to {returns.max():.4g}"),
        ("on disk", f"{store.num_bytes / 1e6:.1f} MB"),
        *(("taken as" if not number else "", note) for number, note in enumerate(result.notes)),
        *(("look at" if not number else "", warning) for number, warning in enumerate(result.warnings)),
    ):
        made.add_row(what, Text(value))
    return made


def training_command(store: Store, name: str, out: Path | None) -> str:
    """The command that trains on a dataset."""
    task = store.metadata.task
    bindings = [f"Experiment.tasks=['{task}']"]
    if out is not None or name != task:
        bindings.append(f"Imported.store='{out.resolve() if out else name}'")
    return " ".join([f"{typed('harness.run')} --gin gin/own_data.gin", *(f'--set "{each}"' for each in bindings)])


@entry_point(stopped="stopped; nothing was written")
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = vars(parser().parse_args(arguments))
    out, replace = options.pop("out"), options.pop("replace")
    console = Console()
    request = Request(**options)
    name = request.dataset_name()
    path = out or imported_folder(name)
    unit = "bytes" if request.kind == "published" else "transitions"
    with (
        both_signals_stop(),
        made_alone(path, lambda _: console.print(f"another run imports {name}")),
        shown(console, name, "importing", unit) as update,
    ):
        result = placed(path, replace, lambda made: request.write(made, update))
    console.print(summary(result))
    for line in (f"written to {result.store.path}; train on it with", f"  {training_command(result.store, name, out)}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
