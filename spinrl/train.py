"""The training loop, as a generator, and the gradient step that it repeats."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from tensordict import TensorDict, TensorDictBase

from spinrl.algorithms import Algorithm, DivergedError
from spinrl.captured import Captured
from spinrl.data import ReplayLoader
from spinrl.turns import hand_over


def gradient_step(
    algorithm: Algorithm, loader: ReplayLoader, on_refusal: Callable[[str], None]
) -> Captured[TensorDict]:
    """One gradient step, sampling included, as a function that gives its losses.

    Where the algorithm's machine captures, it holds as long as the same parameters are trained on batches of the same
    keys.

    Args:
        algorithm: whose networks are trained.
        loader: of batches, on the algorithm's device.
        on_refusal: told in one line why the step is not captured, where it should be and cannot.
    """
    capture = algorithm.machine.capture
    if capture and not loader.gathers_there:
        on_refusal("not captured, and slower for it: the features are too large for the GPU, and stay on the disk")
        capture = False

    def step() -> TensorDict:
        return algorithm.update(loader.sample())

    return Captured(step, on=capture, generators=[loader.generator], on_refusal=on_refusal)


def train(
    step: Callable[[], TensorDictBase],
    gradient_steps: int,
    *,
    start: int = 0,
    report_every: int = 100,
) -> Iterator[tuple[int, dict[str, float], float]]:
    """Take gradient steps from number `start` to `gradient_steps`.

    Between two yields nothing is read from the device. What the caller does at a yield does not count as training.

    Args:
        step: one gradient step, which gives its losses.
        gradient_steps: number of the last one.
        start: number of those done.
        report_every: steps between two yields.

    Yields:
        (gradient step, losses of that step by name, seconds) at every multiple of `report_every` and at the last step.

    Raises:
        DivergedError: when a loss is no longer finite.
    """
    began = time.perf_counter()
    for number in range(start + 1, gradient_steps + 1):
        losses = step()
        if number % report_every and number != gradient_steps:
            continue
        hand_over()  # while the device works
        values = {f"train/{name}": float(loss) for name, loss in losses.items()}  # waits for the device
        seconds = time.perf_counter() - began
        for name, value in values.items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"{name} is {value} at gradient step {number}; a smaller learning_rate, or smaller rewards, may "
                    "help"
                )
        yield number, values, seconds
        began = time.perf_counter()
