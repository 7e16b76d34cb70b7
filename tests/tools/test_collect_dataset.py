"""The command on the real chain, small: what it writes, what it refuses, and that a kill costs nothing but time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spinrl.data import Store
from tools import collect_dataset
from tools.collect_dataset import main

RECIPES = """
only/Source.behavior = 'random'
only/Tier.sources = [@only/Source()]
two/Source.behavior = 'random'
two/Source.hold = 5
both/Tier.sources = [@only/Source(), @two/Source()]
Experiment.recipes = {'random': @only/Tier(), 'both': @both/Tier()}
"""


@pytest.fixture
def random_tiers(tmp_path: Path) -> list[str]:
    """Options that need no trained behaviour."""
    file = tmp_path / "random.gin"
    file.write_text(RECIPES)
    return ["--task", "finger-spin", "--gin", str(file), "--tier"]


def test_a_store_is_collected_summed_up_and_put_where_it_is_wanted(
    random_tiers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "made" / "here"
    command = [*random_tiers, "both", "--transitions", "2400", "--processes", "1", "--out", str(out)]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "steps/s" in first and "2,400 transitions" in first and first.count("1,200") == 2
    store = Store.open(out, "finger-spin", 3)
    store.verify()
    assert len(store) == 2400 and [source.hold for source in store.metadata.sources] == [1, 5]
    (cached,) = (Path(os.environ["SPINRL_HOME"]) / "stores").glob("finger-spin*")
    assert Store.open(cached).fingerprint == store.fingerprint
    assert (cached / "metadata.json").samefile(out / "metadata.json")

    assert main(command) == 0  # again: nothing to do
    assert "found in the cache" in capsys.readouterr().out
    assert main([*command, "--seed", "5"]) == 1
    assert "holds another dataset" in capsys.readouterr().err
    assert Store.open(out).fingerprint == store.fingerprint
    assert [path.name for path in out.parent.iterdir()] == ["here"]


def test_on_another_disk_it_is_copied(random_tiers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert main([*random_tiers, "random", "--transitions", "50", "--out", str(tmp_path / "copy")]) == 0
    Store.open(tmp_path / "copy").verify()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "finger-spin", "--tier", "mediun"], "did you mean 'medium'"),
        (["--task", "finger-spinn", "--tier", "medium"], "did you mean 'finger-spin'"),
        (["--task", "finger-spin", "--tier", "medium", "--bins", "101"], "from 2 to 100"),
        (["--task", "finger-spin", "--tier", "medium", "--bins", "7"], "tools.train_behavior --task finger-spin"),
        (["--task", "finger-spin", "--tier", "medium", "--set", "medium/Source.epsilom=1"], "did you mean epsilon"),
        (["--task", "finger-spin", "--tier", "medium", "--gin", "nowhere.gin"], "nowhere.gin"),
        (["--task", "humanoid-stand", "--tier", "random-medium-expert", "--transitions", "2"], "too few"),
        (["--task", "humanoid-stand", "--tier", "medium", "--out", "."], "expected a store or no folder"),
    ],
)
def test_what_is_wrong_is_one_line_and_code_2(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious").touch()
    assert main(options) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("option", ["--transitions", "--processes"])
def test_numbers_are_from_one(option: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--task", "finger-spin", "--tier", "medium", option, "0"])
    assert ended.value.code == 2 and "from 1" in capsys.readouterr().err


def test_ctrl_c_says_that_the_same_command_goes_on(
    random_tiers: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(collect_dataset, "source_store", stopped)
    assert main([*random_tiers, "random", "--transitions", "50"]) == 130
    assert "the same command resumes" in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_collection_goes_on_to_the_same_data(
    random_tiers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*random_tiers, "random", "--transitions", "23500"]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    monkeypatch.setenv("SPINRL_HOME", str(killed))
    process = subprocess.Popen([sys.executable, "-m", "tools.collect_dataset", *command, "--processes", "1"])
    try:
        deadline = time.monotonic() + 120
        while not list(killed.rglob("0.npz")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (killed / "stores").exists() and 1 <= len(list(killed.rglob("[0-9]*.npz"))) < 24
    assert main([*command, "--processes", "2", "--out", str(tmp_path / "one")]) == 0
    assert not list(killed.rglob("*.npz")) and not list(killed.rglob("*.partial"))
    monkeypatch.setenv("SPINRL_HOME", str(undisturbed))
    assert main([*command, "--processes", "1", "--out", str(tmp_path / "other")]) == 0
    assert Store.open(tmp_path / "one").fingerprint == Store.open(tmp_path / "other").fingerprint
