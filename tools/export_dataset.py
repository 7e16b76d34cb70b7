"""Export a dataset to Minari, so that it can be shared.

Examples:
  python -m tools.export_dataset robot --minari mine/robot/logged-v0 --author 'A. Person'
  python -m tools.export_dataset datasets/humanoid --minari spinrl/humanoid-stand/medium-3bins-v0

STORE is a store's folder, or the name of an imported dataset. The dataset lands where Minari keeps its own
(MINARI_DATASETS_PATH, or ~/.minari/datasets) and is read with minari.load_dataset(ID); "minari upload" shares it.
python -m tools.import_dataset minari:ID makes the same store of it again. Exit code: 0 when it is there, 2 when
something given was wrong, 130 when stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from harness.command_line import both_signals_stop
from harness.commands import typed
from harness.entry_point import entry_point
from spinrl.data import Store, store_folder
from spinrl.data.importers.minari_export import export_minari
from tools.import_dataset import shown


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.export_dataset"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("store", metavar="STORE", help="a store's folder, or the name of an imported dataset")
    made.add_argument("--minari", required=True, metavar="ID", help="NAMESPACE/NAME-vNUMBER; it must not exist yet")
    made.add_argument("--description", help="description of the dataset (default: its sizes)")
    made.add_argument("--author", help="author of the dataset")
    made.add_argument("--author-email", help="e-mail address of the author")
    made.add_argument("--code-permalink", help="address of the code that made it")
    return made


@entry_point(stopped="stopped; nothing was written")
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console()
    store = Store.open(store_folder(options.store))
    store.verify()
    with both_signals_stop(), shown(console, options.minari, "exporting", "episodes") as update:
        folder = export_minari(
            store,
            options.minari,
            description=options.description,
            author=options.author,
            author_email=options.author_email,
            code_permalink=options.code_permalink,
            progress=update,
        )
    about = store.metadata
    console.print(
        f"{about.transitions:,} transitions in {about.episodes:,} episodes written to {folder}; read them with\n"
        f"  minari.load_dataset({options.minari!r})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
