"""Our tasks in Gymnasium's registry, and their actions in TorchRL's, as soon as these are imported.

Gymnasium 1 has no plugins any more (it reads no entry points): environments are registered when their package is
imported. ``import spinrl`` does so, before or after ``import gymnasium``, and imports neither Gymnasium nor MuJoCo for
it, nor TorchRL. Without it, ``gymnasium.make("spinrl:spinrl/humanoid-stand-3bins-v0")`` has Gymnasium import it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from spinrl.tasks.benchmark import EPISODE_STEPS, MAX_BINS, MIN_BINS, TASKS

NAMESPACE = "spinrl"
CLINIC = f"{NAMESPACE}/Clinic-v0"


def register_environments() -> None:
    """Register the clinic, ``spinrl/TASK-v0`` (with the keyword `bins`) and ``spinrl/TASK-Mbins-v0``, M 2 to 100."""
    from gymnasium.envs.registration import EnvSpec, registry

    registry[CLINIC] = EnvSpec(CLINIC, entry_point="spinrl.tasks.clinic:ClinicEnv")
    for task in TASKS:
        names: dict[str, dict[str, Any]] = {f"{task}-v0": {"task": task}}
        names |= {f"{task}-{bins}bins-v0": {"task": task, "bins": bins} for bins in range(MIN_BINS, MAX_BINS + 1)}
        for name, options in names.items():
            # Not by `gymnasium.register`, which looks through all that is registered for each of these six hundred.
            registry[f"{NAMESPACE}/{name}"] = EnvSpec(
                f"{NAMESPACE}/{name}",
                entry_point="spinrl.tasks.task_env:TaskEnv",
                max_episode_steps=EPISODE_STEPS,
                kwargs=options,
            )


def register_everywhere() -> None:
    """Tell Gymnasium of the environments and TorchRL of their actions: now, or as soon as they are imported."""
    for name, register in (("gymnasium", register_environments), ("torchrl.envs.libs.gym", _register_actions)):
        if name in sys.modules:
            register()
        elif not any(isinstance(finder, _OnImport) and finder.name == name for finder in sys.meta_path):
            sys.meta_path.insert(0, _OnImport(name, register))


def _register_actions() -> None:
    from spinrl.tasks.choice_space import register_with_torchrl  # which imports Gymnasium

    register_with_torchrl()


class _OnImport(MetaPathFinder):
    """Has a module found as ever, and something of ours registered behind its import.

    It stays until the module has been imported: others only ask whether there is one (`importlib.util.find_spec`).

    Args:
        name: of the module.
        register: called once it has been imported.
    """

    def __init__(self, name: str, register: Callable[[], None]) -> None:
        self.name = name
        self._register = register
        self._asking = False

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name or self._asking:
            return None
        self._asking = True  # the other finders are asked
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                self._register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
