"""Runs cells where their launcher says.

The launcher is plain configuration; each function here is dispatched by its class, so that a launcher of one's own
registers its functions the same way (``slots.register``, ``share.register``, ``run_cells.register``).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING

import attrs
import psutil
import torch

from harness.experiment import Cell, Experiment
from harness.launchers import Launcher, Local, Ray, RemoteLauncher, Slurm
from harness.launching.driver import run_remotely
from harness.launching.local import run_side_by_side
from harness.launching.outcome import CellOutcome, LaunchError, Observer, Work, run_in_turn
from harness.planning.memory import cells_of_a_gpu, memory_needed
from spinrl.machine import ResolvedMachine

if TYPE_CHECKING:
    from harness.launching.ray_engine import RayEngine


@singledispatch
def slots(launcher: Launcher, experiment: Experiment, cells: Sequence[Cell], machine: ResolvedMachine) -> int:
    """How many cells run at a time.

    Args:
        launcher: launcher of the experiment.
        experiment: experiment that the cells belong to.
        cells: cells to run.
        machine: machine that this process runs on.

    Raises:
        LaunchError: when the cluster cannot be reached or has no room for a cell.
    """
    raise TypeError(f"no slots are registered for the launcher {type(launcher).__name__}")


@slots.register
def _(launcher: Local, experiment: Experiment, cells: Sequence[Cell], machine: ResolvedMachine) -> int:
    if launcher.jobs:
        return launcher.jobs
    # Networks of this size use one core better than two halves: half of a step is too small to divide.
    room = int(0.7 * psutil.virtual_memory().total / memory_needed(experiment, cells))
    if machine.device == "cpu":
        return max(1, min(machine.threads, len(cells), room))
    gpus, each = torch.cuda.device_count(), 1
    if machine.capture:  # in one process, which has the data once; each evaluates on a core
        sizes = [torch.cuda.mem_get_info(gpu)[0] for gpu in range(gpus)]
        each = min(cells_of_a_gpu(experiment, cells, min(sizes)), max(1, machine.threads // gpus))
    return max(1, min(gpus * each, len(cells), room * each))


def together(launcher: Launcher, machine: ResolvedMachine, jobs: int) -> int:
    """How many of `jobs` cells at a time run in one process: on GPUs that capture all of a GPU's, unless set."""
    if not isinstance(launcher, Local):
        return 1
    if launcher.together:
        return min(launcher.together, jobs)
    return math.ceil(jobs / torch.cuda.device_count()) if machine.device == "cuda" and machine.capture else 1


@slots.register
def _(launcher: Ray, experiment: Experiment, cells: Sequence[Cell], machine: ResolvedMachine) -> int:
    return _ray_engine(launcher, _memory(launcher, experiment, cells)).slots(len(cells))


@slots.register
def _(launcher: Slurm, experiment: Experiment, cells: Sequence[Cell], machine: ResolvedMachine) -> int:
    return min(launcher.jobs or len(cells), len(cells))


@singledispatch
def share(launcher: Launcher, machine: ResolvedMachine, jobs: int) -> ResolvedMachine:
    """The share of the machine that each of `jobs` cells gets, as far as this machine knows."""
    return machine.share(jobs)


@share.register
def _(launcher: RemoteLauncher, machine: ResolvedMachine, jobs: int) -> ResolvedMachine:
    return attrs.evolve(machine, threads=launcher.cpus)


@singledispatch
def run_cells(launcher: Launcher, work: Work, observer: Observer) -> list[CellOutcome]:
    """Run cells; one that fails or dies does not take the others along.

    Args:
        launcher: launcher of the experiment.
        work: cells, with their share of the machine (from `share`) and the number at a time (from `slots`).
        observer: receives every event, in this process and thread.

    Returns:
        The outcome of each cell, in the order of `work`.

    Raises:
        KeyboardInterrupt: when the user stops; what was observed until then stands.
        LaunchError: when no cell can be started.
    """
    raise TypeError(f"no run_cells is registered for the launcher {type(launcher).__name__}")


@run_cells.register
def _(launcher: Local, work: Work, observer: Observer) -> list[CellOutcome]:
    if work.jobs == 1:
        return run_in_turn(work, observer)
    return run_side_by_side(attrs.evolve(work, together=together(launcher, work.machine, work.jobs)), observer)


@run_cells.register
def _(launcher: Ray, work: Work, observer: Observer) -> list[CellOutcome]:
    engine = _ray_engine(launcher, _memory(launcher, work.experiment, work.cells))
    # Ray itself would begin a task that ran out of memory again without end.
    return run_remotely(engine, work, observer, threads=launcher.cpus, attempts=launcher.retries + 1)


@run_cells.register
def _(launcher: Slurm, work: Work, observer: Observer) -> list[CellOutcome]:
    with _needs_extra("Slurm"):
        from harness.launching.slurm_engine import SlurmEngine

    engine = SlurmEngine(launcher, _memory(launcher, work.experiment, work.cells), work.folder)
    return run_remotely(engine, work, observer, threads=launcher.cpus)


def _memory(launcher: RemoteLauncher, experiment: Experiment, cells: Sequence[Cell]) -> float:
    """Bytes of a cell."""
    return 2**30 * launcher.memory_gb or memory_needed(experiment, cells)


def _ray_engine(launcher: Ray, memory: float) -> RayEngine:
    with _needs_extra("Ray"):
        from harness.launching.ray_engine import RayEngine

    return RayEngine(launcher, memory)


@contextlib.contextmanager
def _needs_extra(launcher: str) -> Iterator[None]:
    """Say which extra is missing where an import fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = launcher.lower()
        raise LaunchError(f"{error}; the launcher {launcher} needs: pip install 'spinrl[{extra}]'") from error
