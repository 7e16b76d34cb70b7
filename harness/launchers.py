"""Where the cells of a grid run: on this machine, on a Ray cluster, or as Slurm jobs. Each is swapped by a binding.

These classes are configuration alone; what they start is imported when it is used, since Ray and submitit are extras.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import attrs
import torch
from attrs.validators import ge

from spinrl.machine import ResolvedMachine
from spinrl.registry import Component, register

if TYPE_CHECKING:
    from harness.experiment import Cell, Experiment
    from harness.launch import CellOutcome, Observer
    from harness.remote.driver import Engine
    from harness.remote.ray_engine import RayEngine


class LaunchError(Exception):
    """Cells that cannot be started where they were to run; the message says what to do."""


@attrs.frozen(kw_only=True)
class Launcher(Component, ABC):
    """Base of kind "launcher".

    Attributes:
        jobs: cells at a time, at most; 0 for as many as there is room for.
    """

    kind: ClassVar[str] = "launcher"
    jobs: int = attrs.field(default=0, validator=ge(0))

    @abstractmethod
    def slots(self, experiment: Experiment, cells: Sequence[Cell], machine: ResolvedMachine) -> int:
        """How many cells run at a time.

        Args:
            experiment: the grid.
            cells: those to be run.
            machine: this one.

        Raises:
            LaunchError: when there is no such place.
        """

    @abstractmethod
    def share(self, machine: ResolvedMachine, slots: int) -> ResolvedMachine:
        """What one of so many cells gets, as far as it is known from this machine."""

    @abstractmethod
    def run(
        self,
        experiment: Experiment,
        cells: Sequence[Cell],
        machine: ResolvedMachine,
        observer: Observer,
        *,
        slots: int,
        folder: Path,
        fresh: bool = False,
    ) -> list[CellOutcome]:
        """Run `cells`; one that fails or dies does not take the others along.

        Args:
            experiment: the grid.
            cells: those of its cells that are to be run.
            machine: what `share` gave.
            observer: told everything, in this process and thread.
            slots: cells at a time, as `slots` said of the whole machine; a cluster goes by what it has at the moment.
            folder: of this invocation alone, for what travels between this process and the cells.
            fresh: begin cells anew that have a checkpoint.

        Returns:
            The outcome of each cell, in the order of `cells`.

        Raises:
            KeyboardInterrupt: when the user stops; what was observed until then stands.
            LaunchError: when no cell can be started.
        """


@register
@attrs.frozen(kw_only=True)
class Local(Launcher):
    """Cells side by side in processes of this machine.

    Attributes:
        jobs: cells at a time; 0 for as many as cores and memory carry on CPU, and one a GPU on GPUs.
    """

    def slots(self, experiment: Experiment, cells: Sequence[Cell], machine: ResolvedMachine) -> int:
        from harness.cost import memory_needed

        if self.jobs:
            return self.jobs
        # Networks of this size use one core better than two halves: half of a step is too small to divide.
        most = machine.threads if machine.device == "cpu" else torch.cuda.device_count()
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return max(1, min(most, len(cells), int(0.7 * physical / memory_needed(experiment, cells))))

    def share(self, machine: ResolvedMachine, slots: int) -> ResolvedMachine:
        return machine.share(slots)

    def run(
        self,
        experiment: Experiment,
        cells: Sequence[Cell],
        machine: ResolvedMachine,
        observer: Observer,
        *,
        slots: int,
        folder: Path,
        fresh: bool = False,
    ) -> list[CellOutcome]:
        from harness.launch import run_grid
        from harness.workers import run_side_by_side

        if slots == 1:
            return run_grid(experiment, cells, machine, observer, fresh=fresh)
        return run_side_by_side(experiment, cells, machine, observer, slots, fresh=fresh)


@attrs.frozen(kw_only=True)
class RemoteLauncher(Launcher):
    """Base of launchers whose cells run on other machines, with the cache on a file system that all of them share.

    Attributes:
        jobs: cells at a time, at most; 0 for as many as there is room for.
        cpus: cores of a cell.
        gpus: of a cell; a part of one where several cells share it.
        memory_gb: of a cell; 0 for what this machine estimates.
    """

    cpus: int = attrs.field(default=1, validator=ge(1))
    gpus: float = attrs.field(default=0.0, validator=ge(0))
    memory_gb: float = attrs.field(default=0.0, validator=ge(0))

    @abstractmethod
    def engine(self, memory: float, folder: Path | None = None) -> Engine:
        """What starts tasks there, of so many bytes each.

        Args:
            memory: bytes of a cell.
            folder: of this invocation; None where nothing is to be started yet.

        Raises:
            LaunchError: when there is no such place, or what it takes to reach it is not installed.
        """

    def attempts(self) -> int:
        """At a cell, after which it is given up; 0 for no limit."""
        return 0

    def share(self, machine: ResolvedMachine, slots: int) -> ResolvedMachine:
        return attrs.evolve(machine, threads=self.cpus)

    def memory(self, experiment: Experiment, cells: Sequence[Cell]) -> float:
        """Bytes of a cell."""
        from harness.cost import memory_needed

        return 2**30 * self.memory_gb or memory_needed(experiment, cells)

    def run(
        self,
        experiment: Experiment,
        cells: Sequence[Cell],
        machine: ResolvedMachine,
        observer: Observer,
        *,
        slots: int,
        folder: Path,
        fresh: bool = False,
    ) -> list[CellOutcome]:
        from harness.remote.driver import run_remotely

        engine = self.engine(self.memory(experiment, cells), folder)
        return run_remotely(
            engine,
            experiment,
            cells,
            observer,
            threads=self.cpus,
            attempts=self.attempts(),
            folder=folder,
            fresh=fresh,
        )


@contextlib.contextmanager
def _wants(launcher: str) -> Iterator[None]:
    """Say which extra is missing where an import fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = launcher.lower()
        raise LaunchError(f"{error}; the launcher {launcher} wants: pip install 'spinrl[{extra}]'") from error


@register
@attrs.frozen(kw_only=True)
class Ray(RemoteLauncher):
    """Cells as tasks of a Ray cluster; a cell of a lost node goes on from its checkpoint on another one.

    Attributes:
        jobs: cells at a time, at most; 0 for as many as the cluster has room for.
        cpus: cores of a cell.
        gpus: of a cell; 0.25 puts four on one.
        memory_gb: of a cell; 0 for what this machine estimates.
        address: of the cluster, as for ray.init; empty for one that runs here, or is started.
        retries: how often a cell is begun again after its node or process was lost.
    """

    address: str = ""
    retries: int = attrs.field(default=3, validator=ge(0))

    def slots(self, experiment: Experiment, cells: Sequence[Cell], machine: ResolvedMachine) -> int:
        return self.engine(self.memory(experiment, cells)).slots(len(cells))

    def engine(self, memory: float, folder: Path | None = None) -> RayEngine:
        with _wants("Ray"):
            from harness.remote.ray_engine import RayEngine

        return RayEngine(self, memory)

    def attempts(self) -> int:
        return self.retries + 1  # Ray itself begins a task that ran out of memory again without end


@register
@attrs.frozen(kw_only=True)
class Slurm(RemoteLauncher):
    """Cells as the jobs of one Slurm array, through submitit; one that was preempted or timed out goes on by itself.

    Attributes:
        jobs: cells at a time, at most; 0 for no limit but Slurm's own.
        cpus: cores of a cell.
        gpus: of a cell, whole ones.
        memory_gb: of a cell; 0 for what this machine estimates.
        minutes: of a job, at most; a cell that takes longer goes on in another. At least 5, since Slurm tells a job of
            its end up to two and a half minutes before.
        partition: of the cluster; empty for its default.
        account: that is charged; empty for the user's default.
        cluster: slurm; or local, for jobs as plain processes of this machine.
        parameters: further ones of sbatch, by name.
    """

    minutes: int = attrs.field(default=24 * 60, validator=ge(5))
    partition: str = ""
    account: str = ""
    cluster: str = attrs.field(default="slurm", validator=attrs.validators.in_(("slurm", "local")))
    parameters: dict[str, str] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if self.gpus != int(self.gpus):
            raise ValueError(f"gpus wants a whole number for Slurm, got {self.gpus}")

    def slots(self, experiment: Experiment, cells: Sequence[Cell], machine: ResolvedMachine) -> int:
        return min(self.jobs or len(cells), len(cells))

    def engine(self, memory: float, folder: Path | None = None) -> Engine:
        with _wants("Slurm"):
            from harness.remote.slurm_engine import SlurmEngine

        assert folder is not None  # jobs cannot be counted beforehand
        return SlurmEngine(self, memory, folder)
