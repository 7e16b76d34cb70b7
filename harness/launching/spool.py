"""Events of cells on other machines, as files in a shared folder.

Each attempt at a cell appends to a file of its own, which is read while it grows. A file needs no address, survives
both sides, and is available with Ray, with Slurm and on a single machine alike.
"""

from __future__ import annotations

import os
import pickle
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LENGTH = struct.Struct("<Q")
_SUFFIX = ".events"


class SpoolWriter:
    """Appends to the file of a new attempt at a cell.

    Args:
        folder: folder of the spool.
        number: number of the cell.

    Attributes:
        attempt: number of earlier attempts.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.attempt = len(list(folder.glob(f"{number}-*{_SUFFIX}")))
        # Named by time: of two attempts the later one counts, even where the first is still being written to.
        self._path = folder / f"{number}-{time.time_ns()}{_SUFFIX}"

    def put(self, message: Any) -> None:
        """Append a message; the reader can see it when this returns."""
        content = pickle.dumps(message)
        with self._path.open("ab") as file:  # closed each time: only then does NFS show it to others
            file.write(_LENGTH.pack(len(content)) + content)


class SpoolReader:
    """Reads the messages of the latest attempt at every cell.

    Args:
        folder: folder of the spool.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._attempts: dict[int, str] = {}  # name of the file that is followed
        self._offsets: dict[int, int] = {}
        self._closed: set[int] = set()

    def new(self) -> Iterator[tuple[int, Any]]:
        """Pairs (number of the cell, message) of everything written since the last call."""
        latest: dict[int, str] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    number = int(entry.name.partition("-")[0])
                    latest[number] = max(latest.get(number, ""), entry.name)
        for number, name in sorted(latest.items()):
            if number in self._closed:
                continue
            if self._attempts.get(number) != name:
                self._attempts[number], self._offsets[number] = name, 0
            for message in self._read(number):
                yield number, message

    def close(self, number: int) -> None:
        """Stop reading a cell's messages."""
        self._closed.add(number)

    def _read(self, number: int) -> Iterator[Any]:
        with (self._folder / self._attempts[number]).open("rb") as file:
            file.seek(self._offsets[number])
            content = file.read()
        at = 0
        while at + _LENGTH.size <= len(content):
            (length,) = _LENGTH.unpack_from(content, at)
            end = at + _LENGTH.size + length
            if end > len(content):  # still being written
                break
            yield pickle.loads(content[at + _LENGTH.size : end])
            at = end
        self._offsets[number] += at
