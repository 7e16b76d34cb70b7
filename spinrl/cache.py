"""The user's cache: what was made once is reused, and runs at the same time share it safely."""

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

try:
    import fcntl
except ImportError:  # Windows, whose file systems all have locks
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")
OnWait = Callable[[Path], None]
OnDamage = Callable[[str], None]


class DamagedError(UserError):
    """A cache entry that is not as it was written; one line, which ends with what to do."""


class CacheError(UserError, OSError):
    """A folder that cannot be used as a cache; one line, which says what to do."""


_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # what a file system without locks answers
_ELSEWHERE = "set SPINRL_HOME to a folder of your own"


def home() -> Path:
    """The cache folder: `SPINRL_HOME`, or the platform's folder for user caches.

    Raises:
        CacheError: when it depends on a home folder that this user does not have.
    """
    override = os.environ.get("SPINRL_HOME")
    try:
        folder = Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("spinrl")).expanduser()
    except RuntimeError:
        raise CacheError(f"this user has no home folder (HOME is not set) to keep a cache in; {_ELSEWHERE}") from None
    return folder


def require_writable(folder: Path, remedy: str = _ELSEWHERE) -> None:
    """Make `folder` where it is missing, and check that it takes files and their locks, leaving nothing behind.

    Args:
        folder: of the cache, or another one.
        remedy: the end of the message: what to do.

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
            # Not filelock's SoftFileLock instead: a killed run leaves that behind, and the next would wait for ever.
            said = "has no file locks, without which runs at the same time would spoil each other's files"
            raise CacheError(f"{folder.absolute()} {said} ({error.strerror}); {remedy}, on another disk") from error
        raise CacheError(f"{folder.absolute()} cannot be written ({error.strerror}); {remedy}") from error


def file_lock(file: Path, remedy: str = _ELSEWHERE) -> FileLock:
    """The lock that is this file, not acquired; the system frees it when the process dies, however it does.

    Whoever dies leaves the file, which means nothing: a lock is held by a process, not by the file's being there.

    Raises:
        CacheError: when its folder cannot be written or has no locks, or the file is somebody else's.
    """
    require_writable(file.parent, remedy)
    if file.exists() and not os.access(file, os.W_OK):
        raise CacheError(f"the lock file {file} is somebody else's and cannot be opened; {remedy}, or delete the file")
    return FileLock(file)


@contextmanager
def locked(path: Path, on_wait: Callable[[Path], None] | None = None) -> Iterator[None]:
    """Hold the lock of a cache entry.

    Args:
        path: the entry.
        on_wait: called with the entry, once, when another run holds the lock.

    Raises:
        CacheError: when the folder of the entry cannot be written or has no locks.
    """
    lock = file_lock(path.with_name(f".{path.name}.lock"))
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
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        # Another entry's name may begin with this one's and a dot; what follows this one's is a number or "new".
        if "." not in left.name.removeprefix(f".{path.name}.").removesuffix(".partial"):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def made_alone(path: Path, on_wait: Callable[[Path], None] | None = None) -> Iterator[None]:
    """Hold the lock of a folder that may lie anywhere, and clear away what killed runs have left beside it.

    The lock lies in the cache, since it stays: where a user has asked for a dataset there is to be nothing else.

    Args:
        path: the folder.
        on_wait: called with the lock's path, once, when another run holds it.
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
    """The opened cache entry `name`, built where missing, and built anew where it is damaged.

    Args:
        kind, name, build, on_wait: as for `get_or_build`.
        open_entry: reads the entry and checks it.
        on_damage: told of a damaged entry, by name, before it is deleted; without it the error is raised.

    Raises:
        DamagedError: by `open_entry`, without `on_damage`.
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
                return open_entry(path)  # another run may have been quicker
            except DamagedError:
                shutil.rmtree(path)
    return open_entry(get_or_build(kind, name, build, on_wait))


def made_anew(error: DamagedError) -> str:
    """What is said of an entry that is replaced: the error, with what is done in place of what to do."""
    return f"{str(error).partition(';')[0]}; it is made anew"


Progress = Callable[[int, int], None]


@attrs.frozen(kw_only=True)
class Making:
    """Handed down from who wants a dataset to whatever makes it.

    Attributes:
        processes: worker processes.
        progress: called with (units done, in all) while something is being made.
        on_wait: called with a path when another run is making the same.
        on_damage: told of what is damaged in the cache, which is then made anew; without it that is an error.
    """

    processes: int = attrs.field(default=1, validator=ge(1))
    progress: Progress | None = None
    on_wait: OnWait | None = None
    on_damage: OnDamage | None = None


AS_IT_IS = Making()
