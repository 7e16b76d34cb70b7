"""The user's cache of reusable files, which runs at the same time share safely."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import attrs
import platformdirs
from attrs.validators import ge
from filelock import FileLock, Timeout

from spinrl.config.serialize import fingerprint
from spinrl.errors import UserError
from spinrl.turns import apart

try:
    import fcntl
except ImportError:  # Windows, whose file systems all have locks
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")
OnWait = Callable[[Path], None]
OnDamage = Callable[[str], None]


class DamagedError(UserError):
    """A cache entry has changed since it was written; the message is one line that ends with what to do."""


class CacheError(UserError, OSError):
    """A folder cannot be used as a cache; the message is one line that says what to do."""


_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # errors of file systems without locks
_ELSEWHERE = "set SPINRL_HOME to a folder of your own"


def home() -> Path:
    """The cache folder: `SPINRL_HOME`, or the platform's folder for user caches.

    Raises:
        CacheError: when `SPINRL_HOME` is not set and the user has no home folder.
    """
    override = os.environ.get("SPINRL_HOME")
    try:
        folder = Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("spinrl")).expanduser()
    except RuntimeError:
        raise CacheError(f"this user has no home folder (HOME is not set) to keep a cache in; {_ELSEWHERE}") from None
    return folder


def require_writable(folder: Path, remedy: str = _ELSEWHERE) -> None:
    """Create `folder` if missing, and check that files and locks can be written there.

    Args:
        folder: folder to check.
        remedy: end of the message, which says what to do.

    Raises:
        CacheError: when it cannot be made or written, or has no file locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            # filelock's SoftFileLock is no alternative: a killed run leaves it, and the next would wait for ever.
            said = "has no file locks, without which runs at the same time would spoil each other's files"
            raise CacheError(f"{folder.absolute()} {said} ({error.strerror}); {remedy}, on another disk") from error
        raise CacheError(f"{folder.absolute()} cannot be written ({error.strerror}); {remedy}") from error


def file_lock(file: Path, remedy: str = _ELSEWHERE) -> FileLock:
    """A lock on this file, not acquired; the system frees it when the process dies.

    A dead process leaves the file behind, which means nothing: the lock is held by a process, not by the file.

    Raises:
        CacheError: when its folder cannot be written or has no locks, or another user owns the file.
    """
    require_writable(file.parent, remedy)
    if file.exists() and not os.access(file, os.W_OK):
        raise CacheError(f"the lock file {file} is another user's and cannot be opened; {remedy}, or delete the file")
    return FileLock(file)


@contextmanager
def locked(path: Path, on_wait: Callable[[Path], None] | None = None) -> Iterator[None]:
    """Hold the lock of a cache entry.

    Args:
        path: path of the entry.
        on_wait: callback with the path, once, if another run holds the lock.

    Raises:
        CacheError: when the folder of the entry cannot be written or has no locks.
    """
    lock = file_lock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_wait is not None:
            on_wait(path)
        with apart():  # another training of this process may hold it
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def get_or_build(
    kind: str, name: str, build: Callable[[Path], None], on_wait: Callable[[Path], None] | None = None
) -> Path:
    """The cache entry `name`, built if missing. If several runs need it at once, one builds and the others wait.

    Args:
        kind: subfolder, e.g. "stores".
        name: readable name that ends in the fingerprint of all that the content depends on.
        build: function that makes the entry: it writes beside the given path (as ``.NAME.*.partial``) and renames.
        on_wait: callback with the path, once, if another run is building the entry.
    """
    path = home() / kind / name
    if not path.exists():
        with locked(path, on_wait):
            if not path.exists():
                remove_partial(path)
                build(path)
    return path


def remove_partial(path: Path) -> None:
    """Delete partial files that killed runs left beside an entry; the caller holds the entry's lock."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        # Another entry's name may begin with this name and a dot; here a number or "new" follows.
        if "." not in left.name.removeprefix(f".{path.name}.").removesuffix(".partial"):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def made_alone(path: Path, on_wait: Callable[[Path], None] | None = None) -> Iterator[None]:
    """Hold the lock of a folder outside the cache, and delete partial files that killed runs left beside it.

    The lock file stays, so it is in the cache: the user's folder gets the dataset alone.

    Args:
        path: path of the folder.
        on_wait: callback with the lock's path, once, if another run holds it.
    """
    path = path.parent.resolve() / path.name
    with locked(home() / "making" / f"{path.name}-{fingerprint(str(path))}", on_wait):
        remove_partial(path)
        yield


def get_sound(
    kind: str,
    name: str,
    build: Callable[[Path], None],
    open_entry: Callable[[Path], T],
    *,
    on_wait: OnWait | None = None,
    on_damage: OnDamage | None = None,
) -> T:
    """The opened cache entry `name`, built if missing and rebuilt if damaged.

    Args:
        kind, name, build, on_wait: as for `get_or_build`.
        open_entry: function that opens and checks the entry.
        on_damage: callback with a message before a damaged entry is deleted; None raises the error instead.

    Raises:
        DamagedError: from `open_entry`, if `on_damage` is None.
    """
    path = get_or_build(kind, name, build, on_wait)
    try:
        return open_entry(path)
    except DamagedError as error:
        if on_damage is None:
            raise
        on_damage(made_anew(error))
        with locked(path, on_wait):
            try:
                return open_entry(path)  # another run may have rebuilt it
            except DamagedError:
                shutil.rmtree(path)
    return open_entry(get_or_build(kind, name, build, on_wait))


def made_anew(error: DamagedError) -> str:
    """The error's message, with "it is made anew" in place of the advice."""
    return f"{str(error).partition(';')[0]}; it is made anew"


Progress = Callable[[int, int], None]


@attrs.frozen(kw_only=True)
class BuildOptions:
    """Options and callbacks for building a missing dataset.

    Attributes:
        processes: number of worker processes.
        progress: callback with (units done, units in all).
        on_wait: callback with a path if another run is building the same.
        on_damage: callback with a message before damaged cache entries are rebuilt; None raises an error instead.
    """

    processes: int = attrs.field(default=1, validator=ge(1))
    progress: Progress | None = None
    on_wait: OnWait | None = None
    on_damage: OnDamage | None = None


DEFAULT_BUILD = BuildOptions()
