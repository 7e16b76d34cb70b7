"""The benchmark's tasks as data, and batched environments that step many of their episodes in lock-step."""

from typing import TYPE_CHECKING, Any

from spinrl.tasks.benchmark import EPISODE_STEPS, MAX_BINS, MIN_BINS, TASKS, Task, get_task
from spinrl.tasks.environment import Environment, RenderingError, SimulatorError, control_values, random_actions
from spinrl.tasks.parallel import ParallelEnvironment
from spinrl.tasks.simulators import Gymnasium, Simulator

if TYPE_CHECKING:
    from spinrl.tasks.dm_control_env import BatchedEnvironment

__all__ = [
    "EPISODE_STEPS",
    "MAX_BINS",
    "MIN_BINS",
    "TASKS",
    "BatchedEnvironment",
    "Environment",
    "Gymnasium",
    "ParallelEnvironment",
    "RenderingError",
    "Simulator",
    "SimulatorError",
    "Task",
    "control_values",
    "get_task",
    "random_actions",
]


def __getattr__(name: str) -> Any:
    if name == "BatchedEnvironment":  # imports MuJoCo, which who brings own data need not have working
        from spinrl.tasks.dm_control_env import BatchedEnvironment

        return BatchedEnvironment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
