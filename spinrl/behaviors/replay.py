"""Replay of n-step transitions shared between actor and learner processes through memory-mapped files.

Files rather than process memory: whatever kills the run, the replay is still there when it resumes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np


@attrs.frozen(kw_only=True)
class ReplayLayout:
    """Sizes of a shared replay. Each actor writes only its own `capacity` rows, so that no lock is needed."""

    num_actors: int
    capacity: int  # transitions per actor
    observation_size: int
    num_sub_actions: int


class NStepTransition(NamedTuple):
    """A step, the discounted sum of the rewards from it on, and the observation to bootstrap from."""

    observation: np.ndarray  # (S,)
    action: np.ndarray  # (N,)
    reward: float
    discount: float
    bootstrap: np.ndarray  # (S,)


class SharedReplay:
    """The arrays of a replay, opened by every process that uses it.

    Args:
        folder: where the files lie; created where missing.
        layout: sizes; files of other sizes are refused.

    Raises:
        ValueError: when a file there has another size than the layout asks for.
    """

    def __init__(self, folder: Path, layout: ReplayLayout) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.layout = layout
        rows = (layout.num_actors, layout.capacity)
        self.observation = _open(folder / "observation.bin", np.float32, (*rows, layout.observation_size))
        self.bootstrap_observation = _open(folder / "bootstrap.bin", np.float32, (*rows, layout.observation_size))
        self.action = _open(folder / "action.bin", np.uint8, (*rows, layout.num_sub_actions))
        self.reward = _open(folder / "reward.bin", np.float32, rows)  # discounted n-step sum
        self.discount = _open(folder / "discount.bin", np.float32, rows)  # gamma to the number of steps summed
        self.written = _open(folder / "written.bin", np.int64, (layout.num_actors,))  # transitions, ever
        self.env_steps = _open(folder / "env_steps.bin", np.int64, (layout.num_actors,))

    def append(self, actor: int, transition: NStepTransition) -> None:
        """Write one n-step transition; the row becomes visible once complete."""
        row = int(self.written[actor]) % self.layout.capacity
        self.observation[actor, row] = transition.observation
        self.action[actor, row] = transition.action
        self.reward[actor, row] = transition.reward
        self.discount[actor, row] = transition.discount
        self.bootstrap_observation[actor, row] = transition.bootstrap
        self.written[actor] += 1

    def clear(self) -> None:
        """Forget all transitions; steps made stay counted. For nobody but a learner whose actors have not begun."""
        self.written[:] = 0

    def sample(self, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Uniform draw: observation (B, S), action (B, N), reward (B,), discount (B,), bootstrap (B, S)."""
        sizes = np.minimum(np.asarray(self.written), self.layout.capacity)
        flat = rng.integers(0, sizes.sum(), batch)
        edges = np.cumsum(sizes)
        actor = np.searchsorted(edges, flat, side="right")
        index = (actor, flat - (edges - sizes)[actor])
        return (
            self.observation[index],
            self.action[index].astype(np.int64),
            self.reward[index],
            self.discount[index],
            self.bootstrap_observation[index],
        )


class NStepWindow:
    """Turns one environment's steps into n-step transitions; a time limit cuts the sum but not the bootstrap."""

    def __init__(self, n_step: int, gamma: float) -> None:
        self._n_step = n_step
        self._gamma = gamma
        self._steps: deque[tuple[np.ndarray, np.ndarray, float]] = deque()

    def push(
        self, observation: np.ndarray, action: np.ndarray, reward: float, following: np.ndarray, last: bool
    ) -> Iterator[NStepTransition]:
        """Add a step, which is the last of its episode or not; yields the transitions that are ready."""
        self._steps.append((observation, action, reward))
        while len(self._steps) == self._n_step or (last and self._steps):
            total = sum(self._gamma**k * step[2] for k, step in enumerate(self._steps))
            first = self._steps[0]
            yield NStepTransition(first[0], first[1], total, self._gamma ** len(self._steps), following)
            self._steps.popleft()


def _open(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not path.exists():
        with path.open("wb") as file:
            file.truncate(size)  # sparse until written
    if path.stat().st_size != size:
        held = path.stat().st_size
        raise ValueError(f"{path} holds {held} bytes, this configuration wants {size}; name another --folder")
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)
