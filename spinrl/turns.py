"""Several trainings in one process, each in a thread of its own, and one of them at a time.

Each passes its turn on while the device does what it has asked for, so that a GPU has work of all of them. Torch's
random states belong to the process; they change hands with the turn, so that every training draws what it would alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Turns:
    """Whose turn it is, in the order in which the threads asked for theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False
        self._ended = False

    @contextmanager
    def taking_part(self) -> Iterator[None]:
        """A context in which this thread runs when it is its turn, with random states of its own."""
        _here.turns, _here.numbers = self, None
        self.take()
        try:
            yield
        finally:
            if _here.running:
                self.pass_on()
            _here.turns = None

    def end(self) -> None:
        """End every thread that takes part, at the end of the present turn or the beginning of its next one."""
        with self._lock:
            self._ended = True
            for waiting in self._waiting:
                waiting.set()

    def take(self) -> None:
        """Wait until it is this thread's turn.

        Raises:
            SystemExit: when all are to end.
        """
        with self._lock:
            mine = self._asked()
            if not self._taken:
                self._next()
        self._begin(mine)

    def pass_on(self) -> None:
        """End this thread's turn."""
        _keep(_here)
        _here.running = False
        with self._lock:
            self._next()

    def go_round(self) -> None:
        """End this thread's turn, and wait for the one after those who wait already.

        Raises:
            SystemExit: when all are to end.
        """
        _keep(_here)
        _here.running = False
        with self._lock:
            mine = self._asked()
            self._next()
        self._begin(mine)

    def _asked(self) -> threading.Event:
        mine = threading.Event()
        self._waiting.append(mine)
        if self._ended:  # nobody passes a turn on any more
            mine.set()
        return mine

    def _next(self) -> None:
        self._taken = bool(self._waiting)
        if self._waiting:
            self._waiting.popleft().set()

    def _begin(self, mine: threading.Event) -> None:
        mine.wait()
        if self._ended:
            raise SystemExit(1)
        _here.running = True
        _restore(_here)


class _Here(threading.local):
    """Of the current thread: what it takes part in, whether it is its turn, and its random states between turns."""

    turns: Turns | None = None
    running = False
    numbers: torch.Tensor | None = None
    generator: torch.Generator | None = None


_here = _Here()


def hand_over() -> None:
    """Let the other trainings of this process have their turns; the one alone goes on at once."""
    if _here.turns is not None and _here.running:
        _here.turns.go_round()


@contextmanager
def apart() -> Iterator[None]:
    """A context in which the others have their turns: for a wait that draws nothing and asks nothing of the device."""
    turns = _here.turns
    if turns is None or not _here.running:
        yield
        return
    turns.pass_on()
    try:
        yield
    finally:
        turns.take()


def _keep(here: _Here) -> None:
    here.numbers = torch.get_rng_state()
    if torch.cuda.is_initialized():
        here.generator = _cuda_generator().graphsafe_get_state()


def _restore(here: _Here) -> None:
    if here.numbers is not None:
        torch.set_rng_state(here.numbers)
    if torch.cuda.is_initialized():
        # The states change places, not values: a captured step goes on with the state that it was captured with.
        if here.generator is None:
            here.generator = _cuda_generator().clone_state()
        _cuda_generator().graphsafe_set_state(here.generator)


def _cuda_generator() -> torch.Generator:
    return torch.cuda.default_generators[torch.cuda.current_device()]
