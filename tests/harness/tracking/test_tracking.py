import errno
import math
import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
import matplotlib.pyplot as plt
import pytest

from harness.records import CellKey, Evaluation
from harness.reporting.returns import Reference, ReportMeta, read_csv, to_frame
from harness.tracking.connection import ask, default_uri, redacted
from harness.tracking.deliver import deliver
from harness.tracking.journal import Journal, Operation
from harness.tracking.operations import MlflowClient, MlflowSink
from harness.tracking.outbox import Outbox
from harness.tracking.returns_file import ReturnsFile
from harness.tracking.tracker import ParentRun, Tracker, TrackingError

KEY = CellKey(task="humanoid-stand", bins=3, tier="expert", policy="spin", algorithm="iql", seed=0)
EVALUATION = Evaluation(
    gradient_step=60, fraction=0.01, returns=(100.0, 200.0), asm_seconds=30, train_seconds=4, evaluation_seconds=2
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("working directory")  # with a space, as users' folders have


@pytest.fixture
def tracker(directory: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracker]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = Tracker.open(None, request.node.name, directory=directory, period=0.05)
    yield tracker
    tracker.close(5)


def parent_run(tracker: Tracker) -> ParentRun:
    return tracker.start_parent(
        "main", params={"IQL.expectile": 0.8}, tags={"preset": "laptop"}, given_text="given", resolved_text="resolved"
    )


def history(client: MlflowClient, run_id: str | None, name: str) -> list[tuple[int, float]]:
    assert run_id is not None
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, name))


def test_names_that_mlflow_refuses_are_logged_all_the_same(tracker: Tracker) -> None:
    """As policies of gin/experiments/asm_epochs.gin are called."""
    keys = [attrs.evolve(KEY, policy=f"spin-asm-{share}%") for share in (5, 20)]
    tags = {"preset": "laptop", "a%": "b"}
    parent = tracker.start_parent(
        "main", params={"policies.spin-asm-5%": "x", "y": 1}, tags=tags, given_text="", resolved_text="", cells=keys
    )
    for key in keys:
        parent.start_cell(key, params={}, tags={}).evaluation(EVALUATION)
    assert tracker.outbox.flush(20) and not tracker.outbox.journal.refused
    data = tracker.sink.client.get_run(parent.run_id).data
    assert data.params == {"policies.spin-asm-5_": "x", "y": "1"}
    assert {"return/expert spin-asm-5_", "return/expert spin-asm-20_"} <= set(data.metrics)


def test_a_parent_and_its_cell_as_the_store_has_them(tracker: Tracker, directory: Path) -> None:
    parent = parent_run(tracker)
    cell = parent.start_cell(KEY, params={"SPIN.dropout": 0.1}, tags={"dataset_fingerprint": "abc"})
    cell.evaluation(EVALUATION, normalized_score=20.5)
    cell.dataset("humanoid", "f" * 64, source="/data", rows=7, schema={"observation": "float32 (67,)"})
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    parent.figure("figures/returns", figure)
    plt.close(figure)
    cell.picture("pictures/last_evaluation.png", b"a picture")
    table = to_frame([(KEY, EVALUATION)], preset="laptop")
    parent.publish(table, ReportMeta(experiment="x", references={("humanoid-stand", 3): Reference(4.5, 711.9)}))
    parent.finish("KILLED")
    assert tracker.outbox.flush(30)

    client = tracker.sink.client
    assert cell.run_id is not None and parent.run_id is not None
    stored = client.get_run(cell.run_id)
    assert stored.data.tags["mlflow.parentRunId"] == parent.run_id
    assert stored.info.status == "KILLED"  # an unfinished cell ends as its parent does
    assert stored.data.metrics == {
        "eval/return_mean": 150.0,
        "eval/return_std": 50.0,
        "eval/normalized_score": 20.5,
        "eval/budget_fraction": 0.01,
        "time/asm_seconds": 30.0,
        "time/train_seconds": 4.0,
        "time/evaluation_seconds": 2.0,
    }
    assert history(client, cell.run_id, "eval/return_mean") == [(60, 150.0)]
    for name, value in {"task": "humanoid-stand", "bins": "3", "tier": "expert", "policy": "spin", "seed": "0"}.items():
        assert stored.data.tags[name] == value == stored.data.params[name]
    assert stored.data.params["SPIN.dropout"] == "0.1" and stored.data.tags["dataset_fingerprint"] == "abc"
    assert stored.inputs is not None and stored.inputs.dataset_inputs[0].dataset.digest == "f" * 36
    artifacts = directory / "mlruns" / parent.run_id / "artifacts"
    assert (artifacts / "config" / "given.gin").read_text() == "given"
    assert {path.name for path in (artifacts / "figures").iterdir()} == {"returns.png", "returns.svg"}
    assert read_csv(artifacts / "returns.csv").equals(table)
    of_cell = directory / "mlruns" / cell.run_id / "artifacts"
    assert (of_cell / "pictures" / "last_evaluation.png").read_bytes() == b"a picture"
    assert tracker.close(5) is None
    assert not (directory / "spinrl-journal").exists()


def test_the_parent_shows_returns_under_what_varies(tracker: Tracker) -> None:
    medium, other = attrs.evolve(KEY, tier="medium"), attrs.evolve(KEY, policy="saint")
    texts = {"params": {}, "tags": {}, "given_text": "", "resolved_text": ""}
    tiers = tracker.start_parent("tiers", cells=[KEY, medium], **texts)  # type: ignore[arg-type]
    policies = tracker.start_parent("policies", cells=[KEY, other], **texts)  # type: ignore[arg-type]
    for parent, cell in ((tiers, KEY), (tiers, medium), (policies, KEY), (policies, other)):
        parent.start_cell(cell, params={}, tags={}).evaluation(EVALUATION)
    tiers.start_cell(other, params={}, tags={}).evaluation(EVALUATION)  # not planned: only on its own run
    assert tracker.outbox.flush(60)
    client = tracker.sink.client
    assert tiers.run_id is not None and policies.run_id is not None
    assert client.get_run(tiers.run_id).data.metrics == {"return/expert": 150, "return/medium": 150}
    assert set(client.get_run(policies.run_id).data.metrics) == {"return/expert spin", "return/expert saint"}


def test_metrics_arrive_once_in_batches_and_non_finite_ones_are_not_lost(tracker: Tracker) -> None:
    cell = parent_run(tracker).start_cell(KEY, params={}, tags={})
    for step in range(1, 1201):
        cell.metrics({"train/loss_policy": step / 2}, step)
    cell.metrics({"train/loss_value": math.nan, "train/loss_qvalue": math.inf}, 7)
    assert tracker.outbox.flush(30)
    client = tracker.sink.client
    assert history(client, cell.run_id, "train/loss_policy") == [(step, step / 2) for step in range(1, 1201)]
    ((step, value),) = history(client, cell.run_id, "train/loss_value")
    assert step == 7 and math.isnan(value)
    assert cell.run_id is not None
    tags = client.get_run(cell.run_id).data.tags
    assert tags["nonfinite.train/loss_qvalue"] == "inf at step 7"


def test_what_is_refused_is_kept_and_does_not_stop_the_rest(tracker: Tracker, directory: Path) -> None:
    parent = parent_run(tracker)
    gone = {"path": str(directory / "never-written.pt"), "artifact_directory": None, "staged": False}
    tracker.outbox.put({"op": "artifact", "run": parent.key, **gone})
    parent.tags({"after": "yes"})
    line = tracker.close(5)
    assert parent.run_id is not None
    assert tracker.sink.client.get_run(parent.run_id).data.tags["after"] == "yes"
    assert line is not None and line.startswith("1 tracking operations did not reach")
    (operation,) = Journal.read(tracker.outbox.journal.path).waiting
    assert operation["op"] == "artifact" and "never-written.pt is gone" in operation["refused"]


def test_the_end_waits_for_a_full_disk(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can neither be sent nor kept is lost when the process ends, so it does not end at once."""
    write, tried = Journal._write, []

    def full_for_a_while(journal: Journal, operations: Iterable[Operation]) -> None:
        tried.append(journal)
        if len(tried) < 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(journal, operations)

    said: list[str] = []
    monkeypatch.setattr(Journal, "_write", full_for_a_while)
    monkeypatch.setattr(tracker.outbox, "_warn", said.append)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    tracker.outbox.put({"op": "tags", "run": "never created", "tags": {"a": "1"}})
    assert tracker.close() is not None
    assert len(tried) == 6 and sum("would be lost" in line for line in said) == 1
    kept = Journal.read(tracker.outbox.journal.path).waiting
    assert [operation["run"] for operation in kept] == ["never created"]


class Away:
    def apply(self, operation: Operation) -> None:
        raise ConnectionError("away")

    def is_transient(self, error: Exception) -> bool:
        return True

    def is_alive(self) -> bool:
        return False


def test_what_the_journal_misses_is_not_hidden_by_what_comes_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store is away and the disk is full for a while: the journal is a beginning of the queue, or all."""

    outbox = Outbox(Away(), Journal(tmp_path / "j.jsonl", {}), period=0.01, max_delay=0.01, warn=lambda _: None).start()
    outbox.put({"op": "tags", "run": "0"})
    while not (outbox.away and outbox.journal.path.exists()):
        time.sleep(0.01)

    def kept() -> list[str]:
        return [operation["run"] for operation in Journal.read(outbox.journal.path).waiting]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    outbox.put({"op": "tags", "run": "1"})
    with monkeypatch.context() as disk:
        disk.setattr(Journal, "_append", full)
        disk.setattr(Journal, "_write", full)
        outbox.put({"op": "tags", "run": "2"})
        outbox.put({"op": "tags", "run": "3"})
        assert kept() == ["0", "1"]
    outbox.put({"op": "tags", "run": "4"})
    assert kept() == ["0", "1", "2", "3", "4"]
    assert outbox.close(0.0) == 5


def test_of_a_table_that_is_written_anew_the_latest_alone_waits_for_the_store(tmp_path: Path) -> None:
    outbox = Outbox(Away(), Journal(tmp_path / "j.jsonl", {}), period=0.01, max_delay=0.01, warn=lambda _: None).start()
    outbox.put({"op": "tags", "run": "0"})
    while not (outbox.away and outbox.journal.path.exists()):
        time.sleep(0.01)
    for number in "123":
        for run, file in (("a", "returns.csv"), ("a", "meta.json"), ("b", "returns.csv")):
            outbox.put({"op": "text", "run": run, "artifact_file": file, "text": number})
        outbox.put({"op": "tags", "run": number})
    kept = Journal.read(outbox.journal.path).waiting
    assert [operation["text"] for operation in kept if operation["op"] == "text"] == ["3", "3", "3"]
    assert [operation["run"] for operation in kept] == ["0", "1", "2", "a", "a", "b", "3"]
    assert outbox.close(0.0) == 7


def test_what_may_be_on_its_way_keeps_its_place_though_an_equal_text_follows(tmp_path: Path) -> None:
    outbox = Outbox(Away(), Journal(tmp_path / "j.jsonl", {}), period=60.0, warn=lambda _: None).start()
    same = [{"op": "text", "run": "a", "artifact_file": "returns.csv", "text": "1"} for _ in range(3)]
    for operation in same:
        outbox.put(operation)
    assert [id(each) for each in outbox.journal.waiting] == [id(same[0]), id(same[2])]
    assert outbox.close(0.0) == 2


def test_what_is_queued_is_on_disk_before_it_is_sent(tmp_path: Path) -> None:
    outbox = Outbox(Away(), Journal(tmp_path / "j.jsonl", {}), warn=lambda _: None)  # nothing is sent: not started
    outbox.put_metrics("a", [("loss", 0.5, 1000, 1)])
    outbox.put({"op": "finish", "run": "a"})
    assert [each["op"] for each in Journal.read(tmp_path / "j.jsonl").waiting] == ["batch", "finish"]


class Killed(Exception):
    """Stands for the end of a process."""


def test_a_kill_while_a_staged_file_is_being_sent_neither_loses_nor_refuses_it(tracker: Tracker) -> None:
    """Whatever was sent already is sent again by the next process, its file included."""
    parent = parent_run(tracker)
    assert tracker.outbox.flush(20)

    class DiesAfter(MlflowSink):
        def apply(self, operation: Operation) -> None:
            super().apply(operation)
            raise Killed

        def is_transient(self, error: Exception) -> bool:
            raise error

    journal = Journal(tracker.directory / "spinrl-journal" / "killed.jsonl", {})
    dying = Outbox(DiesAfter(tracker.sink.client, tracker.sink.experiment_id), journal, warn=lambda _: None)
    path = dying.stage() / "figure.png"
    path.write_bytes(b"x")
    dying.put(
        {"op": "artifact", "run": parent.key, "path": str(path.resolve()), "artifact_directory": None, "staged": True}
    )
    with pytest.raises(Killed):
        dying.send()
    assert deliver(Journal.read(journal.path), tracker.sink) == 0
    assert not journal.path.exists() and not journal.staging.exists()
    assert parent.run_id is not None
    assert "figure.png" in {file.path for file in tracker.sink.client.list_artifacts(parent.run_id)}


def test_returns_on_disk_are_whole_whatever_broke_off(tmp_path: Path) -> None:
    later = attrs.evolve(EVALUATION, gradient_step=120, returns=(1.5, math.inf))
    file = ReturnsFile(tmp_path / "study" / "returns.jsonl")
    file.add(KEY, EVALUATION)
    with file.path.open("a") as half:
        half.write('{"cell": {"task": "hum')
    file.add(KEY, EVALUATION)  # once more after the cell was begun again
    file.add(KEY, later)
    assert ReturnsFile(file.path).read() == {KEY: [EVALUATION, later]}
    file.delete()
    assert not file.path.parent.exists() and file.read() == {}


def test_every_operation_can_be_applied_twice(tracker: Tracker) -> None:
    parent = parent_run(tracker)
    metrics = [["loss", 0.5, 1000, 1], ["loss", "nan", 1000, 2]]
    operations: list[Operation] = [
        {"op": "create", "run": "key", "name": "n", "start_time": 1, "tags": {"a": "b"}, "parent": parent.key},
        {"op": "batch", "run": "key", "metrics": metrics, "params": {"p": "1"}},
        {"op": "text", "run": "key", "text": "t", "artifact_file": "t.txt"},
        {"op": "finish", "run": "key", "status": "FINISHED", "end_time": 5},
    ]
    client = tracker.sink.client
    for sink in (MlflowSink(client, tracker.sink.experiment_id), MlflowSink(client, tracker.sink.experiment_id)):
        for operation in operations:
            sink.apply(operation)
    runs = client.search_runs([tracker.sink.experiment_id], filter_string="tags.a = 'b'")
    assert len(runs) == 1
    assert [step for step, _ in history(client, runs[0].info.run_id, "loss")] == [1, 2]


def test_the_store_is_by_argument_or_environment_or_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_uri() == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert default_uri() == "http://somewhere:5000"
    assert redacted("http://me:secret@host:1/x") == "http://me:***@host:1/x"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.real_store
def test_a_store_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as kill:
        kill.setattr("harness.tracking.connection.os.replace", killed)
        with pytest.raises(TrackingError, match="killed"):
            Tracker.open(uri, "e", directory=tmp_path)
    assert not (tmp_path / "mlflow.db").exists()
    (tmp_path / ".mlflow.db.0.new").write_bytes(b"half of a database")
    Tracker.open(uri, "e", directory=tmp_path).close()
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


@pytest.mark.parametrize("uri", ["http://127.0.0.1:{port}", "sqlite:///a-file/mlflow.db", "./plain-folder"])
def test_an_unusable_store_is_one_line(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "6")
    (tmp_path / "a-file").touch()
    uri = uri.format(port=free_port())
    with pytest.raises(TrackingError) as raised:
        Tracker.open(uri, "x", directory=tmp_path, probe_seconds=3)
    assert uri in str(raised.value) and "\n" not in str(raised.value)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "6"  # a user's setting is left as it was


def test_a_server_that_accepts_and_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(TrackingError, match=r"no answer|timed out|timeout"):
            ask(
                f"http://127.0.0.1:{silent.getsockname()[1]}",
                MlflowClient.search_experiments,
                tmp_path,
                probe_seconds=1,
            )
