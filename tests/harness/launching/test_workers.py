"""Cells side by side: the same numbers as one after another, and a cell that fails or dies takes no other along."""

import multiprocessing
import os
import signal
from types import SimpleNamespace

import attrs
import pytest

from harness.cells.events import StageStarted
from harness.command_line import config_root
from harness.experiment import Experiment
from harness.launchers import Local
from harness.launching.dispatch import slots, together
from harness.launching.local import gpu_of, run_side_by_side
from harness.launching.outcome import CellOutcome, Observer, Work, run_in_turn
from spinrl.config import load
from spinrl.data import home
from spinrl.machine import ResolvedMachine

ONE_THREAD = ResolvedMachine(threads=1)


class Recorder(Observer):
    """Keeps what it is told; `on_training` is called when a cell starts to train."""

    def __init__(self, on_training=None):
        self.told: list[tuple[str, str]] = []
        self._on_training = on_training

    def cell_started(self, cell, machine, node):
        self.told.append(("started", cell.key.tier))

    def event(self, cell, event):
        if event == StageStarted("training", 20, "steps") and self._on_training:
            self._on_training(cell)

    def cell_ended(self, outcome: CellOutcome):
        self.told.append(("ended", outcome.cell.key.tier))


def work(grid, **changes):
    """All cells of a grid, one thread each."""
    given = {"experiment": grid, "cells": grid.cells(), "machine": ONE_THREAD, "folder": home() / "studies" / "here"}
    return Work(**given | changes)


def smoke(*bindings):
    return load(Experiment, [config_root() / "gin" / "spin_humanoid.gin"], bindings).value.smoke()


@pytest.mark.slow
def test_side_by_side_gives_what_one_after_another_gives(shared_cache):
    grid = smoke("Experiment.tiers=['medium', 'expert']")
    recorder = Recorder()
    both = run_side_by_side(work(grid, jobs=2), recorder)
    assert sorted(recorder.told) == [(what, tier) for what in ("ended", "started") for tier in ("expert", "medium")]
    alone = run_in_turn(work(grid), Observer())
    assert [outcome.cell.key for outcome in both] == [outcome.cell.key for outcome in alone]
    for ours, theirs in zip(both, alone, strict=True):
        assert ours.failure is None
        assert [each.returns for each in ours.evaluations] == [each.returns for each in theirs.evaluations]


@pytest.mark.slow
def test_cells_of_one_process_give_what_a_process_each_gives(shared_cache):
    policies = "Experiment.policies=[@SPIN(), @Factored()]"
    grid = smoke("Experiment.tiers=['medium']", policies, "Experiment.seeds=[0, 1]")
    alone = run_in_turn(work(grid), Observer())
    processes = set()

    def note(cell):
        processes.update(each.pid for each in multiprocessing.active_children() if each.name == "spinrl-cell")

    together = run_side_by_side(work(grid, jobs=3, together=3, fresh=True), Recorder(note))
    assert len(processes) == 1
    assert [outcome.cell.key for outcome in together] == [outcome.cell.key for outcome in alone]
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.failure is None
        assert [each.returns for each in ours.evaluations] == [each.returns for each in theirs.evaluations]


@pytest.mark.slow
def test_a_process_that_dies_fails_all_its_cells_and_the_rest_go_on_in_another(shared_cache):
    grid = smoke("Experiment.tiers=['medium']", "Experiment.policies=[@Factored()]", "Experiment.seeds=[0, 1, 2, 3, 4]")
    killed = []

    def kill(cell):
        if not killed:
            (process,) = [each for each in multiprocessing.active_children() if each.name == "spinrl-cell"]
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)

    outcomes = run_side_by_side(work(grid, jobs=2, together=2), Recorder(kill))
    assert ["SIGKILL" in (each.failure or "") for each in outcomes] == [True, True, False, False, False]
    assert all(len(each.evaluations) == 2 for each in outcomes[2:])


@pytest.mark.slow
def test_a_killed_process_fails_its_cell_with_the_reason_and_the_next_goes_on(shared_cache):
    grid = smoke("Experiment.tiers=['medium', 'expert']", "Experiment.policies=[@Factored()]")

    def kill(cell):
        if cell.key.tier == "medium":
            (process,) = [each for each in multiprocessing.active_children() if each.name == "spinrl-cell"]
            os.kill(process.pid, signal.SIGKILL)

    medium, expert = run_side_by_side(work(grid, jobs=1), Recorder(kill))
    assert "SIGKILL" in medium.failure and "out of memory" in medium.failure
    assert expert.failure is None and len(expert.evaluations) == 2


@pytest.mark.slow
@pytest.mark.parametrize("together", [1, 2])
def test_stopping_leaves_no_process_behind(shared_cache, together):
    grid = smoke("Experiment.tiers=['medium', 'expert']", "Experiment.policies=[@Factored()]")

    def stop(cell):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_side_by_side(work(grid, jobs=2, together=together), Recorder(stop))
    assert not [each for each in multiprocessing.active_children() if each.name == "spinrl-cell"]


def test_there_are_no_more_jobs_than_cells_threads_or_memory():
    grid = smoke()
    machine = ResolvedMachine(threads=2)
    assert slots(Local(), grid, grid.cells(), machine) == 2
    assert slots(Local(), grid, grid.cells()[:1], machine) == 1
    assert slots(Local(jobs=7), grid, grid.cells(), machine) == 7
    assert machine.share(2).threads == 1 and machine.share(5).threads == 1
    huge = load(
        Experiment,
        [config_root() / "gin" / "spin_humanoid.gin"],
        ["expert/Tier.transitions=1_000_000_000", "Experiment.tiers=['expert']", "Experiment.seeds=[0, 1, 2]"],
    ).value
    assert slots(Local(), huge, huge.cells(), ResolvedMachine(threads=3)) == 1


def test_a_gpu_runs_as_many_cells_as_its_memory_carries_in_one_process(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    gin, paper = config_root() / "gin" / "spin_humanoid.gin", config_root() / "gin" / "scale" / "paper.gin"
    cached = config_root() / "gin" / "policies" / "spin_cached.gin"
    tier, seeds = "Experiment.tiers=['medium-expert']", f"Experiment.seeds={list(range(40))}"
    small, large = (load(Experiment, [gin, *more], [tier, seeds]).value for more in ([], [paper, cached]))
    capturing = ResolvedMachine(device="cuda", capture=True, threads=200)

    def found(grid, free, machine=capturing):
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda gpu: (free, free))
        jobs = slots(Local(), grid, grid.cells(), machine)
        return jobs, together(Local(), machine, jobs)

    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=10e12))
    assert found(small, 80e9) == (30, 15)  # no more streams than torch has
    assert found(large, 140e9) == (8, 4)  # stored slot embeddings of two million transitions, of each seed its own
    assert found(large, 1e9) == (2, 1)
    assert found(small, 80e9, attrs.evolve(capturing, threads=8)) == (8, 4)  # a core for each
    assert found(small, 80e9, attrs.evolve(capturing, capture=False)) == (2, 1)
    assert found(attrs.evolve(small, seeds=(0, 1, 2)), 80e9) == (3, 2)
    assert together(Local(together=4), ResolvedMachine(threads=2), 2) == 2
    assert together(Local(), ResolvedMachine(threads=2), 2) == 1


def test_each_worker_has_a_gpu_of_its_own_as_far_as_there_are_some():
    assert [gpu_of(place, None, 3) for place in range(5)] == ["0", "1", "2", "0", "1"]
    assert [gpu_of(place, "5,7", 2) for place in range(3)] == ["5", "7", "5"]
    assert gpu_of(0, "GPU-8932f937", 1) == "GPU-8932f937"
