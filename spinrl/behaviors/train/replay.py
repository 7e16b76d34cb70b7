"""Replay of n-step transitions shared between actor and learner processes through memory-mapped files.

Files rather than process memory, so that the replay survives a kill.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np

from spinrl.files import replacing


@attrs.frozen(kw_only=True)
class ReplayLayout:
    """Sizes of a shared replay.

    Each actor writes every `num_actors`-th row only: no lock is needed, and rows fill from the first on for any number
    of actors, which can change (`share_out`).
    """

    num_actors: int
    capacity: int  # transitions in all
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
        folder: folder of the files; created if missing.
        layout: sizes; files of other sizes are refused.

    Raises:
        ValueError: when a file has another size than the layout needs.
    """

    def __init__(self, folder: Path, layout: ReplayLayout) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        actors = layout.num_actors
        self._rows = layout.capacity // actors  # of each actor

        def rows(name: str, dtype: type, *row: int) -> np.ndarray:  # (rows, actors, *row)
            whole = open_array(folder / f"{name}.bin", dtype, (layout.capacity, *row))
            return whole[: self._rows * actors].reshape(self._rows, actors, *row)

        self.observation = rows("observation", np.float32, layout.observation_size)
        self.bootstrap_observation = rows("bootstrap", np.float32, layout.observation_size)
        self.action = rows("action", np.uint8, layout.num_sub_actions)
        self.reward = rows("reward", np.float32)  # discounted n-step sum
        self.discount = rows("discount", np.float32)  # gamma to the number of steps summed
        self.written = open_array(folder / "written.bin", np.int64, (actors,))  # transitions, also overwritten ones
        self.env_steps = open_array(folder / "env_steps.bin", np.int64, (actors,))

    def append(self, actor: int, transition: NStepTransition) -> None:
        """Write one n-step transition; the row becomes visible once complete."""
        row = int(self.written[actor]) % self._rows
        self.observation[row, actor] = transition.observation
        self.action[row, actor] = transition.action
        self.reward[row, actor] = transition.reward
        self.discount[row, actor] = transition.discount
        self.bootstrap_observation[row, actor] = transition.bootstrap
        self.written[actor] += 1

    def clear(self) -> None:
        """Forget all transitions; step counts stay. Only for a learner whose actors have not begun."""
        self.written[:] = 0

    def sample(self, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Uniform draw: observation (B, S), action (B, N), reward (B,), discount (B,), bootstrap (B, S)."""
        sizes = np.minimum(np.asarray(self.written), self._rows)
        flat = rng.integers(0, sizes.sum(), batch)
        edges = np.cumsum(sizes)
        actor = np.searchsorted(edges, flat, side="right")
        index = (flat - (edges - sizes)[actor], actor)
        return (
            self.observation[index],
            self.action[index].astype(np.int64),
            self.reward[index],
            self.discount[index],
            self.bootstrap_observation[index],
        )


def share_out(folder: Path, layout: ReplayLayout) -> None:
    """Adapt the replay in a folder, if there is one, to another number of actors.

    All complete rounds of rows stay, and the actors continue behind them; step counts stay. Only for a learner whose
    actors have not begun.
    """
    actors = layout.num_actors
    before = _counts(folder / "written.bin")
    if before.size not in (0, actors):
        kept = before.size * int(min(before.min(), layout.capacity // before.size))
        _replace(folder / "written.bin", np.full(actors, kept // actors))
    steps = _counts(folder / "env_steps.bin")
    if steps.size not in (0, actors):
        _replace(folder / "env_steps.bin", np.array([steps.sum(), *[0] * (actors - 1)]))


class NStepWindow:
    """Turns one environment's steps into n-step transitions; a time limit cuts the sum but not the bootstrap."""

    def __init__(self, n_step: int, gamma: float) -> None:
        self._n_step = n_step
        self._gamma = gamma
        self._steps: deque[tuple[np.ndarray, np.ndarray, float]] = deque()

    def push(
        self, observation: np.ndarray, action: np.ndarray, reward: float, following: np.ndarray, last: bool
    ) -> Iterator[NStepTransition]:
        """Add a step and yield the transitions that are ready; all of them if the episode ends."""
        self._steps.append((observation, action, reward))
        while len(self._steps) == self._n_step or (last and self._steps):
            total = sum(self._gamma**k * step[2] for k, step in enumerate(self._steps))
            first = self._steps[0]
            yield NStepTransition(first[0], first[1], total, self._gamma ** len(self._steps), following)
            self._steps.popleft()


def open_array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """An array in a file that processes share; the file is created with zeros if missing.

    Raises:
        ValueError: when the file has another size.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("ab") as file:
        if not file.tell():  # new, or of a process that was killed here
            file.truncate(size)  # sparse until written
    held = path.stat().st_size
    if held != size:
        raise ValueError(f"{path} holds {held} bytes, and this configuration needs {size}; name another --folder")
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def _counts(path: Path) -> np.ndarray:
    return np.fromfile(path, np.int64) if path.exists() else np.zeros(0, np.int64)


def _replace(path: Path, counts: np.ndarray) -> None:
    with replacing(path) as beside:
        counts.astype(np.int64).tofile(beside)
