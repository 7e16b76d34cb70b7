"""The batched environment spread over worker processes: half of a dm_control step is Python, which threads share."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from spinrl.tasks.benchmark import Task, get_task


class ParallelEnvironment:
    """As `BatchedEnvironment`, with environment i living in worker i modulo `workers`.

    Episodes are the same in either: an environment depends on its own seeds and actions alone.

    Args:
        task: the task.
        bins: choices per sub-action.
        num_envs: number of environments.
        workers: processes, at most one per environment.

    Raises:
        RuntimeError: from any call after a worker has died.
    """

    def __init__(self, task: Task, bins: int, num_envs: int, workers: int) -> None:
        self.task = task
        self.bins = bins
        self.num_envs = num_envs
        self.action_spec = task.action_spec(bins)
        self._workers = max(1, min(workers, num_envs))
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for worker in range(self._workers):
            ours, theirs = context.Pipe()
            count = len(range(worker, num_envs, self._workers))
            process = context.Process(target=_serve, args=(theirs, task.name, bins, count), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def reset(self, index: int, seed: int) -> np.ndarray:
        """As `BatchedEnvironment.reset`."""
        worker, local = index % self._workers, index // self._workers
        self._send(worker, ("reset", local, seed))
        return self._receive(worker)

    def step(self, actions: np.ndarray, indices: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `BatchedEnvironment.step`, all workers at once."""
        chosen = np.arange(self.num_envs) if indices is None else np.asarray(indices)
        owners = chosen % self._workers
        rows = [np.flatnonzero(owners == worker) for worker in range(self._workers)]
        busy = [worker for worker in range(self._workers) if len(rows[worker])]
        for worker in busy:
            self._send(worker, ("step", actions[rows[worker]], chosen[rows[worker]] // self._workers))
        observations = np.empty((len(actions), self.task.observation_size), dtype=np.float32)
        rewards = np.empty(len(actions))
        for worker in busy:
            observations[rows[worker]], rewards[rows[worker]] = self._receive(worker)
        return observations, rewards

    def over(self, indices: Sequence[int]) -> bool:
        """As `BatchedEnvironment.over`."""
        return False

    def allowed(self, indices: Sequence[int]) -> None:
        """As `BatchedEnvironment.allowed`."""

    def close(self) -> None:
        """End the workers."""
        for pipe in self._pipes:
            pipe.close()  # a worker ends when its pipe does
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()

    def _send(self, worker: int, message: tuple) -> None:
        try:
            self._pipes[worker].send(message)
        except OSError as error:
            raise RuntimeError(f"environment worker {worker} of {self.task.name} has died") from error

    def _receive(self, worker: int) -> Any:
        try:
            return self._pipes[worker].recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"environment worker {worker} of {self.task.name} has died") from error


def _serve(pipe: Connection, task: str, bins: int, count: int) -> None:
    """Body of a worker: answer until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; a worker ends when its pipe closes
    from spinrl.tasks.dm_control_env import BatchedEnvironment  # MuJoCo is the workers' alone

    environment = BatchedEnvironment(get_task(task), bins, count)
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return
        if message[0] == "reset":
            pipe.send(environment.reset(*message[1:]))
        else:
            pipe.send(environment.step(message[1], message[2].tolist()))
