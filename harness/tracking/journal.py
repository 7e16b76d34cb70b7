"""The queue of what goes to the tracking store, kept in a file, so that a kill loses nothing of it.

The file has JSON lines that say all that sending them needs. The first line is a header (``tracking_uri``,
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
    """The queue of one invocation, in memory and in its file, which exists only while something waits.

    Sending an operation twice changes nothing, so the file may hold more than what waits, but never less: what was sent
    is taken out of it when all was sent. Only a full disk makes it hold less; then it holds a beginning of the queue
    until it takes all again, since what comes after a gap would hide the gap.

    Args:
        path: of the file.
        header: its first line.
        waiting: the operations that the file holds already.

    Attributes:
        waiting: operations to be sent, in order.
        refused: operations that the store does not take, each with the reason as ``refused``.
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
        """The queue that another process left; without the last operation where a kill left half of it.

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
        return cls(path, header, operations)

    @property
    def left(self) -> list[Operation]:
        """Everything that the store has not taken."""
        return [*self.refused, *self.waiting]

    @property
    def staging(self) -> Path:
        """Folder for files that were made only to be sent."""
        return self.path.with_suffix(".files")

    def stage(self) -> Path:
        """A new folder in it; from here on the journal's file exists, by which the folder is found after a kill.

        Raises:
            OSError: when the disk does not take it.
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
        with contextlib.suppress(OSError):  # a full disk does not stop the training
            if self._whole and not replaced:
                self._whole = False
                self._append(operation)
                self._whole = True
            else:
                self.rewrite()

    def settle(self, operation: Operation, refused: str | None = None) -> None:
        """The first operation has been sent, or the store does not take it for the reason `refused`.

        Once nothing waits, the file follows; a full disk may keep what was sent, which does no harm.
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
        """Make the file hold exactly what is left, and delete it where that is nothing.

        Raises:
            OSError: when the disk does not take it.
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
        """Leave behind what is left, and nothing else: staged files that nobody sends either.

        Raises:
            OSError: when the disk does not take it.
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
        """All of it, never half."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".partial")
        try:
            text = "\n".join(json.dumps(line) for line in (self.header, *operations)) + "\n"
            beside.write_text(text, encoding="utf-8")
            os.replace(beside, self.path)
        finally:
            beside.unlink(missing_ok=True)


def _text_name(operation: Operation) -> tuple[str, str] | None:
    """The run and the name of the text that an operation writes, whatever was there before."""
    return (operation["run"], operation["artifact_file"]) if operation["op"] == "text" else None


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
