"""Types that all launchers share, and the simplest launcher: cells one after another in this process."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from harness.cells.events import Event
from harness.cells.run_cell import run_cell
from harness.experiment import Cell, Experiment
from harness.records import Evaluation
from spinrl.config import components_in, imported_components, place_in_components, to_plain
from spinrl.errors import UserError
from spinrl.machine import ResolvedMachine

# Errors whose message explains a cell's failure; any other exception is a defect.
EXPECTED = (UserError, MemoryError, OSError)


class LaunchError(UserError):
    """Cells cannot be started at the configured place; the message says what to do."""


@attrs.frozen(kw_only=True)
class Work:
    """Cells to be run.

    Attributes:
        experiment: experiment that the cells belong to.
        cells: cells to run, a part of the experiment's.
        machine: share of the machine that each cell gets.
        jobs: cells at a time; a cluster goes by its present room instead.
        together: cells at a time in one process, where they run in processes of this machine.
        folder: folder of this invocation, for files exchanged between this process and the cells.
        fresh: whether to ignore checkpoints and begin cells anew.
    """

    experiment: Experiment
    cells: Sequence[Cell]
    machine: ResolvedMachine
    jobs: int = 1
    together: int = 1
    folder: Path
    fresh: bool = False

    def positions(self) -> list[int]:
        """Position of each cell in the whole grid, by which another process finds it."""
        every = {cell.key: position for position, cell in enumerate(self.experiment.cells())}
        return [every[cell.key] for cell in self.cells]


def plain_work(experiment: Experiment) -> dict[str, Any]:
    """What another process rebuilds an experiment from: plain data, and the modules to import before."""
    return {"experiment": to_plain(experiment), "components": imported_components(components_in(experiment))}


@attrs.frozen
class CellOutcome:
    """How a cell ended: its evaluations, or the reason of its failure."""

    cell: Cell
    evaluations: tuple[Evaluation, ...]
    failure: str | None


@attrs.frozen
class Ended:
    """A cell's last message: its evaluations, or the reason of its failure."""

    evaluations: tuple[Evaluation, ...]
    failure: str | None


class Observer:
    """Receives the events of cells; the default does nothing."""

    def cell_started(self, cell: Cell, machine: ResolvedMachine, node: str) -> None:
        """A cell begins on the machine called `node`, with the share `machine` of it."""

    def event(self, cell: Cell, event: Event) -> None:
        """An event of the cell."""

    def cell_ended(self, outcome: CellOutcome) -> None:
        """The cell has finished or failed."""


def failure_text(error: BaseException) -> str:
    """Text of an expected error, as a failed cell reports it."""
    return str(error) or type(error).__name__


def run_to_end(work: Callable[[], Iterable[Evaluation]]) -> Ended:
    """Do the work of a cell; any exception becomes a failure, so that the other cells go on."""
    try:
        return Ended(tuple(work()), None)
    except EXPECTED as error:
        return Ended((), failure_text(error))
    except Exception as error:
        traceback.print_exc()  # a defect: show where it is
        return Ended((), f"{place_in_components(error)}{type(error).__name__}: {error}")


def run_in_turn(work: Work, observer: Observer) -> list[CellOutcome]:
    """Run cells in this process, in order; see `harness.launching.dispatch.run_cells`."""
    outcomes = []
    for cell in work.cells:
        observer.cell_started(cell, work.machine, socket.gethostname())
        report = partial(observer.event, cell)
        result = run_to_end(partial(run_cell, work.experiment, cell, work.machine, report, fresh=work.fresh))
        outcomes.append(CellOutcome(cell, result.evaluations, result.failure))
        observer.cell_ended(outcomes[-1])
    return outcomes
