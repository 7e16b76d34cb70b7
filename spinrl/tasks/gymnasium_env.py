"""Gymnasium environments stepped in lock-step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from spinrl.tasks.environment import SimulatorError, in_one_line
from spinrl.tasks.spaces import (
    SpaceError,
    action_spec,
    allowed_choices,
    flat_observation,
    observation_size,
    own_action,
)


class GymnasiumEnvironment:
    """Gymnasium environments in lock-step. An ended one keeps its state and gives no more reward.

    Actions are choices from 0, whatever the environment's space is; see `spinrl.tasks.spaces`. Masks of allowed choices
    are taken from ``info["action_mask"]`` of each reset and step, or else from the environment's ``action_masks()``.

    Args:
        name: name of the simulator, for messages.
        environments: one or more environments of one kind.

    Raises:
        SimulatorError: for a space that is not supported; `reset`, `step` and `allowed` raise it for any exception of
            the environment, and for values outside its spaces.
    """

    def __init__(self, name: str, environments: Sequence[Any]) -> None:
        self._name = name
        self.num_envs = len(environments)
        self._envs = environments
        self._ended = [False] * self.num_envs
        self._actions, self._observations = environments[0].action_space, environments[0].observation_space
        with self._named():
            self.action_spec = action_spec(self._actions)
            self.observation_size = observation_size(self._observations)
        self._last = np.zeros((self.num_envs, self.observation_size), dtype=np.float32)
        self._info: list[Any] = [{}] * self.num_envs

    def reset(self, index: int, seed: int) -> np.ndarray:
        """As `Environment.reset`."""
        with in_one_line(f"{self._name} cannot be reset"):
            observation, self._info[index] = self._envs[index].reset(seed=seed % 2**31)
        self._observe(index, observation)
        self._ended[index] = False
        return self._last[index].copy()

    def step(self, actions: np.ndarray, indices: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `Environment.step`."""
        indices = range(self.num_envs) if indices is None else indices
        rewards = np.zeros(len(actions))
        for row, index in enumerate(indices):
            if self._ended[index]:
                continue
            action = own_action(self._actions, actions[row])
            with in_one_line(f"{self._name} cannot take the step {actions[row].tolist()}"):
                observation, reward, terminated, truncated, self._info[index] = self._envs[index].step(action)
                rewards[row] = np.asarray(reward).item()  # some give arrays of one
            self._observe(index, observation)
            if not (math.isfinite(rewards[row]) and np.isfinite(self._last[index]).all()):
                step = f"{self._name} answers the step {actions[row].tolist()}"
                raise SimulatorError(f"{step} with a reward or observation that is not finite")
            self._ended[index] = terminated or truncated
        return self._last[list(indices)].copy(), rewards

    def over(self, indices: Sequence[int]) -> bool:
        """As `Environment.over`."""
        return all(self._ended[index] for index in indices)

    def allowed(self, indices: Sequence[int]) -> np.ndarray | None:
        """As `Environment.allowed`. An environment that has ended allows every choice: none is taken."""
        masks = [None if self._ended[index] else self._mask(index) for index in indices]
        if all(mask is None for mask in masks):
            return None
        with self._named():
            every = allowed_choices(self._actions, np.ones(sum(self.action_spec.nvec)))
            return np.stack([every if mask is None else allowed_choices(self._actions, mask) for mask in masks])

    def close(self) -> None:
        """Free the environments."""
        for environment in self._envs:
            environment.close()

    def _observe(self, index: int, observation: Any) -> None:
        with self._named():
            self._last[index] = flat_observation(self._observations, observation)

    def _mask(self, index: int) -> Any:
        """The mask of environment `index` in the environment's own form, or None."""
        mask = self._info[index].get("action_mask")
        if mask is None and self._envs[index].has_wrapper_attr("action_masks"):
            with in_one_line(f"{self._name}'s action_masks() fails"):
                mask = self._envs[index].get_wrapper_attr("action_masks")()
        return mask

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the environment in what is said of its spaces."""
        try:
            yield
        except SpaceError as error:
            raise SimulatorError(f"{self._name}: {error}") from error
