"""A real MLflow server on the loopback interface that goes away and comes back, over SQLite and over PostgreSQL."""

import getpass
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import attrs
import pytest
from test_tracking import KEY, free_port, history

from harness.tracking.journal import Journal
from harness.tracking.operations import MlflowClient, MlflowSink
from harness.tracking.runs import CellRun
from harness.tracking.tracker import Tracker

POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'server.db'}"
        return
    if POSTGRES is None:
        pytest.skip("no PostgreSQL is here")
    pytest.importorskip("psycopg")  # the driver that SQLAlchemy takes
    # PostgreSQL refuses to run as root.
    user = [] if getpass.getuser() != "root" else ["runuser", "-u", "postgres", "--"]
    folder, port = Path(tempfile.mkdtemp(prefix="spinrl-postgres-")), free_port()
    shutil.chown(folder, *(["postgres"] if user else [os.getuid()]))

    def call(*command: str) -> None:
        subprocess.run([*user, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")

    call(str(POSTGRES / "initdb"), "-D", f"{folder}/data", "-U", "spinrl", "-A", "trust")
    control = [str(POSTGRES / "pg_ctl"), "-D", f"{folder}/data", "-w"]
    call(*control, "-l", f"{folder}/log", "-o", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1", "start")
    try:
        call(str(POSTGRES / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "spinrl", "mlflow")
        yield f"postgresql://spinrl@127.0.0.1:{port}/mlflow"
    finally:
        call(*control, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@attrs.frozen
class Server:
    """Address, start and stop."""

    uri: str
    start: Callable[[], None]
    stop: Callable[[], None]


@pytest.fixture
def server(database: str, tmp_path: Path) -> Iterator[Server]:
    """A server over the database; it is killed, not asked, to stop."""
    port = free_port()
    processes: list[subprocess.Popen] = []

    def start() -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", database]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (tmp_path / "server.log").open("a") as log:
            processes.append(
                subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env=environment, start_new_session=True)
            )
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and processes[-1].poll() is None:
            try:
                with urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError((tmp_path / "server.log").read_text())

    def stop() -> None:
        while processes:
            process = processes.pop()
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    try:
        start()
        yield Server(f"http://127.0.0.1:{port}", start, stop)
    finally:
        stop()


@pytest.mark.slow
def test_a_server_that_goes_away_loses_and_doubles_nothing(database: str, server: Server, tmp_path: Path) -> None:
    uri, start, stop = server.uri, server.start, server.stop
    said: list[str] = []
    tracker = Tracker.open(uri, "away", directory=tmp_path, period=0.05, warn=said.append)
    parent = tracker.start_parent("main", params={}, tags={}, given_text="g", resolved_text="r", cells=[KEY])
    first = parent.start_cell(KEY, params={}, tags={})
    steps = iter(range(10_000))

    def train(cell: object, count: int) -> None:
        for _, step in zip(range(count), steps, strict=False):
            cell.metrics({"train/loss_policy": float(step)}, step)  # type: ignore[attr-defined]

    train(first, 100)
    assert tracker.outbox.flush(30)
    stop()
    train(first, 100)
    first.text("note.txt", "written while nobody listened")
    first.finish()
    second = parent.start_cell(KEY, params={}, tags={})  # even a run that starts while the server is away
    train(second, 50)
    assert not tracker.outbox.flush(30)
    journal = Journal.read(tracker.outbox.journal.path)
    kept, header = list(journal.waiting), journal.header
    assert header["tracking_uri"] == uri and [operation["op"] for operation in kept][-1] == "batch"

    start()
    deadline = time.monotonic() + 60
    while not tracker.outbox.flush(5) and time.monotonic() < deadline:
        time.sleep(0.1)
    train(second, 50)
    assert tracker.outbox.flush(30)
    client = tracker.sink.client
    assert history(client, first.run_id, "train/loss_policy") == [(step, step) for step in range(200)]
    assert history(client, second.run_id, "train/loss_policy") == [(step, step) for step in range(200, 300)]
    assert len(client.search_runs([tracker.sink.experiment_id])) == 3
    assert first.run_id is not None
    assert [file.path for file in client.list_artifacts(first.run_id)] == ["note.txt"]
    assert len(said) == 2 and "away" in said[0] and "back" in said[1]
    assert not tracker.outbox.journal.path.exists()

    stop()
    train(second, 50)
    parent.finish()
    line = tracker.close(1)
    assert line is not None and str(tracker.outbox.journal.path) in line
    # The journal alone is enough to send the rest, here to the server's own store, and twice does no harm.
    kept = Journal.read(tracker.outbox.journal.path).waiting
    direct = MlflowClient(database)
    for sink in (MlflowSink(direct, tracker.sink.experiment_id), MlflowSink(direct, tracker.sink.experiment_id)):
        for operation in kept:
            sink.apply(operation)
    assert history(direct, second.run_id, "train/loss_policy") == [(step, step) for step in range(200, 350)]
    assert parent.run_id is not None and direct.get_run(parent.run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_four_writers_lose_and_double_nothing_when_the_server_is_restarted(
    database: str, server: Server, tmp_path: Path
) -> None:
    tracker = Tracker.open(server.uri, "four", directory=tmp_path, period=0.05)
    keys = [attrs.evolve(KEY, seed=seed) for seed in range(4)]
    parent = tracker.start_parent("main", params={}, tags={}, given_text="g", resolved_text="r", cells=keys)
    over = threading.Event()
    written = [0] * len(keys)

    def write(number: int, run: CellRun) -> None:
        while not over.is_set():
            step = written[number]
            run.metrics({"train/loss_policy": float(step), "train/loss_value": -float(step)}, step)
            written[number] += 1
            time.sleep(0.002)

    runs = [parent.start_cell(key, params={}, tags={}) for key in keys]
    writers = [threading.Thread(target=write, args=pair) for pair in enumerate(runs)]
    for writer in writers:
        writer.start()
    try:
        time.sleep(2)
        server.stop()
        time.sleep(1)
        server.start()
    finally:
        over.set()
        for writer in writers:
            writer.join()
    parent.finish()
    assert tracker.close(60) is None
    client = MlflowClient(database)
    assert min(written) > 500
    for number, run in enumerate(runs):
        steps = range(written[number])
        assert history(client, run.run_id, "train/loss_policy") == [(step, step) for step in steps]
        assert history(client, run.run_id, "train/loss_value") == [(step, -step) for step in steps]
        assert run.run_id is not None and client.get_run(run.run_id).info.status == "FINISHED"
    assert len(client.search_runs([tracker.sink.experiment_id])) == 5
