"""The user's cache: what was made once is reused, and runs at the same time share it safely."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout


def home() -> Path:
    """The cache folder: `SPINRL_HOME`, or the platform's folder for user caches."""
    override = os.environ.get("SPINRL_HOME")
    return Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("spinrl"))


@contextmanager
def locked(path: Path, on_wait: Callable[[Path], None] | None = None) -> Iterator[None]:
    """Hold the lock of a cache entry; the system frees it when the process dies, however it does.

    Args:
        path: the entry.
        on_wait: called with the entry, once, when another run holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_wait is not None:
            on_wait(path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def get_or_build(
    kind: str, name: str, build: Callable[[Path], None], on_wait: Callable[[Path], None] | None = None
) -> Path:
    """The cache entry `name`, built where missing. Of runs that want it at once, one builds and the others wait.

    Args:
        kind: subfolder, e.g. "stores".
        name: readable, and ending in the fingerprint of all that the entry's content depends on.
        build: makes the entry; it writes beside the path it is given (as ``.NAME.*.partial``) and renames.
        on_wait: called with the entry, once, when another run is building it.
    """
    path = home() / kind / name
    if not path.exists():
        with locked(path, on_wait):
            if not path.exists():
                remove_partial(path)
                build(path)
    return path


def remove_partial(path: Path) -> None:
    """Delete what killed runs left beside an entry; call it with the entry's lock held."""
    for left in path.parent.glob(f".{path.name}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)
