"""From a file and a command line to a store, to Minari and back; every refusal is one line and exit code 2."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from spinrl.data import Store
from spinrl.data.importers.published import DATA_DIR
from spinrl.data.importers.recipes import imported_folder
from tools import export_dataset, import_dataset


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.delenv(DATA_DIR, raising=False)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the handler would outlive the command


def log(path="robot arm.npz", rows=30, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.normal(size=(rows, 4)),
        "actions": np.stack([np.arange(rows) % choices for choices in (3, 3, 5)], axis=1),
        "rewards": np.ones(rows),
        "terminals": np.arange(rows) % 10 == 9,
        "timeouts": np.zeros(rows),
    }
    np.savez(path, **{name: values for name, values in {**arrays, **changes}.items() if values is not None})
    return str(path)


def kept():
    """What lies in the cache's folder of imported datasets, but for locks."""
    folder = imported_folder("x").parent
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.is_dir() else []


def test_a_file_becomes_a_store_that_can_be_trained_on_by_name(capsys):
    assert import_dataset.main([log(), "--choices", "3,3,5"]) == 0
    store = Store.open(imported_folder("robot-arm"), "robot-arm")
    store.verify()
    assert (len(store), store.metadata.episodes, store.metadata.nvec) == (30, 3, [3, 3, 5])
    assert (store.metadata.bins, store.metadata.tier) == (None, "logged")
    output = " ".join(capsys.readouterr().out.split())
    for part in (
        "transitions 30",
        "episodes 3, of 10 to 10 steps",
        "ended by the task 3",
        "3 sub-actions; choices: 3, 3, 5",
        "return 10 ± 0, 10 to 10",
        "episodes end by: terminals, timeouts",
        str(store.path),
        """python -m harness.run --gin gin/own_data.gin --set "Experiment.tasks=['robot-arm']\"""",
    ):
        assert part in output, output
    assert "Imported.store" not in output


def test_names_tasks_tiers_and_places_are_as_given(tmp_path, capsys):
    file = log(terminals=None, trial=np.arange(30) // 6)
    given = [
        file,
        "--task",
        "arm",
        "--tier",
        "human",
        "--choices",
        "5",
        "--episode-column",
        "trial",
        "--ends",
        "timeout",
    ]
    assert import_dataset.main([*given, "--name", "monday"]) == 0
    metadata = Store.open(imported_folder("monday")).metadata
    assert (metadata.task, metadata.tier, metadata.bins) == ("arm", "human", 5)
    assert (metadata.episodes, metadata.transitions) == (5, 25)
    tasks = """--set "Experiment.tasks=['arm']" --set """
    assert f"""{tasks}"Imported.store='monday'\"""" in capsys.readouterr().out
    assert import_dataset.main([*given, "--out", "here/arm"]) == 0
    assert f"""{tasks}"Imported.store='{tmp_path}/here/arm'\"""" in capsys.readouterr().out
    assert os.listdir("here") == ["arm"]


def test_a_dataset_is_replaced_only_when_asked_and_only_by_a_whole_one(capsys):
    log("robot.npz")
    assert import_dataset.main(["robot.npz", "--choices", "3,3,5"]) == 0
    before = Store.open(imported_folder("robot")).fingerprint
    log("robot.npz", rewards=np.full(30, 2.0))
    assert import_dataset.main(["robot.npz", "--choices", "3,3,5"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert import_dataset.main(["robot.npz", "--choices", "3,3,4", "--replace"]) == 2
    assert Store.open(imported_folder("robot")).fingerprint == before
    assert import_dataset.main(["robot.npz", "--choices", "3,3,5", "--replace"]) == 0
    assert Store.open(imported_folder("robot")).returns.tolist() == [20, 20, 20]
    assert kept() == ["robot"]


def test_replace_leaves_alone_what_is_no_store(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("x")
    assert import_dataset.main([log(), "--choices", "3,3,5", "--out", "photos", "--replace"]) == 2
    assert "is left alone, for it is no sound store" in capsys.readouterr().err
    assert (tmp_path / "photos" / "one.jpg").exists()


def test_a_folder_may_be_called_what_rich_takes_for_markup(capsys):
    assert import_dataset.main([log(), "--choices", "3,3,5", "--out", "out[/old]"]) == 0
    assert "written to out[/old]; train" in capsys.readouterr().out


def test_what_single_precision_loses_is_said(capsys):
    time = 1.7e9 + np.arange(30.0)
    assert import_dataset.main([log(observations=np.stack([time - time[0], time], 1)), "--choices", "3,3,5"]) == 0
    assert "observations, entry 1 varies by less than single precision" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("changes", "options", "wanted"),
    [
        ({}, [], "give --choices 3,3,5"),
        ({}, ["--choices", "3,3"], "has 3 sub-actions, --choices gives 2"),
        ({}, ["--choices", "three"], "--choices: expected whole numbers such as 3,3,5, or observed, got 'three'"),
        ({}, ["--choices", "3,3,5", "--ends", "terminal"], "leave out --ends"),
        ({}, ["--choices", "3,3,5", "--column", "colour=x"], "--column: expected MEANING=NAME"),
        ({}, ["--choices", "3,3,5", "--column", "rewards=x"], "no column x for rewards"),
        ({}, ["--choices", "3,3,5", "--name", "../x"], "--name: expected letters"),
        ({}, ["--choices", "3,3,5", "--task", "../../x"], "task: expected letters"),
        ({}, ["--choices", "3,3,5", "--tier", "a/b"], "tier: expected letters"),
        ({}, ["--choices", "3,3,5", "--action-offset", "99999999999999999999"], "--action-offset: expected"),
        ({}, ["--choices", "3,3,5", "--column", "rewards=a", "--column", "rewards=b"], "names rewards twice"),
        ({"observations": np.zeros((30, 0))}, ["--choices", "3,3,5"], "column observations has no entries"),
        ({"actions": np.zeros((30, 0), int)}, ["--choices", "3"], "column actions has no entries"),
        (
            {"actions": np.eye(5)[np.zeros((30, 3), int)]},
            ["--choices", "5"],
            "if these are one-hot vectors, give --one-hot 5,5,5",
        ),
        ({}, ["--choices", "3,3,5", "--bins", "3"], "--bins does not go with"),
        ({"terminals": None, "timeouts": None}, ["--choices", "3,3,5"], "does not say where episodes end"),
        ({"timeouts": None}, ["--choices", "3,3,5"], "give --ends terminal if that is how they all end"),
        ({"rewards": np.full(30, np.nan)}, ["--choices", "3,3,5"], "rewards has no value (nan) in row 0"),
        ({"actions": np.full((30, 1), 0.5)}, ["--choices", "3"], "whole number"),
        ({"rewards": np.array([None] * 30)}, ["--choices", "3,3,5"], "holds objects"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing_behind(capsys, changes, options, wanted):
    assert import_dataset.main([log(**changes), *options]) == 2
    message = capsys.readouterr().err
    assert wanted in message and message.count("\n") == 1
    assert kept() == []


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("log.xls", "expected .csv"),
        ("log.npz", "there is no file log.npz"),
        ("minari:logs", "does not name a Minari dataset"),
        ("minari:logs-v0", "minari download logs-v0"),
        ("3_bins/cheetah-run-medium", DATA_DIR),
    ],
)
def test_files_that_are_not_there(capsys, file, wanted):
    assert import_dataset.main([file]) == 2
    message = capsys.readouterr().err
    assert wanted in message and message.count("\n") == 1


def test_a_dataset_goes_to_minari_and_comes_back(capsys):
    import_dataset.main([log(), "--choices", "3,3,5", "--name", "robot"])
    assert export_dataset.main(["robot", "--minari", "mine/robot/logged-v0", "--author", "A. Person"]) == 0
    assert "minari.load_dataset('mine/robot/logged-v0')" in capsys.readouterr().out
    assert import_dataset.main(["minari:mine/robot/logged-v0"]) == 0
    fingerprints = [Store.open(imported_folder(name)).fingerprint for name in ("robot", "mine-robot-logged-v0")]
    assert fingerprints[0] == fingerprints[1]
    assert """"Imported.store='mine-robot-logged-v0'\"""" in capsys.readouterr().out
    assert import_dataset.main(["minari:mine/robot/logged-v0", "--choices", "3"]) == 2
    assert "--choices does not go with minari:" in capsys.readouterr().err
    for arguments in (["robot", "--minari", "mine/robot/logged-v0"], ["nothing", "--minari", "mine/robot/logged-v1"]):
        assert export_dataset.main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_damaged_store_is_not_exported(tmp_path, capsys):
    import_dataset.main([log(), "--choices", "3,3,5", "--out", "robot"])
    with (tmp_path / "robot" / "transitions" / "reward.memmap").open("r+b") as file:
        file.write(b"x")
    assert export_dataset.main(["robot", "--minari", "mine/robot-v0"]) == 2
    assert "has been altered" in capsys.readouterr().err


def test_a_published_pickle_is_imported(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    rows = [(rng.normal(size=3), rng.integers(0, 3, 2), 1.0, rng.normal(size=3), False) for _ in range(5)]
    (tmp_path / "data" / "3_bins").mkdir(parents=True)
    file = tmp_path / "data" / "3_bins" / "toy-walk-medium"
    file.write_bytes(pickle.dumps(rows, 4))
    assert import_dataset.main([str(file)]) == 0
    metadata = Store.open(imported_folder("toy-walk-medium-3bins"), "toy-walk", 3).metadata
    assert (metadata.tier, metadata.transitions) == ("medium", 5)
    monkeypatch.setenv(DATA_DIR, str(tmp_path / "data"))
    shutil.copy(file, tmp_path / "data" / "log.pkl")
    given = ["log.pkl", "--task", "toy-run", "--bins", "4", "--tier", "expert"]
    assert import_dataset.main(given) == 0
    assert Store.open(imported_folder("toy-run-expert-4bins"), "toy-run", 4).metadata.tier == "expert"
    assert import_dataset.main(["3_bins/toy-walk-medium", "--choices", "3"]) == 2
    assert "--choices does not go with" in capsys.readouterr().err


@pytest.mark.parametrize("out", [[], ["--out", "here/[arm]"]], ids=["in the cache", "elsewhere"])
@pytest.mark.parametrize("replace", [False, True])
def test_what_a_killed_import_left_is_cleared_by_the_next_one(out, replace):
    given = [log(), "--choices", "3,3,5", "--name", "arm", *out]
    folder = Path(out[1]) if out else imported_folder("arm")
    assert not replace or import_dataset.main(given) == 0
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in (f".{folder.name}.{os.getpid()}.partial", f".{folder.name}.{2**22 + 1}.partial", ".leg.7.partial"):
        (folder.parent / left / "transitions").mkdir(parents=True)
    assert import_dataset.main([*given, *["--replace"] * replace]) == 0
    assert sorted(os.listdir(folder.parent)) == [".leg.7.partial", folder.name]


def test_a_cache_that_cannot_be_written_is_one_line(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPINRL_HOME", str(tmp_path / "file"))
    assert import_dataset.main([log(), "--choices", "3,3,5", "--name", "arm", "--out", "arm"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_being_stopped_leaves_nothing_behind(monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("spinrl.data.store.writer.check_episode", stopped)
    assert import_dataset.main([log(), "--choices", "3,3,5"]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert kept() == []


@pytest.mark.parametrize("tool", [import_dataset, export_dataset])
def test_help_shows_examples(tool, capsys):
    with pytest.raises(SystemExit) as done:
        tool.main(["--help"])
    assert done.value.code == 0
    assert f"Examples:\n  python -m {tool.__name__} " in capsys.readouterr().out
