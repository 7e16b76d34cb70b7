"""What could not be sent to the tracking store, in order, as JSON lines that say all that sending them needs.

The first line is a header (``tracking_uri``, ``experiment``, ``version``, and the process that writes it); each other
line is one operation as `harness.tracking.operations.MlflowStore.apply` takes it, keyed by the run's own key, which is
also its tag in MLflow.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

VERSION = 1
FOLDER = "spinrl-journal"  # in the working directory
Operation = dict[str, Any]


class Journal:
    """One invocation's journal file; it exists only while something waits to be sent, if only a file."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self._header = {"version": VERSION, **header}

    @property
    def staging(self) -> Path:
        """Folder for files that were made only to be sent."""
        return self.path.with_suffix(".files")

    def stage(self) -> Path:
        """A new folder in it; from here on there is a journal, by which it is found should this process be killed.

        Raises:
            OSError: when the disk does not take it.
        """
        if not self.path.exists():
            self._write([])
        folder = self.staging / uuid.uuid4().hex
        folder.mkdir(parents=True)
        return folder

    def discard(self) -> None:
        """Remove the file, the staged files, and the folder they were in if nothing else is there."""
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.staging, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def write(self, operations: Iterable[Operation]) -> None:
        """Make the file hold exactly `operations`; without any, nor staged files, remove it."""
        operations = list(operations)
        if operations or self.staging.exists():
            self._write(operations)
        else:
            self.path.unlink(missing_ok=True)

    def append(self, operations: Iterable[Operation]) -> None:
        """Add operations at the end.

        Raises:
            OSError: when the disk does not take them; none of them is added then.
        """
        if not self.path.exists():
            self.write(operations)
            return
        with self.path.open("ab", buffering=0) as file:
            before = file.tell()
            content = "".join(json.dumps(operation) + "\n" for operation in operations).encode()
            try:
                if file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                file.truncate(before)
                raise

    def _write(self, operations: Iterable[Operation]) -> None:
        """All of it, never half."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".partial")
        try:
            beside.write_text(
                "\n".join(json.dumps(line) for line in (self._header, *operations)) + "\n", encoding="utf-8"
            )
            os.replace(beside, self.path)
        finally:
            beside.unlink(missing_ok=True)


def read_journal(path: Path) -> tuple[dict[str, Any], list[Operation]]:
    """The header and the operations of a journal, in order; without the last where a kill left half of it.

    Raises:
        ValueError: naming the file, when it is not a journal or of a newer version.
    """
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # what no newline ends was still being written
    try:
        header, *operations = [json.loads(line) for line in lines]
        version = header["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a journal of unsent results: {error}") from error
    if version > VERSION:
        raise ValueError(f"{path} is of version {version}; this program knows up to {VERSION}")
    for operation in operations:
        if operation.get("staged"):  # the folder may have been moved since
            written = Path(operation["path"])
            here = path.with_suffix(".files").resolve() / written.parent.name / written.name
            operation["path"] = str(here if here.exists() else written)
    return header, operations
