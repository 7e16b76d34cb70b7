"""The interface of environments that are stepped in lock-step, and the control values of discretised actuators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from spinrl.errors import UserError
from spinrl.specs import ActionSpec


class SimulatorError(UserError):
    """A simulator cannot be used or fails; the message is one line."""


class RenderingError(UserError):
    """No picture can be drawn on this machine; the message says what to install."""


class Environment(Protocol):
    """Environments of one task stepped in lock-step, in this process or in others.

    Attributes:
        num_envs: number of environments.
        action_spec: N sub-actions and their choices; K is the largest number of choices.
    """

    num_envs: int
    action_spec: ActionSpec

    def reset(self, index: int, seed: int) -> np.ndarray:
        """Start a new episode in environment `index`; returns its (S,) float32 observation."""

    def step(self, actions: np.ndarray, indices: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Step the environments named by `indices` (all of them by default), in that order.

        Args:
            actions: (n, N) integers, the choice of each sub-action.
            indices: n environment numbers.

        Returns:
            (n, S) float32 observations and (n,) float64 rewards.
        """

    def over(self, indices: Sequence[int]) -> bool:
        """Whether all of these episodes have ended on their own; further steps give no reward."""

    def allowed(self, indices: Sequence[int]) -> np.ndarray | None:
        """The choices that these environments allow in their next step.

        Args:
            indices: n environment numbers, each reset before.

        Returns:
            (n, N, K) bool, False also if a sub-action has fewer than K choices; None if every choice is allowed,
                since the environments gave no mask at their last reset or step.
        """

    def close(self) -> None:
        """Free the simulators."""


def random_actions(environment: Environment, indices: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """(n, N) uniformly random choices among those that these environments allow."""
    allowed = environment.allowed(indices)
    if allowed is None:
        nvec = environment.action_spec.nvec
        return rng.integers(0, nvec, (len(indices), len(nvec)))
    return np.where(allowed, rng.random(allowed.shape), -1.0).argmax(-1)


def control_values(low: np.ndarray, high: np.ndarray, nvec: Sequence[int]) -> np.ndarray:
    """The control value of every choice: ``linspace(low, high, m)`` with both ends, so 3 bins are -1, 0, 1.

    Args:
        low, high: (N,) actuator limits.
        nvec: N numbers of choices.

    Returns:
        (N, K) float64, rows with fewer than K choices padded with NaN.
    """
    table = np.full((len(nvec), max(nvec)), np.nan)
    for i, choices in enumerate(nvec):
        table[i, :choices] = np.linspace(low[i], high[i], choices)
    return table


@contextmanager
def in_one_line(failed: str) -> Iterator[None]:
    """Turn any exception of the user's code into an error of one line.

    Raises:
        SimulatorError: for every exception within, which is its cause.
    """
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())
        raise SimulatorError(f"{failed}: {type(error).__name__}{said and ': '}{said}") from error
