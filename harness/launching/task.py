"""One cell as a task on another machine."""

from __future__ import annotations

import functools
import os
import pickle
import socket
import time
from pathlib import Path
from typing import Any

import attrs

from harness.cells.events import Event, StageProgress, Trained
from harness.cells.run_cell import run_cell
from harness.experiment import Cell, Experiment
from harness.launching.outcome import Ended, run_to_end
from harness.launching.spool import SpoolWriter
from harness.records import Evaluation
from spinrl.config import from_plain, import_again
from spinrl.machine import ResolvedMachine

PROGRESS_SECONDS = 1.0  # between two messages of progress
_EXPERIMENT = "experiment.pickle"


@attrs.frozen
class Began:
    """An attempt at a cell began: its node, its index (from 0) and its share of the machine."""

    node: str
    attempt: int
    machine: ResolvedMachine


@attrs.frozen
class CellTask:
    """A cell to run; it is small, so that thousands can be sent.

    Attributes:
        storage: cache folder, at the same path on every machine.
        folder: folder of the invocation, inside the cache.
        number: position of the cell in the whole grid.
        threads: CPU threads that it may use.
        fresh: whether to ignore a checkpoint of an earlier invocation.
        attempts: maximum attempts; 0 is unlimited, for schedulers that preempt jobs.
    """

    storage: str
    folder: str
    number: int
    threads: int
    fresh: bool
    attempts: int = 0

    def __call__(self) -> None:
        """Run the cell. All events, its end included, go to the spool; nothing is raised or returned."""
        folder = Path(self.folder)
        if not folder.is_dir():  # there is no spool to say it to
            raise FileNotFoundError(
                f"{folder} does not exist on {socket.gethostname()}; set SPINRL_HOME to a file system that all "
                "machines share"
            )
        os.environ["SPINRL_HOME"] = self.storage
        spool = SpoolWriter(folder, self.number)
        if self.attempts and spool.attempt >= self.attempts:
            times = f"{spool.attempt} times" if spool.attempt > 1 else "once"
            spool.put(Ended((), f"its process or machine was lost {times}; was it out of memory?"))
            return
        spool.put(run_to_end(functools.partial(self._run, folder, spool)))

    def _run(self, folder: Path, spool: SpoolWriter) -> list[Evaluation]:
        experiment, cells = _experiment(folder / _EXPERIMENT)
        machine = attrs.evolve(experiment.machine, threads=self.threads).resolve()
        # Others may have the machine's other cores.
        processes = experiment.collection_processes or machine.threads
        experiment = attrs.evolve(experiment, collection_processes=processes)
        spool.put(Began(socket.gethostname(), spool.attempt, machine))
        fresh = self.fresh and spool.attempt == 0
        reporter = _Reporter(spool, folder, self.number)
        return run_cell(experiment, cells[self.number], machine, reporter, fresh=fresh)

    def checkpoint(self) -> Any:
        """The job that submitit submits again after preemption or a timeout: the same task, which resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Reporter:
    """Writes events to the spool, progress at most once in `PROGRESS_SECONDS`."""

    def __init__(self, spool: SpoolWriter, folder: Path, number: int) -> None:
        self._spool = spool
        self._folder = folder
        self._number = number
        self._told = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageProgress):
            if time.monotonic() - self._told < PROGRESS_SECONDS:
                return
            self._told = time.monotonic()
        if isinstance(event, Trained):  # deleted when the cell returns, while the reader may come later
            kept = self._folder / f"trained-{self._number}"
            kept.mkdir(exist_ok=True)
            event = Trained(event.path.rename(kept / event.path.name))  # its name is that of the artifact
        self._spool.put(event)


def write_experiment(folder: Path, plain: dict[str, Any]) -> None:
    """Write what `plain_work` gives to the place where the tasks of `folder` read it."""
    (folder / _EXPERIMENT).write_bytes(pickle.dumps(plain))


@functools.lru_cache(maxsize=1)  # a process of Ray runs many cells of one grid
def _experiment(path: Path) -> tuple[Experiment, list[Cell]]:
    plain = pickle.loads(path.read_bytes())
    import_again(plain["components"])
    experiment = from_plain(plain["experiment"])
    assert isinstance(experiment, Experiment)
    return experiment, experiment.cells()
