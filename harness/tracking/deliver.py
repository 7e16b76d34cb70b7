"""Finds and sends journals that ended runs left behind."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from harness.tracking.journal import Journal
from harness.tracking.operations import MlflowSink
from harness.tracking.outbox import Outbox, one_line
from spinrl.errors import UserError

STALE_SECONDS = 600.0  # age from which a half-written file is one that a killed run left


class SyncError(UserError):
    """A journal could not be sent; the message is one line."""


def at_work(header: Mapping[str, Any]) -> bool:
    """Whether the process that writes the journal is still running on this machine."""
    if header.get("host") != socket.gethostname():
        return False
    try:
        return psutil.Process(header["pid"]).create_time() == header["process_started"]
    except (psutil.Error, KeyError):
        return False


def left_over(folder: Path) -> Iterator[Journal]:
    """The journals whose runs have ended, oldest first.

    Raises:
        ValueError: if a file is no journal; the message names it.
    """
    for path in sorted(folder.glob("*.jsonl")):
        journal = Journal.read(path)
        if not at_work(journal.header):
            yield journal
    for path in folder.glob("*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def deliver(journal: Journal, sink: MlflowSink, sent: Callable[[int], None] = lambda _count: None) -> int:
    """Send a journal and delete it; operations that the store refuses stay in it.

    Args:
        journal: journal that no other process sends at the time.
        sink: applies the operations; it skips those that the store has.
        sent: callback with the number of operations sent so far.

    Returns:
        The number of refused operations.

    Raises:
        SyncError: when the store becomes unreachable; nothing is deleted then.
    """
    total = len(journal.waiting)
    error = Outbox(sink, journal, warn=lambda _line: None).send(sent)
    if error:
        done = total - len(journal.waiting)
        raise SyncError(f"the store went away after {done} operations: {one_line(error)}") from error
    journal.close()
    return len(journal.refused)
