from __future__ import annotations

import errno
import fcntl
import getpass
import os
import pwd
import threading
from pathlib import Path
from typing import Any

import pytest

import spinrl
from spinrl.cache import CacheError, file_lock, made_alone, require_writable
from spinrl.data import get_or_build, home, locked


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPINRL_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_home_is_overridden_by_the_environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home() == cache
    monkeypatch.setenv("SPINRL_HOME", "~/elsewhere")
    assert home() == Path.home() / "elsewhere"
    monkeypatch.delenv("SPINRL_HOME")
    assert home().name == "spinrl"


def test_an_entry_is_built_once(cache: Path) -> None:
    built: list[Path] = []

    def build(path: Path) -> None:
        built.append(path)
        path.mkdir()

    assert get_or_build("things", "a-1", build) == cache / "things" / "a-1" == get_or_build("things", "a-1", build)
    assert built == [cache / "things" / "a-1"]


def test_a_failed_build_is_tried_again(cache: Path) -> None:
    def fail(path: Path) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        get_or_build("things", "a", fail)
    assert get_or_build("things", "a", Path.mkdir).is_dir()


def test_what_a_killed_run_left_is_removed(cache: Path) -> None:
    left = cache / "things" / ".a.123.partial"
    others = [cache / "things" / f".{name}.123.partial" for name in ("ab", "a.v2")]  # being made by another run
    for folder in (left, *others):
        folder.mkdir(parents=True)
    get_or_build("things", "a", Path.mkdir)
    assert not left.exists() and all(other.exists() for other in others)


def test_runs_at_once_share_one_build(cache: Path) -> None:
    started, release = threading.Event(), threading.Event()
    built: list[str] = []
    waited: list[Path] = []

    def slow(path: Path) -> None:
        started.set()
        assert release.wait(20)
        built.append("slow")
        path.mkdir()

    def quick(path: Path) -> None:
        built.append("quick")

    def wait(path: Path) -> None:
        waited.append(path)
        release.set()

    first = threading.Thread(target=get_or_build, args=("things", "a", slow))
    first.start()
    assert started.wait(20)
    get_or_build("things", "a", quick, on_wait=wait)
    first.join()
    assert built == ["slow"] and waited == [cache / "things" / "a"]


def test_the_lock_is_free_after_an_error(cache: Path) -> None:
    with pytest.raises(KeyError), locked(cache / "x"):
        raise KeyError
    with locked(cache / "x", on_wait=lambda path: pytest.fail("still locked")):
        pass


def fails(error: Exception) -> Any:
    """Something in the place of a call of the system that does not work here."""

    def call(*_arguments: object, **_named: object) -> None:
        raise error

    return call


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_file_locks_what_is_there_is_used_and_nothing_is_made(
    number: int, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = get_or_build("things", "there", Path.mkdir)
    monkeypatch.setattr(fcntl, "flock", fails(OSError(number, os.strerror(number))))
    assert get_or_build("things", "there", Path.mkdir) == there
    with pytest.raises(
        CacheError, match=r"things has no file locks.*set SPINRL_HOME to a folder of your own, on anoth"
    ):
        get_or_build("things", "new", Path.mkdir)
    with pytest.raises(CacheError, match="making has no file locks"), made_alone(cache.parent / "exported"):
        pass
    assert not (cache / "things" / "new").exists()


@pytest.mark.parametrize("content", ["", "12345\n", "12345\nanother-host\n"])
def test_lock_files_of_a_copied_cache_hold_nobody_up(content: str, cache: Path) -> None:
    (cache / "things").mkdir(parents=True)
    (cache / "things" / ".a.lock").write_text(content)
    assert get_or_build("things", "a", Path.mkdir, on_wait=lambda path: pytest.fail("nobody holds it")).is_dir()


def test_somebody_elses_lock_file_is_said_and_not_waited_for(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "things").mkdir(parents=True)
    (cache / "things" / ".a.lock").touch(0o444)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root may write it
    with pytest.raises(CacheError, match=r"lock file .*\.a\.lock is another user's.*SPINRL_HOME.*or delete the file"):
        file_lock(cache / "things" / ".a.lock")


def test_a_cache_that_cannot_be_written_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPINRL_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(CacheError, match=r"file/cache/things cannot be written \(Not a directory\); set SPINRL_HOME"):
        get_or_build("things", "a", Path.mkdir)
    monkeypatch.setattr("tempfile.TemporaryFile", fails(OSError(errno.EROFS, os.strerror(errno.EROFS))))
    with pytest.raises(CacheError, match=r"cannot be written \(Read-only file system\); go elsewhere"):
        require_writable(tmp_path, "go elsewhere")


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id without an entry in the password file, as in many containers."""
    monkeypatch.setattr(pwd, "getpwuid", fails(KeyError("getpwuid(): uid not found")))
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "to be put back")
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("override", [None, "~/cache"])
def test_without_a_home_folder_the_cache_is_asked_for(override: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPINRL_HOME")
    if override:
        monkeypatch.setenv("SPINRL_HOME", override)
    with pytest.raises(CacheError, match=r"no home folder \(HOME is not set\).*set SPINRL_HOME to a folder"):
        home()


@pytest.mark.usefixtures("nobody")
def test_a_user_id_without_a_name_gets_one() -> None:
    spinrl._name_user()
    assert getpass.getuser() == f"uid-{os.getuid()}"
