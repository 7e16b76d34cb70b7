"""Many dm_control episodes stepped in lock-step, so that one policy call serves them all."""

from __future__ import annotations

import copy
import functools
import logging
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from spinrl.specs import ActionSpec
from spinrl.tasks.benchmark import Task

if TYPE_CHECKING:
    from dm_control.mujoco import Physics
    from dm_control.rl.control import Environment as Simulator


@functools.cache
def dm_suite() -> ModuleType:
    """dm_control's suite, imported when it is first needed: who brings data does without MuJoCo.

    Nothing here draws. Whatever MUJOCO_GL says (a library for drawing that is not there ends the import), it is set
    aside meanwhile.
    """
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "disable"
    try:
        from dm_control import suite
    finally:
        del os.environ["MUJOCO_GL"]
        if before is not None:
            os.environ["MUJOCO_GL"] = before
    # The suite's own cheetah makes MuJoCo warn of this once an environment and process, which no user can mend.
    logging.getLogger("absl").addFilter(lambda record: "settotalmass" not in record.getMessage())
    return suite


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


class Environment(Protocol):
    """Environments of one task stepped in lock-step, in this process or in others."""

    num_envs: int
    action_spec: ActionSpec

    def reset(self, index: int, seed: int, *, default_pose: bool = False) -> np.ndarray:
        """See `BatchedEnvironment.reset`."""

    def step(self, actions: np.ndarray, indices: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `BatchedEnvironment.step`."""

    def over(self, indices: Sequence[int]) -> bool:
        """Whether all of these episodes have ended by themselves; further steps give no reward."""

    def close(self) -> None:
        """Free the simulators."""


class BatchedEnvironment:
    """`num_envs` environments of one task, each with its own episode.

    Each environment's episode depends on its own reset seed and its own actions alone, so that the same seeds
    give the same returns whatever the batch size.

    Args:
        task: the task.
        bins: choices per sub-action.
        num_envs: number of environments.

    Attributes:
        simulators: dm_control's environments themselves.
        controls: (N, K) control value of every choice.
    """

    def __init__(self, task: Task, bins: int, num_envs: int) -> None:
        self.task = task
        self.bins = bins
        self.num_envs = num_envs
        self.action_spec: ActionSpec = task.action_spec(bins)
        first = dm_suite().load(task.domain, task.task)
        self.simulators = [first, *(_twin(first) for _ in range(num_envs - 1))]
        for simulator in self.simulators:
            simulator.physics.check_invalid_state = _StateCheck(simulator.physics)
        spec = self.simulators[0].action_spec()
        if spec.shape != (task.num_sub_actions,):
            raise RuntimeError(f"{task.name} has {spec.shape} actuators here, the benchmark has {task.num_sub_actions}")
        low, high = np.broadcast_to(spec.minimum, spec.shape), np.broadcast_to(spec.maximum, spec.shape)
        self.controls = control_values(low, high, self.action_spec.nvec)
        self._columns = np.arange(task.num_sub_actions)

    @property
    def observation_layout(self) -> dict[str, int]:
        """The suite's observation arrays in the order in which they stand in an observation, with their sizes."""
        spec = self.simulators[0].observation_spec()
        return {name: int(np.prod(array.shape)) for name, array in spec.items()}

    def reset(self, index: int, seed: int, *, default_pose: bool = False) -> np.ndarray:
        """Start a new episode in environment `index`.

        Args:
            index: which environment.
            seed: seed of the task's own randomness.
            default_pose: start from the model's reference pose at rest instead of the task's random start.

        Returns:
            (S,) float32 observation.
        """
        env = self.simulators[index]
        env.task._random = np.random.RandomState(seed % 2**32)
        observation = env.reset().observation
        if default_pose:
            with env.physics.reset_context():
                pass
            observation = env.task.get_observation(env.physics)
        flat = np.empty(self.task.observation_size, dtype=np.float32)
        _flatten(observation, flat)
        return flat

    def step(self, actions: np.ndarray, indices: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Step the environments named by `indices` (all of them by default), in that order.

        Args:
            actions: (n, N) integers, bin of each sub-action.
            indices: n environment numbers.

        Returns:
            (n, S) float32 observations and (n,) float64 rewards. An episode is over after
            `EPISODE_STEPS` steps; counting is the caller's, since nothing else ends one.
        """
        indices = range(self.num_envs) if indices is None else indices
        observations = np.empty((len(actions), self.task.observation_size), dtype=np.float32)
        rewards = np.empty(len(actions))
        controls = self.controls[self._columns, actions]  # (n, N)
        for row, index in enumerate(indices):
            step = self.simulators[index].step(controls[row])
            _flatten(step.observation, observations[row])
            rewards[row] = step.reward
        return observations, rewards

    def over(self, indices: Sequence[int]) -> bool:
        """Never: the suite's episodes end by their time limit alone."""
        return False

    def close(self) -> None:
        """Free the simulators."""
        for env in self.simulators:
            env.close()


def _twin(simulator: Simulator) -> Simulator:
    """Another one that shares nothing that steps or resets change, many times sooner than by compiling its model."""
    twin = copy.copy(simulator)
    twin._physics, twin._task = simulator.physics.copy(), copy.deepcopy(simulator.task)
    return twin


class _StateCheck:
    """In the place of a simulator's own context that looks for new warnings of MuJoCo behind its every step.

    That one is a generator around three operations on arrays, which takes up to a fifth of a small task's step. Nearly
    always there is nothing new, which the bytes of the counts tell; where there is, the simulator's own one says it.
    """

    def __init__(self, physics: Physics) -> None:
        self._own = physics.check_invalid_state
        self._counts = physics.data.warning.number  # a view of what MuJoCo counts
        self._before = b""

    def __call__(self) -> _StateCheck:
        return self

    def __enter__(self) -> None:
        self._before = self._counts.tobytes()

    def __exit__(self, *_error: object) -> None:
        if self._counts.tobytes() != self._before:
            now = self._counts.copy()
            self._counts[:] = np.frombuffer(self._before, now.dtype)
            with self._own():
                self._counts[:] = now


def _flatten(observation: Mapping[str, np.ndarray], out: np.ndarray) -> None:
    start = 0
    for value in observation.values():  # twice as fast as concatenating them, for so few and so small ones
        end = start + value.size
        out[start:end] = value if value.ndim < 2 else value.ravel()
        start = end
