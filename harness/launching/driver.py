"""Cells on other machines, observed from here."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from harness.cells.events import Restarted
from harness.experiment import Cell
from harness.launching.outcome import CellOutcome, Ended, Observer, Work, plain_work
from harness.launching.spool import SpoolReader
from harness.launching.task import Began, CellTask, write_experiment
from spinrl.data import home

POLL_SECONDS = 0.5
GRACE_SECONDS = 15.0  # wait for the last messages of a cell that has ended: shared file systems show files late


class Engine(Protocol):
    """Interface of a scheduler that starts tasks on other machines."""

    def submit(self, tasks: Sequence[CellTask]) -> None:
        """Start tasks, at once or as room allows. Raises LaunchError."""

    def ended(self) -> Mapping[int, str]:
        """Reasons, by cell number, of tasks that died; a task that ends in order reports that itself."""

    def cancel(self, numbers: Iterable[int]) -> None:
        """Stop tasks, including those that have not begun."""

    def close(self, *, well: bool) -> None:
        """Release the scheduler; `well` if every cell finished."""


def run_remotely(
    engine: Engine, work: Work, observer: Observer, *, threads: int, attempts: int = 0
) -> list[CellOutcome]:
    """Run cells by an engine; see `harness.launching.dispatch.run_cells`.

    Args:
        engine: scheduler that starts the tasks.
        work: cells to run.
        observer: receives every event.
        threads: CPU threads per cell.
        attempts: maximum attempts per cell; 0 is unlimited.
    """
    folder = work.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_experiment(folder, plain_work(work.experiment))
    waiting = dict(zip(work.positions(), work.cells, strict=True))
    storage = str(home().resolve())
    outcomes: dict[int, CellOutcome] = {}
    observed = _Observed(observer, waiting)
    spool = SpoolReader(folder)
    over: dict[int, float] = {}  # time at which the engine first reported a cell as dead
    try:
        here = str(folder.resolve())
        engine.submit([CellTask(storage, here, number, threads, work.fresh, attempts) for number in waiting])
        while len(outcomes) < len(waiting):
            for number, message in spool.new():
                if isinstance(message, Ended):
                    spool.close(number)
                    outcomes[number] = observed.ended(number, message)
                else:
                    observed.event(number, message)
            for number, reason in engine.ended().items():
                if number not in outcomes and time.monotonic() - over.setdefault(number, time.monotonic()) > (
                    GRACE_SECONDS
                ):
                    spool.close(number)
                    outcomes[number] = observed.ended(number, Ended((), reason))
            time.sleep(POLL_SECONDS)
    finally:
        engine.cancel(number for number in waiting if number not in outcomes)
        well = len(outcomes) == len(waiting) and not any(outcome.failure for outcome in outcomes.values())
        engine.close(well=well)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # logs of failed jobs are kept in it
        folder.parent.rmdir()
    return [outcomes[number] for number in waiting]


class _Observed:
    """Tells an observer of cells by number."""

    def __init__(self, observer: Observer, cells: Mapping[int, Cell]) -> None:
        self._observer = observer
        self._cells = cells
        self._begun: set[int] = set()

    def event(self, number: int, message: Any) -> None:
        cell = self._cells[number]
        if not isinstance(message, Began):
            self._observer.event(cell, message)
        elif number in self._begun:
            self._observer.event(cell, Restarted(message.node, message.attempt))
        else:
            self._begun.add(number)
            self._observer.cell_started(cell, message.machine, message.node)

    def ended(self, number: int, message: Ended) -> CellOutcome:
        cell = self._cells[number]
        outcome = CellOutcome(cell, message.evaluations, message.failure)
        if number in self._begun:
            self._observer.cell_ended(outcome)
        return outcome
