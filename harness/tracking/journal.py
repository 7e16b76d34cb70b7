"""The queue of operations for the tracking store, kept in a file, so that a kill loses none.

The file has JSON lines with all that sending them needs. The first line is a header (``tracking_uri``,
``experiment``, ``version``, and the process that writes it); each other line is one operation as
`harness.tracking.operations.MlflowSink.apply` takes it, keyed by the run's own key, which is also its tag in MLflow.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

VERSION = 1
FOLDER = "spinrl-journal"  # in the working directory
Operation = dict[str, Any]


class Journal:
    """The queue of one invocation, in memory and in its file, which exists only while operations wait.

    Sending an operation twice changes nothing, so the file may hold operations that were sent; it is cleared once all
    were. It holds fewer than wait only if the disk is full: then it keeps the beginning of the queue, until all can be
    written again, so that it never has a gap.

    Args:
        path: path of the file.
        header: content of its first line.
        waiting: operations that the file holds already.

    Attributes:
        waiting: operations to be sent, in order.
        refused: operations that the store refused, each with the reason under ``refused``.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], waiting: Iterable[Operation] = ()) -> None:
        self.path = path
        self.header = {"version": VERSION, **header}
        self.waiting: deque[Operation] = deque(waiting)
        self.refused: list[Operation] = []
        self._sent_files: list[Path] = []  # staged files that are deleted once the file does not name them any more
        self._whole = True  # whether the file holds all that waits

    @classmethod
    def read(cls, path: Path) -> Journal:
        """The queue that another process left; a half-written last operation is dropped.

        Raises:
            ValueError: if the file is not a journal or of a newer version; the message names it.
        """
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a line without its newline was still being written
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
        return cls(path, header, operations)

    @property
    def left(self) -> list[Operation]:
        """All operations that the store does not have."""
        return [*self.refused, *self.waiting]

    @property
    def staging(self) -> Path:
        """Folder for files that were made only to be sent."""
        return self.path.with_suffix(".files")

    def stage(self) -> Path:
        """A new folder in `staging`; the journal's file exists from now on, so that the folder is found after a kill.

        Raises:
            OSError: when the disk is full or cannot be written.
        """
        if not self.path.exists():
            self._write(self.left)
        folder = self.staging / uuid.uuid4().hex
        folder.mkdir(parents=True)
        return folder

    def add(self, operation: Operation) -> None:
        """Put an operation at the end.

        A text takes the place of an unsent earlier one of the same name: the table of all returns, which grows, is
        written anew every half minute. The first operation may be on its way, so it stays.
        """
        before, name = len(self.waiting), _text_name(operation)
        if name:
            rest = (each for each in itertools.islice(self.waiting, 1, None) if _text_name(each) != name)
            self.waiting = deque([*itertools.islice(self.waiting, 1), *rest])
        replaced = len(self.waiting) < before
        self.waiting.append(operation)
        with contextlib.suppress(OSError):  # a full disk must not stop the training
            if self._whole and not replaced:
                self._whole = False
                self._append(operation)
                self._whole = True
            else:
                self.rewrite()

    def settle(self, operation: Operation, refused: str | None = None) -> None:
        """Remove the first operation: it was sent, or the store refused it for the reason `refused`.

        Once nothing waits, the file is rewritten; on a full disk it may keep sent operations, which is harmless.
        """
        if not self.waiting or self.waiting[0] is not operation:
            return
        self.waiting.popleft()
        if refused:
            self.refused.append({**operation, "refused": refused})
        elif operation.get("staged"):
            self._sent_files.append(Path(operation["path"]))
        if not self.waiting:
            with contextlib.suppress(OSError):
                self.rewrite()

    def rewrite(self) -> None:
        """Make the file hold exactly the operations that are left; delete it if there are none.

        Raises:
            OSError: when the disk is full or cannot be written.
        """
        self._whole = False
        if self.left or self.staging.exists():
            self._write(self.left)
        for path in self._sent_files:
            path.unlink(missing_ok=True)
            _remove_empty(path.parent)
        self._sent_files.clear()
        _remove_empty(self.staging)
        if not (self.left or self.staging.exists()):
            self.path.unlink(missing_ok=True)
            _remove_empty(self.path.parent)
        self._whole = True

    def close(self) -> None:
        """Write the operations that are left, and delete staged files that none of them names.

        Raises:
            OSError: when the disk is full or cannot be written.
        """
        self.rewrite()
        if not self.left and self.staging.exists():
            shutil.rmtree(self.staging, ignore_errors=True)
            self.rewrite()

    def _append(self, operation: Operation) -> None:
        if not self.path.exists():
            self._write(self.left)
            return
        content = f"{json.dumps(operation)}\n".encode()
        with self.path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                if file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                file.truncate(before)
                raise

    def _write(self, operations: Iterable[Operation]) -> None:
        """Write a new file atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".partial")
        try:
            text = "\n".join(json.dumps(line) for line in (self.header, *operations)) + "\n"
            beside.write_text(text, encoding="utf-8")
            os.replace(beside, self.path)
        finally:
            beside.unlink(missing_ok=True)


def _text_name(operation: Operation) -> tuple[str, str] | None:
    """Run and artifact name of an operation that replaces a text, None for other operations."""
    return (operation["run"], operation["artifact_file"]) if operation["op"] == "text" else None


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
