"""Rolling out behaviour policies in several processes, with the same result for any number of them."""

from __future__ import annotations

import math
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, cast

import attrs
import torch

from spinrl.behaviors import load_behavior
from spinrl.cache import Progress
from spinrl.data.collect.rollout import Rollout, roll_out
from spinrl.data.store.store import Episode
from spinrl.errors import UserError
from spinrl.tasks import EPISODE_STEPS, get_task

WIDEST = 16  # most environments per process; they share a call of the policy


class CollectionError(UserError):
    """A collection could not be completed; the message is one line."""


@attrs.frozen
class _Chunk:
    """Consecutive episodes that run in lock-step."""

    numbers: range
    lengths: Sequence[int]


def collect_episodes(
    rollout: Rollout, transitions: int, *, first: int = 0, processes: int = 1, progress: Progress | None = None
) -> Iterator[Episode]:
    """The first episodes of `rollout`, in order; the last is cut so that they have exactly `transitions` steps.

    Args:
        rollout: description of the sequence of episodes.
        transitions: total steps of all episodes from number 0 on.
        first: number of the first episode to collect; earlier ones exist already.
        processes: number of worker processes; 1 runs in this process.
        progress: callback with the number of transitions so far, those before `first` included.

    Raises:
        BehaviorError: when the behaviour policy is not shipped; the message says how to train it.
        CollectionError: when a worker died.
    """
    chunks = _chunks(episode_lengths(transitions), first, processes)
    if not chunks:
        return
    done = first * EPISODE_STEPS

    def report(steps: int) -> None:
        nonlocal done
        done += steps
        if progress is not None:
            progress(done, transitions)

    if processes == 1 or len(chunks) == 1:
        yield from _collect_here(rollout, chunks, report)
    else:
        yield from _collect_in_workers(rollout, chunks, min(processes, len(chunks)), report)


def episode_lengths(transitions: int) -> list[int]:
    """Steps of each episode of a sequence with so many transitions; the last episode may be cut."""
    whole, rest = divmod(transitions, EPISODE_STEPS)
    return [EPISODE_STEPS] * whole + [rest] * (rest > 0)


def _chunks(lengths: Sequence[int], first: int, processes: int) -> list[_Chunk]:
    width = _width(len(lengths) - first, processes)
    return [
        _Chunk(range(start, min(start + width, len(lengths))), lengths[start : start + width])
        for start in range(first, len(lengths), width)
    ]


def _width(episodes: int, processes: int) -> int:
    """Number of episodes in lock-step that minimises the time of the slowest process."""
    policy_call = 0.5  # cost of a policy call in environment steps, at any width

    def rounds(width: int) -> float:
        return math.ceil(math.ceil(episodes / width) / processes) * (width + policy_call)

    return min(range(WIDEST, 0, -1), key=rounds)


def _collect_here(rollout: Rollout, chunks: Sequence[_Chunk], report: Callable[[int], None]) -> Iterator[Episode]:
    work = _Worker(rollout, max(len(chunk.numbers) for chunk in chunks))
    try:
        for chunk in chunks:
            with _one_thread():
                episodes = work(chunk, report)
            yield from episodes
    finally:
        work.close()


def _collect_in_workers(
    rollout: Rollout, chunks: Sequence[_Chunk], processes: int, report: Callable[[int], None]
) -> Iterator[Episode]:
    # Pipes, and not concurrent.futures: its workers hold both ends of their queue, so that they outlive a parent that
    # is killed (-9), and those at work cannot be ended before their chunk is.
    load_behavior(rollout.task, rollout.bins, rollout.behavior)  # an error here is a plain one, a worker's is not
    context = _context()
    width = max(len(chunk.numbers) for chunk in chunks)
    todo, finished = list(enumerate(chunks)), dict[int, list[Episode]]()
    workers: dict[Connection, Any] = {}  # every start method has a process class of its own
    at_work: dict[Connection, int] = {}

    def hand_out(pipe: Connection) -> None:
        if todo:
            at_work[pipe], chunk = todo.pop(0)
            pipe.send(chunk)

    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            workers[ours] = context.Process(target=_serve, args=(theirs, rollout, width), daemon=True)
            with _main_left_alone():
                workers[ours].start()
            theirs.close()
        for pipe in workers:
            hand_out(pipe)
        emitted = 0
        while emitted < len(chunks):
            for pipe in cast(list[Connection], wait(list(at_work))):
                message = pipe.recv()
                if isinstance(message, int):
                    report(message)
                else:
                    finished[at_work.pop(pipe)] = message
                    hand_out(pipe)  # before the episodes are written, so that the worker does not wait for the disk
            while emitted in finished:
                yield from finished.pop(emitted)
                emitted += 1
    except (EOFError, OSError) as error:
        raise CollectionError(f"a worker collecting {rollout.behavior} data of {rollout.task} has died") from error
    finally:
        for pipe, process in workers.items():
            pipe.close()
            process.terminate()
            process.join()


def _context() -> Any:
    """Multiprocessing context with clean workers; a fork server, if available, does the imports once for all."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


@contextmanager
def _main_left_alone() -> Iterator[None]:
    """Processes started in here do not import the main module again.

    They need nothing of it; and a script that collects at its top level, without ``if __name__ == "__main__"``, would
    collect in each of them anew, and wait there for the dataset that it is making.
    """
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: main.__dict__[name] for name in ("__spec__", "__file__") if name in main.__dict__}
    main.__dict__.update(dict.fromkeys(kept))
    try:
        yield
    finally:
        main.__dict__.update(kept)


class _Worker:
    """Environments and a behaviour, to roll out one chunk after another."""

    def __init__(self, rollout: Rollout, width: int) -> None:
        self.rollout = rollout
        self.behavior = load_behavior(rollout.task, rollout.bins, rollout.behavior)
        if self.behavior.fingerprint != rollout.behavior_fingerprint:
            raise CollectionError(
                f"the {rollout.behavior} behaviour of {rollout.task} is now {self.behavior.fingerprint}, "
                f"not {rollout.behavior_fingerprint}; start again"
            )
        from spinrl.tasks import BatchedEnvironment  # MuJoCo is imported by those alone who simulate

        self.environment = BatchedEnvironment(get_task(rollout.task), rollout.bins, width)

    def __call__(self, chunk: _Chunk, report: Callable[[int], None]) -> list[Episode]:
        return roll_out(self.rollout, self.behavior, self.environment, chunk.numbers, chunk.lengths, report)

    def close(self) -> None:
        self.environment.close()


def _serve(pipe: Connection, rollout: Rollout, width: int) -> None:
    """Body of a worker process: roll out the chunks that come in until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    torch.set_num_threads(1)
    work = _Worker(rollout, width)
    try:
        while True:
            pipe.send(work(pipe.recv(), pipe.send))
    except (EOFError, OSError):
        work.close()


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread within the block, so that rounding is that of a worker process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
