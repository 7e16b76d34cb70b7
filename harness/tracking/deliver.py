"""Sending the journals of runs that could not reach their tracking server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from harness.tracking.journal import Journal, Operation, read_journal
from harness.tracking.operations import MlflowStore
from harness.tracking.outbox import one_line
from spinrl.errors import UserError

Update = Callable[[int], None]


class SyncError(UserError):
    """A journal that could not be sent, in one line."""


def at_work(header: dict[str, Any]) -> bool:
    """Whether the process that writes a journal is still running on this machine."""
    if header.get("host") != socket.gethostname():
        return False
    try:
        return psutil.Process(header["pid"]).create_time() == header["process_started"]
    except (psutil.Error, KeyError):
        return False


def left_over(folder: Path) -> Iterator[tuple[Path, dict[str, Any], list[Operation]]]:
    """The journals that nobody is going to send, oldest first, with their headers and operations.

    Raises:
        ValueError: naming the file that is no journal.
    """
    for path in sorted(folder.glob("*.jsonl")):
        header, operations = read_journal(path)
        if not at_work(header):
            yield path, header, operations


def deliver(
    path: Path, header: dict[str, Any], operations: Sequence[Operation], store: MlflowStore, update: Update
) -> int:
    """Send one journal, and delete it; what the store refuses stays in it.

    Args:
        path: of the journal.
        header: its first line.
        operations: all others.
        store: takes them; it knows those that it has.
        update: called with the number of operations sent.

    Returns:
        How many were refused.

    Raises:
        SyncError: when the store goes away; nothing is deleted then.
    """
    refused = []
    for number, operation in enumerate(operations):
        try:
            store.apply(operation)
        except Exception as error:
            if store.is_transient(error):
                raise SyncError(f"the store went away after {number} operations: {one_line(error)}") from error
            refused.append({**operation, "refused": one_line(error)})
        update(number + 1)
    journal = Journal(path, {name: value for name, value in header.items() if name != "version"})
    if refused:
        journal.write(refused)
    else:
        journal.discard()
    return len(refused)
