"""Cells side by side: in a process each with its share of the machine's threads, or several in one process of a GPU.

A worker process gets the configuration as plain data. It has a seat for each cell that it runs at a time, which gets
the numbers of the cells to run, one by one, and sends back what happens in them. Each has a pipe of its own, since a
process that is killed while it writes to a shared queue takes the queue along.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from harness.cells.events import Event, Trained
from harness.cells.run_cell import run_cell
from harness.entry_point import steady_output
from harness.experiment import Experiment
from harness.launching.outcome import CellOutcome, Ended, Observer, Work, plain_work, run_to_end
from spinrl.config import from_plain, import_again
from spinrl.machine import ResolvedMachine
from spinrl.turns import Turns, apart, hand_over

SECONDS_TO_END = 8.0  # of a process's threads when it is told to end


class _Seat:
    """A place in a worker process, and the cell that it is running there."""

    def __init__(self, pipe: Connection, process: SpawnProcess, place: int) -> None:
        self.pipe = pipe
        self.process = process
        self.place = place  # of the process among all, which decides its GPU
        self.number: int | None = None

    def give(self, number: int, position: int) -> None:
        """Have cell `number` run, which is at `position` in the whole grid."""
        self.number = number
        self.pipe.send(position)

    def death(self) -> str:
        """Reason why the process ended, in words."""
        self.process.join(timeout=10)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = "; was the machine out of memory?" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{hint}"
        return f"its process ended with code {code}"


def _start(experiment: dict[str, Any], machine: ResolvedMachine, fresh: bool, place: int, seats: int) -> list[_Seat]:
    """The seats of a new worker process."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(seats)]
    theirs = [pipe for _, pipe in pipes]
    process = context.Process(target=_serve, args=(theirs, experiment, machine, fresh, place), name="spinrl-cell")
    process.start()
    for pipe in theirs:
        pipe.close()
    return [_Seat(pipe, process, place) for pipe, _ in pipes]


def run_side_by_side(work: Work, observer: Observer) -> list[CellOutcome]:
    """Run `work.jobs` cells at a time, `work.together` in each process; see `harness.launching.dispatch.run_cells`."""
    cells, positions = work.cells, work.positions()
    start = partial(_start, plain_work(work.experiment), work.machine, work.fresh)
    waiting = deque(range(len(cells)))
    outcomes: dict[int, CellOutcome] = {}
    node = socket.gethostname()
    jobs = min(work.jobs, len(cells))
    counts = [min(work.together, jobs - first) for first in range(0, jobs, work.together)]
    seats = [seat for place, count in enumerate(counts) for seat in start(place, count)]

    def give_next(seat: _Seat) -> None:
        seat.number = None
        if waiting:
            number = waiting.popleft()
            observer.cell_started(cells[number], work.machine, node)
            seat.give(number, positions[number])

    def replace(lost: _Seat) -> None:
        """Take away the seats of a process that died; when its last one is gone, another one goes on with the rest."""
        seats[:] = [seat for seat in seats if seat.process is not lost.process or seat.number is not None]
        seats.remove(lost)
        if waiting and not any(seat.process is lost.process for seat in seats):
            fresh = start(lost.place, min(work.together, len(waiting)))
            seats.extend(fresh)
            for seat in fresh:
                give_next(seat)

    def ended(number: int, result: Ended) -> None:
        outcomes[number] = CellOutcome(cells[number], result.evaluations, result.failure)
        observer.cell_ended(outcomes[number])

    try:
        for seat in seats:
            give_next(seat)
        while busy := {seat.pipe: seat for seat in seats if seat.number is not None}:
            for ready in wait(list(busy)):
                seat = busy[ready]  # type: ignore[index]
                number = seat.number
                assert number is not None
                try:
                    message = seat.pipe.recv()
                except (EOFError, OSError):
                    ended(number, Ended((), seat.death()))
                    replace(seat)
                    continue
                if isinstance(message, Ended):
                    ended(number, message)
                    give_next(seat)
                    continue
                observer.event(cells[number], message)
                if isinstance(message, Trained):
                    seat.pipe.send("taken")
    finally:
        _stop(seats)
    return [outcomes[number] for number in sorted(outcomes)]


def _stop(seats: Sequence[_Seat]) -> None:
    """End the processes: at once those that are running a cell, the others by letting them exit."""
    for seat in seats:
        seat.pipe.close()
    for seat in seats:
        if seat.number is not None:
            seat.process.terminate()
    for seat in seats:
        seat.process.join(timeout=10)
        if seat.process.is_alive():
            seat.process.kill()
            seat.process.join()


def gpu_of(place: int, visible: str | None, count: int) -> str:
    """The GPU of the process at `place`, as a value of CUDA_VISIBLE_DEVICES: the processes take the GPUs in turn.

    Args:
        place: index of the process, from 0.
        visible: value of CUDA_VISIBLE_DEVICES in this process, None if not set.
        count: number of visible GPUs.
    """
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return names[place % len(names)]


def _serve(
    pipes: Sequence[Connection], plain: dict[str, Any], machine: ResolvedMachine, fresh: bool, place: int
) -> None:
    """Body of a worker process: run the cells whose positions come to its seats, until their pipes close."""
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
    turns = Turns()
    serve = partial(_serve_seat, experiment=experiment, machine=machine, fresh=fresh, turns=turns)
    if len(pipes) == 1:
        serve(pipes[0])
        return
    threads = [threading.Thread(target=serve, args=(pipe,), daemon=True) for pipe in pipes]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        turns.end()
        for thread in threads:
            thread.join(SECONDS_TO_END / len(threads))


def _serve_seat(pipe: Connection, experiment: Experiment, machine: ResolvedMachine, fresh: bool, turns: Turns) -> None:
    """Run the cells whose positions come, in turn with those of the other seats, until the pipe closes."""
    if machine.device == "cuda":  # each seat has a stream of its own, so that the device mixes their work
        torch.cuda.set_stream(torch.cuda.Stream())
    cells = experiment.cells()
    while True:
        try:
            position = pipe.recv()
        except EOFError:
            return
        work = partial(run_cell, experiment, cells[position], machine, partial(_tell, pipe), fresh=fresh)
        with turns.taking_part():
            ended = run_to_end(work)
        try:
            pipe.send(ended)
        except OSError:  # nobody reads it: all are being stopped
            return


def _leave(number: int, _frame: object) -> None:
    """Exit in order, so that environments are closed and shared memory is released."""
    raise SystemExit(128 + number)


def _tell(pipe: Connection, event: Event) -> None:
    pipe.send(event)
    if isinstance(event, Trained):
        with apart():
            pipe.recv()  # the file it names is deleted once the parent has taken it
    hand_over()
