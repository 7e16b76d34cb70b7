"""Writing beside and renaming: a kill leaves the old file or folder, or the new one, and never half of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to, which takes the place of `path` at the end.

    After an exception nothing is replaced, and what was written is deleted. The caller flushes to the disk where a
    loss of power must not lose the new content. A folder replaces an empty folder alone.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
        else:
            beside.unlink(missing_ok=True)
