"""Describe a dataset: returns by source, coverage of the choices, structure between sub-actions, and faults.

Examples:
  python -m tools.describe_dataset ~/.cache/spinrl/stores/humanoid-stand-3bins-medium-6452f16356661495
  python -m tools.describe_dataset my-robot --out report/my-robot
  python -m tools.describe_dataset datasets/cheetah --sample 50000

STORE is the folder of a store, or the name of a dataset that tools.import_dataset has made. With --out also as
dataset.html, description.json and figures (PNG and SVG). Exit code: 0 when it was described, 2 when there is no such
store, it is damaged, or --out cannot be written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.command_line import at_least_one
from harness.commands import typed
from harness.entry_point import entry_point
from harness.reporting.dataset_figures import observation_ranges, overview
from harness.reporting.dataset_page import NOTES, checks, html, tables, to_json
from harness.reporting.figures import save
from spinrl.data import Store, store_folder
from spinrl.data.description import SAMPLE, Description


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.describe_dataset"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("store", metavar="STORE", help="folder of a store, or name of an imported dataset")
    made.add_argument("--out", type=Path, metavar="FOLDER", help="folder for page, numbers and figures")
    made.add_argument(
        "--sample",
        type=at_least_one,
        default=SAMPLE,
        metavar="N",
        help=f"transitions to estimate mutual information from (default {SAMPLE:,}); all else counts every one",
    )
    return made


def show(store: Store, description: Description, console: Console) -> None:
    """Print the tables."""
    facts = Table(box=None, show_header=False, padding=(0, 1))
    for fact in checks(store, description).items():
        facts.add_row(*map(Text, fact))
    console.print(facts)
    for title, rows in tables(description):
        console.print(Text(f"\n{title}", style="bold"))
        console.print(_console_table(rows))
    for note in NOTES:
        console.print(note, style="dim")


def _console_table(rows: pd.DataFrame) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, column in enumerate(rows.columns):
        made.add_column(Text(str(column)), justify="right" if index else "left")
    for row in rows.itertuples(index=False):
        made.add_row(*(Text(str(cell)) for cell in row))
    return made


def write(store: Store, description: Description, folder: Path) -> list[Path]:
    """Write page, numbers and figures; returns every file.

    Raises:
        OSError: when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{store.metadata.task}, {store.metadata.tier}"
    drawn = {
        "overview": overview(description.episodes, description.actions, title),
        "observations": observation_ranges(description.observations, f"{title}: observations"),
    }
    paths = [path for stem, figure in drawn.items() for path in save(figure, folder, stem)]
    images = {stem: (folder / f"{stem}.svg").read_bytes() for stem in drawn}
    for name, text in (
        ("dataset.html", html(store, description, images)),
        ("description.json", to_json(store, description)),
    ):
        (folder / name).write_text(text, encoding="utf-8")
        paths.append(folder / name)
    return paths


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console()
    store = Store.open(store_folder(options.store))
    with console.status(f"reading {len(store):,} transitions"):
        store.verify()
        description = Description.of(store, options.sample)
    show(store, description, console)
    if options.out:
        paths = write(store, description, options.out)
        names = f"{len(paths)} files in {options.out}: dataset.html, description.json and figures"
        console.print(names, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
