"""Simulators that are not the benchmark's, for evaluating what was trained on the user's own data."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import attrs
import numpy as np
from attrs.validators import min_len

from spinrl.config.registry import Component, register
from spinrl.errors import UserError
from spinrl.specs import ActionSpec
from spinrl.tasks.environment import Environment


class SimulatorError(UserError):
    """A simulator that cannot be used, or that fails; one line."""


class Simulator(Component, ABC):
    """Base of kind "simulator"."""

    kind: ClassVar[str] = "simulator"

    @abstractmethod
    def build(self, num_envs: int) -> Environment:
        """So many environments.

        Raises:
            SimulatorError: when there is no such simulator, or its actions are not discrete.
        """


@register
@attrs.frozen(kw_only=True)
class Gymnasium(Simulator):
    """An environment of Gymnasium with MultiDiscrete or Discrete actions and Box observations, flattened.

    Attributes:
        id: that it is registered under.
        options: keyword arguments for it.
        module: to import first, which registers it; None for one that Gymnasium knows.
    """

    id: str = attrs.field(validator=min_len(1))
    options: Mapping[str, Any] = attrs.field(factory=dict)
    module: str | None = None

    def build(self, num_envs: int) -> Environment:
        try:
            import gymnasium
        except ImportError:
            raise SimulatorError('Gymnasium is not installed; pip install "spinrl[data]"') from None
        with _in_one_line(f"Gymnasium cannot make {self.id!r}"):
            if self.module:
                importlib.import_module(self.module)
            environments = [gymnasium.make(self.id, **self.options) for _ in range(num_envs)]
        return GymnasiumEnvironment(self.id, environments)


class GymnasiumEnvironment:
    """Environments of Gymnasium in lock-step. One that has ended stays where it is and gives no more reward.

    Args:
        name: for messages.
        environments: of one kind, at least one.

    Raises:
        SimulatorError: when actions are not MultiDiscrete or Discrete from 0, or observations no Box; and by `reset`
            and `step` for whatever the environment raises.
    """

    def __init__(self, name: str, environments: Sequence[Any]) -> None:
        self._name = name
        self.num_envs = len(environments)
        self._envs = environments
        self._ended = [False] * self.num_envs
        actions, observations = environments[0].action_space, environments[0].observation_space
        # By name: the package is optional, and this class needs nothing else of it.
        self._single = type(actions).__name__ == "Discrete"
        choices = [actions.n] if self._single else np.ravel(getattr(actions, "nvec", ()))
        if len(choices) == 0 or np.any(np.asarray(actions.start) != 0):
            raise SimulatorError(f"{name} wants actions that are MultiDiscrete or Discrete from 0, has {actions}")
        if type(observations).__name__ != "Box":
            raise SimulatorError(f"{name} wants observations in a Box, has {observations}; wrap it to flatten them")
        self._shape = () if self._single else actions.nvec.shape
        self.action_spec = ActionSpec(choices)
        self.observation_size = math.prod(observations.shape)
        self._last = np.zeros((self.num_envs, self.observation_size), dtype=np.float32)

    def reset(self, index: int, seed: int, *, default_pose: bool = False) -> np.ndarray:
        """As `Environment.reset`; there is no pose."""
        with _in_one_line(f"{self._name} cannot be reset"):
            observation, _ = self._envs[index].reset(seed=seed % 2**31)
            self._last[index] = np.ravel(observation)
        self._ended[index] = False
        return self._last[index].copy()

    def step(self, actions: np.ndarray, indices: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `Environment.step`."""
        indices = range(self.num_envs) if indices is None else indices
        rewards = np.zeros(len(actions))
        for row, index in enumerate(indices):
            if self._ended[index]:
                continue
            action = int(actions[row, 0]) if self._single else actions[row].reshape(self._shape)
            with _in_one_line(f"{self._name} cannot take the step {actions[row].tolist()}"):
                observation, rewards[row], terminated, truncated, _ = self._envs[index].step(action)
                self._last[index] = np.ravel(observation)
            if not (math.isfinite(rewards[row]) and np.isfinite(self._last[index]).all()):
                step = f"{self._name} answers the step {actions[row].tolist()}"
                raise SimulatorError(f"{step} with a reward or observation that is not finite")
            self._ended[index] = terminated or truncated
        return self._last[list(indices)].copy(), rewards

    def over(self, indices: Sequence[int]) -> bool:
        """As `Environment.over`."""
        return all(self._ended[index] for index in indices)

    def close(self) -> None:
        """Free the environments."""
        for environment in self._envs:
            environment.close()


@contextmanager
def _in_one_line(failed: str) -> Iterator[None]:
    """Say what failed in one line, whatever the user's code raises: none of its errors are known here.

    Raises:
        SimulatorError: for every exception within, which is its cause.
    """
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())
        raise SimulatorError(f"{failed}: {type(error).__name__}{said and ': '}{said}") from error
