"""Measures of `tools.benchmark_data`: the simulator's speed alone and with a policy in the loop, and memory in use."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.pool import Pool
from typing import Any, NamedTuple

import numpy as np
import psutil

from spinrl.behaviors import load_behavior
from spinrl.data import Rollout, collect_episodes
from spinrl.data.collect.processes import WIDEST
from spinrl.data.collect.rollout import roll_out
from spinrl.tasks import EPISODE_STEPS, BatchedEnvironment, get_task

EPISODES = 2  # episodes that dm_control alone plays back


class Rates(NamedTuple):
    """Control steps a second: with the policy in the loop, and of dm_control alone."""

    loop: float
    bare: float


def rates(parts: Sequence[tuple[Rollout, int]], pool: Pool, processes: int, steps: int) -> Rates | None:
    """The speeds at which `processes` processes make such transitions.

    Args:
        parts: rollouts, with the number of transitions from each.
        pool: pool of `processes` processes.
        processes: number of processes that step at a time.
        steps: steps of each episode used for the measurement.

    Returns:
        The speeds; None if there are no transitions.
    """
    loop = bare = 0.0  # seconds
    for rollout, count in parts:
        of_each = pool.starmap(_alternated, [(rollout, steps)] * processes, chunksize=1)
        loop += count / sum(each.loop for each in of_each)
        bare += count / sum(each.bare for each in of_each)
    total = sum(count for _, count in parts)
    return Rates(total / loop, total / bare) if total else None


def _alternated(rollout: Rollout, steps: int) -> Rates:
    """The rates of one process, which alternates between the two every few lock-steps.

    A shared machine is often half as fast a minute later.
    """
    behavior = load_behavior(rollout.task, rollout.bins, rollout.behavior)
    environment = BatchedEnvironment(get_task(rollout.task), rollout.bins, WIDEST)
    bare = _bare_steps(rollout)
    made, loop_seconds, bare_seconds, began = 0, 0.0, 0.0, time.perf_counter()

    def alternate(just_made: int) -> None:
        nonlocal made, loop_seconds, bare_seconds, began
        made, loop_seconds = made + just_made, loop_seconds + time.perf_counter() - began
        ahead = list(itertools.islice(bare, just_made // 2))
        began = time.perf_counter()
        for simulator, values in ahead:
            simulator.step(values)
        bare_seconds += time.perf_counter() - began
        began = time.perf_counter()

    roll_out(rollout, behavior, environment, range(WIDEST), [steps] * WIDEST, alternate)
    environment.close()
    return Rates(made / loop_seconds, made // 2 / bare_seconds)


def _bare_steps(rollout: Rollout) -> Iterator[tuple[Any, np.ndarray]]:
    """dm_control's environment and the control values of each step of a rollout's first episodes, over and over."""
    episodes = [episode.actions for episode in collect_episodes(rollout, EPISODES * EPISODE_STEPS)]
    for number, actions in itertools.cycle(enumerate(episodes)):
        simulator, controls = playback(rollout, number, actions)
        yield from ((simulator, values) for values in controls)


def playback(rollout: Rollout, number: int, actions: np.ndarray) -> tuple[Any, np.ndarray]:
    """dm_control at the start of an episode, and the (T, N) control values of its (T, N) actions."""
    environment = BatchedEnvironment(get_task(rollout.task), rollout.bins, 1)
    environment.reset(0, rollout.environment_seed(number))
    simulator = environment.simulators[0]
    del simulator.physics.check_invalid_state  # ours, which is quicker than dm_control's own
    return simulator, environment.controls[np.arange(len(environment.controls)), actions]


class PeakMemory:
    """Memory of this process and its children while the block runs, sampled as often as a twentieth of a core allows.

    To count shared pages once takes the system tens of milliseconds, which would be missing from what is measured.
    """

    def __enter__(self) -> PeakMemory:
        self._before = self.peak = memory_in_use()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()
        self.peak = max(self.peak, memory_in_use())

    @property
    def mebibytes(self) -> float:
        """The peak beyond the memory in use before."""
        return (self.peak - self._before) / 2**20

    def _watch(self) -> None:
        pause = 0.25
        while not self._over.wait(pause):
            began = time.perf_counter()
            self.peak = max(self.peak, memory_in_use())
            pause = 20 * (time.perf_counter() - began)


def memory_in_use() -> int:
    """Bytes of this process and all its children. A page that several share counts once, where the system tells (PSS,
    on Linux); elsewhere not at all."""
    total = 0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            used = process.memory_full_info()
            total += getattr(used, "pss", used.uss)
        except psutil.Error:  # it has ended since
            continue
    return total
