"""One array of a store while it is being written."""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path

import numpy as np

_CHUNK = 1 << 22  # bytes read at once when checking


def checksum(path: Path) -> str:
    """CRC-32 of a file's content, as `ArrayFile` counts it, in hexadecimal."""
    crc32 = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc32 = zlib.crc32(chunk, crc32)
    return f"{crc32:08x}"


class ArrayFile:
    """A file that arrays are appended to, with its size and checksum so far.

    Args:
        path: path of the file; its folder is created if missing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self.size = 0  # bytes
        self.crc32 = 0

    def write(self, values: np.ndarray) -> None:
        """Append the array's bytes."""
        content = np.ascontiguousarray(values).tobytes()
        self._file.write(content)
        self.crc32 = zlib.crc32(content, self.crc32)
        self.size += len(content)

    def close(self) -> None:
        """Flush to the disk and close, so that a finished store is complete."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close and ignore errors, since the file is about to be deleted."""
        with contextlib.suppress(OSError):
            self._file.close()
