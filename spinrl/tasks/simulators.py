"""Simulators outside the benchmark, for evaluating policies trained on the user's own data."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
from attrs.validators import min_len

from spinrl.config.registry import Component, register
from spinrl.tasks.environment import Environment, SimulatorError, in_one_line


class Simulator(Component, ABC):
    """Base of kind "simulator"."""

    kind: ClassVar[str] = "simulator"

    @abstractmethod
    def build(self, num_envs: int) -> Environment:
        """An `Environment` with so many members.

        Raises:
            SimulatorError: when the simulator does not exist, or its actions are not discrete.
        """


@register
@attrs.frozen(kw_only=True)
class Gymnasium(Simulator):
    """An environment of Gymnasium whose actions are choices.

    Actions may be MultiDiscrete, Discrete and MultiBinary, observations also Box, and both may be Dict and Tuple of
    these; `spinrl.tasks.spaces` flattens them.

    Attributes:
        id: id in Gymnasium's registry.
        options: keyword arguments of the environment.
        module: module that registers it and is imported first; None if Gymnasium knows the id.
    """

    id: str = attrs.field(validator=min_len(1))
    options: Mapping[str, Any] = attrs.field(factory=dict)
    module: str | None = None

    def build(self, num_envs: int) -> Environment:
        import gymnasium  # a third of a second, for those alone who use it

        from spinrl.tasks.gymnasium_env import GymnasiumEnvironment

        if self.module:
            self._import(self.module)
        with in_one_line(f"Gymnasium cannot make {self.id!r}"):
            environments = [gymnasium.make(self.id, **self.options) for _ in range(num_envs)]
        return GymnasiumEnvironment(self.id, environments)

    def _import(self, module: str) -> None:
        try:
            with in_one_line(f"Gymnasium.module {module!r}, which registers {self.id!r}, cannot be imported"):
                importlib.import_module(module)
        except SimulatorError as error:
            if isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == module.partition(".")[0]:
                raise SimulatorError(
                    f"Gymnasium.module: no module {module!r}, which is to register {self.id!r}, in {os.getcwd()}, on "
                    "PYTHONPATH or among the installed packages; run the command in the folder of the module, or put "
                    "that folder on PYTHONPATH"
                ) from error
            raise
