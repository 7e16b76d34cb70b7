"""Journals of runs that are no more reach the store, once, and nothing is lost on the way."""

import io
import os
import socket
from pathlib import Path

import psutil
import pytest

from harness import sync
from harness.tracking.journal import FOLDER, Journal
from harness.tracking.operations import RUN_KEY_TAG, MlflowClient
from harness.tracking.tracker import Tracker

RUN = [
    {"op": "create", "run": "k", "name": "main", "start_time": 1, "tags": {"preset": "laptop"}, "parent": None},
    {"op": "batch", "run": "k", "metrics": [["loss", 1.0, 5, 0], ["loss", 2.0, 6, 1]]},
    {"op": "finish", "run": "k", "status": "FINISHED", "end_time": 9},
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The URI of a store in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    # MLflow keeps a store of a relative path open across a change of folder: each test names its own.
    return f"sqlite:///{tmp_path}/mlflow.db"


def journal(uri, name="1.jsonl", operations=RUN, **header):
    made = Journal(Path(FOLDER) / name, {"tracking_uri": uri, "experiment": "e", **header}, operations)
    made.rewrite()
    return made.path


def runs(uri):
    client = MlflowClient(uri)
    found = client.get_experiment_by_name("e")
    return client, client.search_runs([found.experiment_id]) if found else []


def test_what_was_kept_arrives_once(here, capsys):
    journal(here)
    assert sync.main([]) == 0
    assert "3 operations sent" in capsys.readouterr().out and not Path(FOLDER).exists()
    client, (run,) = runs(here)
    assert run.info.status == "FINISHED" and run.data.tags[RUN_KEY_TAG] == "k"
    journal(here)  # as if it had been sent, and the machine lost before it was deleted
    assert sync.main([]) == 0
    client, (run,) = runs(here)
    assert [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, "loss")] == [(0, 1), (1, 2)]
    capsys.readouterr()
    assert sync.main([]) == 0 and "nothing to send" in capsys.readouterr().out


def test_files_that_a_killed_run_was_about_to_hand_over_are_tidied_away(here):
    made = Journal(Path(FOLDER) / "1.jsonl", {"tracking_uri": here, "experiment": "e"})
    (made.stage() / "figure.png").touch()
    assert sync.main([]) == 0 and not Path(FOLDER).exists()


def test_a_journal_that_a_kill_or_a_full_disk_cut_off_is_read_up_to_there(here, monkeypatch):
    path = journal(here)
    made = Journal.read(path)
    whole = path.read_bytes()
    with monkeypatch.context() as full:
        full.setattr("pathlib.Path.open", lambda path, *_, **__: HalfTaken(path, "ab"))
        made.add({"op": "batch", "run": "k"})
    assert path.read_bytes() == whole
    path.write_bytes(whole + b'{"op": "ba')
    assert list(Journal.read(path).waiting) == RUN


class HalfTaken(io.FileIO):
    """A file on a disk that fills up."""

    def write(self, content):
        return super().write(content[: len(content) // 2])


def test_the_journal_of_a_run_at_work_is_left_to_it(here, capsys):
    process = {"host": socket.gethostname(), "pid": os.getpid(), "process_started": psutil.Process().create_time()}
    path = journal(here, **process)
    assert sync.main([]) == 0 and "still at work" in capsys.readouterr().out
    assert path.exists() and not runs(here)[1]
    journal(here, **process | {"process_started": 1.0})  # another process has the number now
    assert sync.main([]) == 0 and not path.exists()


def test_what_is_refused_stays_with_its_reason(here, capsys):
    orphan = {"op": "batch", "run": "unknown", "metrics": [["loss", 1.0, 5, 0]]}
    path = journal(here, operations=[*RUN, orphan])
    assert sync.main([]) == 1
    assert "3 operations sent; 1 were refused" in capsys.readouterr().out
    (kept,) = Journal.read(path).waiting
    assert (
        kept["run"] == "unknown"
        and "never created" in kept["refused"]
        and Journal.read(path).header["experiment"] == "e"
    )


def test_a_server_that_is_away_and_a_file_that_is_no_journal_are_named(here, capsys):
    away = journal("http://localhost:9")
    Path(FOLDER, "2.jsonl").write_text("{")
    assert sync.main([]) == 1
    output = capsys.readouterr().out
    assert "1.jsonl: cannot use the MLflow store at http://localhost:9" in output
    assert "2.jsonl is not a journal" in output and away.exists()
    assert sync.main(["--tracking-uri", here]) == 1  # the other one is still there
    assert not away.exists() and len(runs(here)[1]) == 1


def test_the_next_run_of_the_experiment_sends_it_first(here, tmp_path):
    journal(here)
    other = journal("sqlite:///elsewhere.db", "2.jsonl")
    tracker = Tracker.open(here, "e", directory=tmp_path)
    assert tracker.send_left_over() == 3 and tracker.send_left_over() == 0
    tracker.close(5)
    assert len(runs(here)[1]) == 1 and other.exists()
