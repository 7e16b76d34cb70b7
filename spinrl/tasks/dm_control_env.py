"""Many dm_control episodes stepped in lock-step, so that one policy call serves them all."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from spinrl.specs import ActionSpec
from spinrl.tasks.benchmark import Task
from spinrl.tasks.environment import control_values
from spinrl.tasks.headless import headless

with headless():
    from dm_control import suite
    from dm_control.mujoco import Physics
    from dm_control.rl.control import Environment as Simulator

# The suite's own cheetah makes MuJoCo warn of this once an environment and process, which no user can mend.
logging.getLogger("absl").addFilter(lambda record: "settotalmass" not in record.getMessage())


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
        first = suite.load(task.domain, task.task)
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

    def reset(self, index: int, seed: int) -> np.ndarray:
        """Start a new episode in environment `index`.

        Args:
            index: number of the environment.
            seed: seed of the task's randomness.

        Returns:
            (S,) float32 observation.
        """
        env = self.simulators[index]
        env.task._random = np.random.RandomState(seed % 2**32)
        return self._observation(env.reset().observation)

    def start_in_default_pose(self, index: int) -> np.ndarray:
        """Put environment `index`, just reset, into the model's reference pose at rest; returns the observation."""
        env = self.simulators[index]
        with env.physics.reset_context():
            pass
        return self._observation(env.task.get_observation(env.physics))

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

    def allowed(self, indices: Sequence[int]) -> None:
        """Nothing is ever forbidden."""

    def close(self) -> None:
        """Free the simulators."""
        for env in self.simulators:
            env.close()

    def _observation(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        flat = np.empty(self.task.observation_size, dtype=np.float32)
        _flatten(arrays, flat)
        return flat


def _twin(simulator: Simulator) -> Simulator:
    """A copy with its own state and a shared model, which is much faster than compiling the model again."""
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
