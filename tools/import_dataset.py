"""Import data that was logged elsewhere, as a store that experiments train on.

Examples:
  python -m tools.import_dataset logs.npz --choices 3,3,5 --ends terminal
  python -m tools.import_dataset logs.hdf5 --choices 3 --ends timeout --name robot
  python -m tools.import_dataset clicks.parquet --column observations=age,hour --column actions=banner,offer \\
      --column rewards=clicked --episode-column session --ends terminal --choices 12,4
  python -m tools.import_dataset minari:spinrl/humanoid-stand/medium-3bins-v0
  python -m tools.import_dataset 3_bins/cheetah-run-medium      # in the folder DMC_DISCRETE_DATA_DIR, or a path

FILE is one of
  .npz, .h5, .hdf5, .parquet   arrays with a row per step: observations, actions, rewards; terminals (ended by the
                               task), timeouts (by a time limit) or dones (by either); next_observations and episode
                               if there are any. Other names are given by --column.
  minari:ID                    a Minari dataset of this machine with MultiDiscrete actions
  <bins>_bins/<task>-<tier>    a published pickle of the benchmark; it is read without being unpickled

An action is one index per sub-action, from 0. What a file leaves open is asked for by an option, and what was taken
from it is printed. Nothing is left behind of a file that is refused. Exit code: 0 when the store is there, 2 when
something given was wrong or the file is refused, 130 when stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

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
from spinrl.data import Store, StoreError
from spinrl.data.importers import published
from spinrl.data.importers.array_import import ArrayOptions, import_arrays
from spinrl.data.importers.arrays import ALIASES
from spinrl.data.importers.choices import Choices
from spinrl.data.importers.minari_datasets import import_minari
from spinrl.data.importers.recipes import imported_folder
from spinrl.data.importers.result import ImportResult
from spinrl.data.importers.tables import FORMATS
from spinrl.data.store.metadata import check_name, read_metadata
from spinrl.errors import UserError

MINARI = "minari:"
ARRAY_OPTIONS = ("choices", "action_offset", "ends", "episode_length", "episode_column", "column")
Update = Callable[[int, int], None]
Kind = Literal["arrays", "minari", "published"]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.import_dataset"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("file", metavar="FILE", help="what is imported, as above")
    made.add_argument("--name", help="by which it is trained on (default: after the file)")
    made.add_argument("--task", help="name of the task, where a simulator knows it (default: NAME)")
    made.add_argument("--tier", help="name of what was logged (default: logged)")
    made.add_argument("--out", type=Path, metavar="FOLDER", help="where to put it, in place of the spinrl cache")
    made.add_argument("--replace", action="store_true", help="in place of the dataset that has the name")
    made.add_argument("--bins", type=int, help="choices per sub-action, of a pickle whose folder does not tell")
    arrays = made.add_argument_group("what arrays leave open")
    arrays.add_argument(
        "--choices",
        metavar="M,M,...",
        help="choices of each sub-action, or one number for all; observed: as many as the largest value tells",
    )
    arrays.add_argument("--action-offset", type=int, metavar="K", help="what the first choice is called (default 0)")
    arrays.add_argument("--ends", choices=("terminal", "timeout"), help="what ends are that the file does not explain")
    arrays.add_argument("--episode-length", type=int, metavar="STEPS", help="after which an episode ends at the latest")
    arrays.add_argument("--episode-column", metavar="NAME", help="a column that is the same throughout an episode")
    arrays.add_argument(
        "--column",
        action="append",
        metavar="MEANING=NAME,...",
        help=f"the columns of {', '.join(ALIASES)}; without names: there is none; repeatable",
    )
    return made


def array_options(options: argparse.Namespace) -> ArrayOptions:
    """What the command line says about arrays.

    Raises:
        StoreError: for choices that are no numbers, and columns of unknown meaning.
    """
    choices: Choices = None
    if options.choices == "observed":
        choices = "observed"
    elif options.choices is not None:
        if not re.fullmatch(r"\d+(,\d+)*", options.choices):
            raise StoreError(f"--choices wants numbers such as 3,3,5, or observed, got {options.choices!r}")
        choices = [int(each) for each in options.choices.split(",")]
    columns: dict[str, tuple[str, ...]] = {}
    for given in options.column or []:
        meaning, equals, names = given.partition("=")
        if meaning not in ALIASES or not equals:
            raise StoreError(f"--column wants MEANING=NAME with a meaning of {', '.join(ALIASES)}, got {given!r}")
        if meaning in columns:
            raise StoreError(f"--column names {meaning} twice; give all its columns at once: {meaning}=NAME,NAME")
        columns[meaning] = tuple(name for name in names.split(",") if name)
    if abs(options.action_offset or 0) >= 2**31:
        raise StoreError(f"--action-offset wants what the first choice is called, got {options.action_offset}")
    if options.episode_column is not None:
        columns["episode"] = (options.episode_column,)
    return ArrayOptions(
        choices=choices,
        action_offset=options.action_offset or 0,
        ends=options.ends,
        episode_length=options.episode_length,
        columns=columns,
    )


def kind_of(file: str) -> Kind:
    """What FILE is.

    Raises:
        StoreError: for what is not read.
    """
    suffix = Path(file).suffix.lower()
    if file.startswith(MINARI):
        return "minari"
    if suffix in FORMATS:
        return "arrays"
    if suffix in ("", ".pkl", ".pickle"):
        return "published"
    raise StoreError(f"{file} is none of {', '.join(FORMATS)}, minari:ID or a published <bins>_bins/<task>-<tier>")


def check_options(options: argparse.Namespace, kind: Kind) -> None:
    """Refuse what the file tells itself.

    Raises:
        StoreError: naming the option.
    """
    allowed = {"arrays": ARRAY_OPTIONS, "minari": (), "published": ("bins",)}[kind]
    for name in (*ARRAY_OPTIONS, "bins"):
        if name not in allowed and getattr(options, name) is not None:
            raise StoreError(f"--{name.replace('_', '-')} does not go with {options.file}; leave it out")


def name_of(options: argparse.Namespace, kind: Kind) -> str:
    """The dataset's name.

    Raises:
        StoreError: when the one that was given cannot be a folder's, or there is no such published file.
    """
    if options.name is not None:
        check_name("--name", options.name)
        return options.name
    if kind == "published":
        about = published.Name.of(published.find(options.file), **told(options))
        return f"{about.task}-{about.tier}-{about.bins}bins"
    found = options.file.removeprefix(MINARI) if kind == "minari" else Path(options.file).stem
    return re.sub(r"[^\w.-]+", "-", found).strip(".-") or "dataset"


def told(options: argparse.Namespace) -> dict[str, Any]:
    """What a published file's name would tell."""
    return {"task": options.task, "bins": options.bins, "tier": options.tier}


def write(options: argparse.Namespace, kind: Kind, name: str, path: Path, update: Update) -> ImportResult:
    """Import the file to `path`.

    Raises:
        StoreError: in one line; nothing is left behind then.
    """
    if kind == "minari":
        dataset_id = options.file.removeprefix(MINARI)
        return import_minari(dataset_id, path, name=name, task=options.task, tier=options.tier, progress=update)
    if kind == "published":
        store = published.import_published(published.find(options.file), path, progress=update, **told(options))
        return ImportResult(store, ["task, bins and tier are as the file is called, or as given"])
    file, asked = Path(options.file).expanduser(), array_options(options)
    task, tier = options.task or name, options.tier or "logged"
    return import_arrays(file, path, asked, task=task, tier=tier, progress=update)


def placed(path: Path, replace: bool, make: Callable[[Path], ImportResult]) -> ImportResult:
    """Make a store at `path`; one that is to be replaced stays until the new one is whole.

    Raises:
        StoreError: when there is something and it is not to be replaced, or is no store.
    """
    if not path.exists():
        return make(path)
    try:
        read_metadata(path)
    except StoreError as error:
        raise StoreError(f"{path} exists already and is left alone, for it is no sound store: {error}") from None
    if not replace:
        raise StoreError(f"{path} exists already; give another --name, or --replace it")
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        result = make(beside / path.name)
        shutil.rmtree(path)
        result.store.path.rename(path)
        return ImportResult(Store.open(path), result.notes)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def shown(console: Console, label: str, doing: str, unit: str) -> Iterator[Update]:
    """Progress with the time left, for what calls with (done, in all)."""
    with ProgressLine(1, console) as progress:
        stage: Stage | None = None

        def update(done: int, total: int) -> None:
            nonlocal stage
            stage = stage or progress.stage(label, doing, total, unit)
            stage.update(done)

        yield update


def summary(result: ImportResult) -> Table:
    """What was imported, for the terminal."""
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
        ("return", f"{returns.mean():.4g} ± {np.std(returns):.4g}, {returns.min():.4g} to {returns.max():.4g}"),
        ("on disk", f"{store.num_bytes / 1e6:.1f} MB"),
        *(("taken as" if not number else "", note) for number, note in enumerate(result.notes)),
    ):
        made.add_row(what, Text(value))
    return made


def training_command(store: Store, name: str, out: Path | None) -> str:
    """What trains on a dataset."""
    task = store.metadata.task
    bindings = [f"Experiment.tasks=['{task}']"]
    if out is not None or name != task:
        bindings.append(f"Imported.store='{out.resolve() if out else name}'")
    return " ".join([f"{typed('harness.run')} --gin gin/own_data.gin", *(f'--set "{each}"' for each in bindings)])


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console()
    try:
        kind = kind_of(options.file)
        check_options(options, kind)
        name = name_of(options, kind)
        path = options.out or imported_folder(name)
        unit = "bytes" if kind == "published" else "transitions"
        with (
            both_signals_stop(),
            made_alone(path, lambda _: console.print(f"another run imports {name}")),
            shown(console, name, "importing", unit) as update,
        ):
            result = placed(path, options.replace, lambda made: write(options, kind, name, made, update))
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    console.print(summary(result))
    console.print(f"written to {result.store.path}; train on it with", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"  {training_command(result.store, name, options.out)}", highlight=False, markup=False, soft_wrap=True
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
