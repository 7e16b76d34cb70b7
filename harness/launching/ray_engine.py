"""Cells as tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import ray
from ray.exceptions import RayError

from harness.launchers import Ray
from harness.launching.outcome import LaunchError
from harness.launching.task import CellTask

CONNECT_SECONDS = 5.0


class RayEngine:
    """A Ray cluster and the tasks submitted to it. An existing connection of this process is used again.

    Args:
        config: address of the cluster and resources of a cell.
        memory: memory of a cell in bytes.

    Raises:
        LaunchError: when there is no cluster at the address.
    """

    def __init__(self, config: Ray, memory: float) -> None:
        self._config = config
        self._memory = int(memory)
        self._numbers: dict[ray.ObjectRef, int] = {}
        self._waiting: deque[CellTask] = deque()
        self._ended: dict[int, str] = {}
        _connect(config.address)

    def slots(self, cells: int) -> int:
        """The number of cells that the cluster has room for now.

        Raises:
            LaunchError: when no node has the resources of one cell.
        """
        config = self._config
        total = 0
        for node in ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                rooms = [has.get("CPU", 0) / config.cpus, has.get("memory", 0) / self._memory]
                rooms += [has.get("GPU", 0) / config.gpus] if config.gpus else []
                total += int(min(rooms))
        if not total:
            gpus = f", {config.gpus:g} GPUs" if config.gpus else ""
            raise LaunchError(
                f"no node of the Ray cluster has {config.cpus} cores{gpus} and {self._memory / 2**30:.1f} GiB of "
                "memory for a cell; lower Ray.cpus, Ray.gpus or Ray.memory_gb, or start larger nodes"
            )
        return min(total, cells, config.jobs or cells)

    def submit(self, tasks: Sequence[CellTask]) -> None:
        self._waiting.extend(tasks)
        self._fill()

    def ended(self) -> Mapping[int, str]:
        if self._numbers:
            done, _ = ray.wait(list(self._numbers), num_returns=len(self._numbers), timeout=0)
            for reference in done:
                number = self._numbers.pop(reference)
                try:
                    ray.get(reference)
                    self._ended[number] = "its Ray task ended without a message"
                except Exception as error:  # raised by Ray, or by the task before it could report
                    self._ended[number] = str(error).strip().splitlines()[0 if isinstance(error, RayError) else -1]
            self._fill()
        return self._ended

    def cancel(self, numbers: Iterable[int]) -> None:
        self._waiting.clear()
        unfinished = set(numbers)
        for reference, number in self._numbers.items():
            if number in unfinished:
                ray.cancel(reference, force=True)

    def close(self, *, well: bool) -> None:
        ray.shutdown()

    def _fill(self) -> None:
        """Submit waiting tasks: all, or as many as `jobs` allows at a time."""
        config = self._config
        start = ray.remote(_run).options(
            num_cpus=config.cpus,
            num_gpus=config.gpus,
            memory=self._memory,
            max_retries=config.retries,
            name="spinrl cell",
        )
        while self._waiting and (not config.jobs or len(self._numbers) < config.jobs):
            task = self._waiting.popleft()
            self._numbers[start.remote(task)] = task.number


def _run(task: CellTask) -> None:
    task()


def _connect(address: str) -> None:
    if ray.is_initialized():
        return
    _check_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # sends no usage data
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # finds the user's components
    try:
        ray.init(
            address=address or None,
            namespace="spinrl",
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=None if address else False,
            runtime_env={"env_vars": {"PYTHONPATH": path}},
        )
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise _no_answer(address, error) from error


def _check_answers(address: str) -> None:
    """Raise at once if nothing listens at the address; Ray itself would retry for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:  # empty, auto, local, or of a Ray client
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_answer(address, error) from error


def _no_answer(address: str, error: Exception) -> LaunchError:
    where = f"at {address}" if address else "here"
    said = str(error).strip().splitlines()[0]
    return LaunchError(f"no Ray cluster answers {where} ({said}); start one with: ray start --head")
