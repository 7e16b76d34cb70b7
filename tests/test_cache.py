from __future__ import annotations

import threading
from pathlib import Path

import pytest

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
