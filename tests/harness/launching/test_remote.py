"""Cells on other machines: real Ray nodes of this one, and submitit's local executor."""

import pickle
import shutil
import subprocess
import time
from pathlib import Path

import attrs
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cells.events import Evaluated, Restarted, Trained
from harness.command_line import config_root
from harness.experiment import Experiment
from harness.exporting.finished import CHECKPOINT_FILE
from harness.launchers import Ray, Slurm
from harness.launching.dispatch import run_cells, slots
from harness.launching.outcome import LaunchError, Observer, Work, run_in_turn
from harness.launching.spool import SpoolReader, SpoolWriter
from harness.launching.task import CellTask
from spinrl.config import from_plain, load, to_plain
from spinrl.data import home
from spinrl.machine import ResolvedMachine

ray = pytest.importorskip("ray")
pytest.importorskip("submitit")
GIN = [config_root() / "gin" / "spin_humanoid.gin"]
_SUBMITIT = "submitit.core._submit"
ONE_THREAD = ResolvedMachine(threads=1)


class Recorder(Observer):
    """Keeps what it is told; `on_event` is called with every event."""

    def __init__(self, on_event=lambda event: None):
        self.started, self.ended, self.events = [], [], []
        self._on_event = on_event

    def cell_started(self, cell, machine, node):
        self.started.append((cell.key, machine.threads, node))

    def event(self, cell, event):
        self.events.append((cell.key, event))
        if isinstance(event, Trained):
            assert event.path.is_file() and event.path.name == CHECKPOINT_FILE  # by which an export finds it
        self._on_event(event)

    def cell_ended(self, outcome):
        self.ended.append(outcome.cell.key)


def work(grid, **changes):
    """All cells of a grid, one thread each."""
    given = {"experiment": grid, "cells": grid.cells(), "machine": ONE_THREAD, "folder": home() / "studies" / "here"}
    return Work(**given | changes)


def smoke(*bindings, tiers=("medium", "expert")):
    wanted = [f"Experiment.tiers={list(tiers)}", "Experiment.policies=[@Factored()]"]
    as_here = ["Machine.precision='fp32'", "Machine.compile=False"]  # other machines would choose for themselves
    return load(Experiment, GIN, [*wanted, *as_here, *bindings]).value.smoke()


def returns(outcomes):
    assert [outcome.failure for outcome in outcomes] == [None] * len(outcomes)
    return [[each.returns for each in outcome.evaluations] for outcome in outcomes]


@given(st.lists(st.binary(max_size=50)), st.data())
def test_a_growing_spool_gives_every_message_once_and_whole(messages, data):
    folder = home() / "spool" / str(time.time_ns())
    folder.mkdir(parents=True)
    writer = SpoolWriter(folder, 3)
    for message in messages:
        writer.put(message)
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    path = folder / "3-1.events"
    for old in folder.iterdir():
        old.unlink()
    reader, got = SpoolReader(folder), []
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)))))
    for end in [*cuts, len(content)]:
        path.write_bytes(content[:end])
        got += list(reader.new())
    assert got == [(3, message) for message in messages]


def test_the_latest_attempt_counts_and_a_closed_cell_is_silent(tmp_path):
    first, other = SpoolWriter(tmp_path, 0), SpoolWriter(tmp_path, 1)
    first.put("a")
    other.put("b")
    reader = SpoolReader(tmp_path)
    assert list(reader.new()) == [(0, "a"), (1, "b")]
    second = SpoolWriter(tmp_path, 0)
    assert (first.attempt, second.attempt) == (0, 1)
    second.put("c")
    first.put("of a machine that was thought lost")
    reader.close(1)
    other.put("d")
    assert list(reader.new()) == [(0, "c")]


@pytest.mark.slow
def test_jobs_give_what_cells_give_here(shared_cache, tmp_path, monkeypatch):
    for name in ("harness", "tools"):  # a project of the user's, with folders of these names
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "")  # restored afterwards
    grid = smoke("Experiment.launcher=@Slurm()", "Slurm.cluster='local'", "Slurm.memory_gb=1.0")
    recorder = Recorder()
    folder = home() / "studies" / "x" / "1"
    there = run_cells(grid.launcher, work(grid, jobs=2, folder=folder), recorder)
    assert [(key, threads) for key, threads, _ in sorted(recorder.started, key=str)] == [
        (cell.key, 1) for cell in sorted(grid.cells(), key=lambda cell: str(cell.key))
    ]
    assert not folder.exists()
    assert returns(there) == returns(run_in_turn(work(grid), Observer()))


@pytest.mark.slow
def test_a_job_that_dies_fails_its_cell_with_the_way_to_its_log(shared_cache, monkeypatch):
    monkeypatch.setattr("harness.launching.driver.GRACE_SECONDS", 0.5)
    grid = smoke("Experiment.launcher=@Slurm()", "Slurm.cluster='local'", tiers=["medium"])

    def kill(event):
        for process in psutil.process_iter(["cmdline"]):
            if _SUBMITIT in (process.info["cmdline"] or []):
                process.kill()

    folder = home() / "studies" / "y" / "1"
    (outcome,) = run_cells(grid.launcher, work(grid, jobs=2, folder=folder), Recorder(kill))
    assert "its job" in outcome.failure and Path(outcome.failure.rpartition(" ")[2]).is_file()


@pytest.fixture(scope="module")
def ray_cluster():
    """Two real nodes with room for one cell each, and a head without any."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            cluster.add_node(num_cpus=1, memory=2**30)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_a_cell_too_large_for_every_node_is_refused_with_what_to_do(ray_cluster):
    grid = smoke()
    launcher = Ray(address=ray_cluster.address, cpus=2, memory_gb=0.5)
    with pytest.raises(LaunchError, match=r"no node of the Ray cluster has 2 cores .* lower Ray\.cpus"):
        slots(launcher, grid, grid.cells(), ONE_THREAD)
    ray.shutdown()


@pytest.mark.slow
def test_a_lost_node_costs_a_checkpoint_and_no_number(ray_cluster, shared_cache):
    grid = smoke(
        "Experiment.launcher=@Ray()", f"Ray.address='{ray_cluster.address}'", "Ray.memory_gb=0.5", "IQL.hidden=[64]"
    )
    grid = attrs.evolve(grid, training=attrs.evolve(grid.training, gradient_steps=1000, report_every=100))
    killed = []

    def lose_its_node(event):
        if isinstance(event, Evaluated) and not killed:
            busy = [each for each in psutil.process_iter(["name"]) if each.info["name"].startswith("ray::spinrl")]
            node = busy[0].parent()
            killed.extend([node, *node.children(recursive=True)])
            for process in killed:
                process.kill()

    assert slots(grid.launcher, grid, grid.cells(), ONE_THREAD) == 2
    recorder = Recorder(lose_its_node)
    there = run_cells(grid.launcher, work(grid, jobs=2, folder=home() / "studies" / "z" / "1"), recorder)
    assert killed and [event.attempt for _, event in recorder.events if isinstance(event, Restarted)] == [1]
    assert returns(there) == returns(run_in_turn(work(grid), Observer()))


def test_an_address_where_nothing_answers_is_named():
    grid = smoke()
    with pytest.raises(LaunchError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 .* ray start --head"):
        slots(Ray(address="127.0.0.1:1"), grid, grid.cells(), ONE_THREAD)


def test_a_cell_that_is_lost_again_and_again_is_given_up(tmp_path):
    for _ in range(2):
        SpoolWriter(tmp_path, 5).put("lost")
    CellTask(str(tmp_path), str(tmp_path), 5, threads=1, fresh=False, attempts=2)()
    ((number, message),) = SpoolReader(tmp_path).new()
    assert number == 5 and "lost 2 times" in message.failure


def test_a_machine_without_the_shared_folder_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="set SPINRL_HOME to a file system that all machines share"):
        CellTask(str(tmp_path), str(tmp_path / "elsewhere"), 0, threads=1, fresh=False)()


def test_half_a_gpu_is_nothing_that_slurm_gives():
    with pytest.raises(ValueError, match="whole number"):
        Slurm(gpus=0.5)


def test_launchers_travel_as_plain_data():
    for launcher in (Ray(address="a:1", gpus=0.25), Slurm(parameters={"qos": "low"})):
        assert from_plain(pickle.loads(pickle.dumps(to_plain(launcher)))) == launcher


def slurm_answers():
    return bool(shutil.which("sinfo")) and subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not slurm_answers(), reason="no Slurm is here")
def test_a_job_lost_by_slurm_fails_its_cell_alone(shared_cache, monkeypatch):
    monkeypatch.setattr("harness.launching.driver.GRACE_SECONDS", 0.5)
    monkeypatch.setattr("harness.launching.slurm_engine.ASK_SECONDS", 1.0)
    grid = smoke("Experiment.launcher=@Slurm()", "Slurm.memory_gb=1.0")
    grid = attrs.evolve(grid, training=attrs.evolve(grid.training, gradient_steps=1000, report_every=100))
    killed = []

    def kill_one(event):
        if isinstance(event, Evaluated) and not killed:
            jobs = [each for each in psutil.process_iter(["cmdline"]) if _SUBMITIT in (each.info["cmdline"] or [])]
            python = [each for each in jobs if "SLURM_ARRAY_TASK_ID" in each.environ()][-1]
            killed.append(python.environ()["SLURM_ARRAY_JOB_ID"] + "_" + python.environ()["SLURM_ARRAY_TASK_ID"])
            python.kill()

    folder = home() / "studies" / "w" / "1"
    outcomes = run_cells(grid.launcher, work(grid, jobs=2, folder=folder), Recorder(kill_one))
    failed = [outcome for outcome in outcomes if outcome.failure]
    assert len(failed) == 1 and f"its job {killed[0]} ended before the cell did" in failed[0].failure
    (sound,) = [outcome for outcome in outcomes if not outcome.failure]
    assert returns([sound]) == returns(run_in_turn(work(grid, cells=[sound.cell]), Observer()))
    shutil.rmtree(home() / "cells")  # the lost cell's checkpoint, which other tests would find
