"""The training loop, as a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tensordict import TensorDictBase

from spinrl.algorithms import Algorithm


def train(
    algorithm: Algorithm,
    sample: Callable[[], TensorDictBase],
    gradient_steps: int,
    *,
    start: int = 0,
    report_every: int = 100,
) -> Iterator[tuple[int, TensorDictBase]]:
    """Update `algorithm` on batches of `sample` from step `start` to `gradient_steps`.

    Between two yields nothing is read from the device, logged or evaluated: the caller does that, and its time does
    not count as training.

    Yields:
        (gradient_step, losses of that step) at every multiple of `report_every` and at the last step.
    """
    algorithm.train()
    for step in range(start + 1, gradient_steps + 1):
        losses = algorithm.update(sample())
        if step % report_every == 0 or step == gradient_steps:
            yield step, losses
