"""The benchmark's tasks as data, and batched environments that step many of their episodes in lock-step."""

from spinrl.tasks.benchmark import EPISODE_STEPS, MAX_BINS, MIN_BINS, TASKS, Task, get_task
from spinrl.tasks.environment import BatchedEnvironment, Environment, control_values
from spinrl.tasks.gymnasium_env import Gymnasium, GymnasiumEnvironment, Simulator, SimulatorError
from spinrl.tasks.parallel import ParallelEnvironment

__all__ = [
    "EPISODE_STEPS",
    "MAX_BINS",
    "MIN_BINS",
    "TASKS",
    "BatchedEnvironment",
    "Environment",
    "Gymnasium",
    "GymnasiumEnvironment",
    "ParallelEnvironment",
    "Simulator",
    "SimulatorError",
    "Task",
    "control_values",
    "get_task",
]
