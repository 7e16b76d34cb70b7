"""Time of one decision, in each format and in eager PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import numpy as np

BATCHES = (1, 256)


@attrs.frozen
class Latency:
    """Milliseconds of one call, on one thread.

    Attributes:
        format: name of the format.
        batch: rows per call.
        median: median over all calls.
        slow: 99th percentile over all calls.
    """

    format: str
    batch: int
    median: float
    slow: float


def latency(name: str, act: Callable[[np.ndarray], object], observations: np.ndarray, seconds: float) -> list[Latency]:
    """Time `act` on batches of the observations (R, S), for about `seconds` each."""
    measured = []
    for batch in BATCHES:
        rows = np.resize(observations, (batch, observations.shape[1]))
        for _ in range(5):
            act(rows)
        times: list[float] = []
        until = time.perf_counter() + seconds
        while len(times) < 20 or time.perf_counter() < until:
            began = time.perf_counter()
            act(rows)
            times.append(1000 * (time.perf_counter() - began))
        measured.append(Latency(name, batch, float(np.median(times)), float(np.percentile(times, 99))))
    return measured
