"""Send results that a tracking server could not take while it was away: ``python -m harness.sync``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from harness.commands import typed
from harness.entry_point import entry_point
from harness.terminal.progress import ProgressLine
from harness.tracking.journal import FOLDER, Journal
from spinrl.cache import made_alone
from spinrl.errors import UserError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("harness.sync"),
        description="Send the results that were kept in journals while a tracking server was away.",
        epilog="""examples:
  python -m harness.sync
  python -m harness.sync --folder /runs/spinrl-journal --tracking-uri http://tracking:5000

Sending twice changes nothing. A journal is deleted once all of it has arrived; operations that the server refuses stay
in it. Journals of runs that are still going are skipped. Exit code: 0 when nothing is left, 1 when something is.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--folder", type=Path, default=Path(FOLDER), help=f"folder of the journals (default: {FOLDER})")
    made.add_argument(
        "--tracking-uri", help="store to send to (default: that of each journal, without the password it may need)"
    )
    return made


def _sync(path: Path, tracking_uri: str | None, progress: ProgressLine) -> tuple[str, bool]:
    """Send one journal; returns the outcome in words, and whether nothing is left to send."""
    from harness.tracking.connection import connect, store_uri
    from harness.tracking.deliver import at_work, deliver
    from harness.tracking.operations import MlflowSink  # MLflow takes seconds to import; --help need not wait

    try:
        journal = Journal.read(path)
        if at_work(journal.header):
            return "its run is still at work, and sends it itself", True
        uri, total = store_uri(tracking_uri or journal.header["tracking_uri"]), len(journal.waiting)
        client, experiment_id = connect(uri, journal.header["experiment"], path.parent.parent, probe_seconds=10.0)
        with progress.stage(path.stem, "sending", total, "operations") as stage:
            refused = deliver(journal, MlflowSink(client, experiment_id), stage.update)
    except (UserError, ValueError) as error:
        return str(error), False
    if refused:
        return f"{total - refused} operations sent; {refused} were refused, and are kept with the reason", False
    return f"{total} operations sent", True


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console()
    done = True
    with made_alone(options.folder):  # a second process at the same time finds nothing left
        journals = sorted(options.folder.glob("*.jsonl"))
        with ProgressLine(max(len(journals), 1), console) as progress:
            for path in journals:
                said, sent = _sync(path, options.tracking_uri, progress)
                console.print(f"{path.name}: {said}", markup=False, highlight=False, soft_wrap=True)
                done &= sent
    if not journals:
        console.print(f"nothing to send: there is no journal in {options.folder}", highlight=False)
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
