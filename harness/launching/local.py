"""Cells side by side, each in a process of its own with its share of the machine's threads.

A worker gets the configuration as plain data and the numbers of the cells to run, one by one, and sends back what
happens in them. Each has a pipe of its own, since a process that is killed while it writes to a shared queue takes the
queue along.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections import deque
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from harness.cells.events import Event, Trained
from harness.cells.run_cell import run_cell
from harness.entry_point import steady_output
from harness.experiment import Experiment
from harness.launching.outcome import CellOutcome, Ended, Observer, Work, plain_work, run_to_end
from spinrl.config import from_plain, import_again
from spinrl.machine import ResolvedMachine


class _Worker:
    """A worker process and the cell that it is running; its place among the workers decides its GPU."""

    def __init__(self, experiment: dict[str, Any], machine: ResolvedMachine, fresh: bool, place: int) -> None:
        self.place = place
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, experiment, machine, fresh, place), name="spinrl-cell"
        )
        self.process.start()
        theirs.close()
        self.number: int | None = None

    def give(self, number: int, position: int) -> None:
        """Have the worker run cell `number`, which is at `position` in the whole grid."""
        self.number = number
        self.pipe.send(position)

    def stop(self) -> None:
        """End the process: at once if it is running a cell, else by letting it exit."""
        self.pipe.close()
        if self.number is not None:
            self.process.terminate()
        self.process.join(timeout=10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def death(self) -> str:
        """Reason why the process ended, in words."""
        self.process.join(timeout=10)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = "; was the machine out of memory?" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{hint}"
        return f"its process ended with code {code}"


def run_side_by_side(work: Work, observer: Observer) -> list[CellOutcome]:
    """Run cells in `work.jobs` processes; see `harness.launching.dispatch.run_cells`."""
    cells, positions = work.cells, work.positions()
    start = partial(_Worker, plain_work(work.experiment), work.machine, work.fresh)
    waiting = deque(range(len(cells)))
    outcomes: dict[int, CellOutcome] = {}
    node = socket.gethostname()
    workers = [start(place) for place in range(min(work.jobs, len(cells)))]

    def give_next(worker: _Worker) -> None:
        worker.number = None
        if waiting:
            number = waiting.popleft()
            observer.cell_started(cells[number], work.machine, node)
            worker.give(number, positions[number])

    def ended(number: int, result: Ended) -> None:
        outcomes[number] = CellOutcome(cells[number], result.evaluations, result.failure)
        observer.cell_ended(outcomes[number])

    try:
        for worker in workers:
            give_next(worker)
        while busy := {worker.pipe: worker for worker in workers if worker.number is not None}:
            for ready in wait(list(busy)):
                worker = busy[ready]  # type: ignore[index]
                number = worker.number
                assert number is not None
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    ended(number, Ended((), worker.death()))
                    workers.remove(worker)
                    if waiting:
                        workers.append(start(worker.place))
                        give_next(workers[-1])
                    continue
                if isinstance(message, Ended):
                    ended(number, message)
                    give_next(worker)
                    continue
                observer.event(cells[number], message)
                if isinstance(message, Trained):
                    worker.pipe.send("taken")
    finally:
        for worker in workers:
            worker.stop()
    return [outcomes[number] for number in sorted(outcomes)]


def gpu_of(place: int, visible: str | None, count: int) -> str:
    """The GPU of the worker at `place`, as a value of CUDA_VISIBLE_DEVICES: the workers take the GPUs in turn.

    Args:
        place: index of the worker, from 0.
        visible: value of CUDA_VISIBLE_DEVICES in this process, None if not set.
        count: number of visible GPUs.
    """
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return names[place % len(names)]


def _serve(pipe: Connection, plain: dict[str, Any], machine: ResolvedMachine, fresh: bool, place: int) -> None:
    """Body of a worker: run the cells whose positions come, until the pipe closes."""
    if machine.device == "cuda":  # read when CUDA is first used, which is later
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_of(place, visible, torch.cuda.device_count())
    steady_output()
    for ending in ("SIGINT", "SIGHUP"):  # Ctrl-C and the end of the terminal are the parent's; Windows has no SIGHUP
        if hasattr(signal, ending):
            signal.signal(getattr(signal, ending), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    import_again(plain["components"])
    experiment = from_plain(plain["experiment"])
    assert isinstance(experiment, Experiment)
    cells = experiment.cells()
    while True:
        try:
            position = pipe.recv()
        except EOFError:
            return
        work = partial(run_cell, experiment, cells[position], machine, partial(_tell, pipe), fresh=fresh)
        pipe.send(run_to_end(work))


def _leave(number: int, _frame: object) -> None:
    """Exit in order, so that environments are closed and shared memory is released."""
    raise SystemExit(128 + number)


def _tell(pipe: Connection, event: Event) -> None:
    pipe.send(event)
    if isinstance(event, Trained):
        pipe.recv()  # the file it names is deleted once the parent has taken it
