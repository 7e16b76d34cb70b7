"""The simulator of a cell's task, and whether it is that of the cell's data."""

from __future__ import annotations

import numpy as np

from harness.experiment import Cell, Experiment
from spinrl.data import DatasetPlan, Store
from spinrl.specs import ActionSpec
from spinrl.tasks import (
    Environment,
    ParallelEnvironment,
    SimulatorError,
    get_task,
    random_actions,
)


def build_environment(
    experiment: Experiment, cell: Cell, data: Store | DatasetPlan, *, episodes: int, threads: int = 1
) -> Environment:
    """Environments for the cell's policy.

    Args:
        experiment: names the simulator of a task that is not the benchmark's.
        cell: of a task with a simulator.
        data: the cell's dataset, or its plan.
        episodes: how many environments.
        threads: processes that they may be spread over.

    Raises:
        SimulatorError: when there is no such simulator, it cannot be reset and take a step, or its actions or
            observations are not the dataset's.
    """
    task = cell.key.task
    if task not in experiment.simulators:
        bins = data.action_spec.max_choices
        require_task(task, data)
        if episodes == 1 or threads == 1:  # another process would only wait for this one, and this one for it
            from spinrl.tasks import BatchedEnvironment  # MuJoCo is imported by those alone who simulate

            return BatchedEnvironment(get_task(task), bins, episodes)
        return ParallelEnvironment(get_task(task), bins, episodes, threads)
    environment = experiment.simulators[task].build(episodes)
    try:
        spec = environment.action_spec
        _require_agreement(task, spec, len(environment.reset(0, 0)), data)
        action = random_actions(environment, [0], np.random.default_rng(0))
        environment.step(action, [0])  # an environment that fails does so now, not after a training
    except SimulatorError:
        environment.close()
        raise
    return environment


def require_task(name: str, data: Store | DatasetPlan) -> None:
    """Check that a dataset's actions and observations are those of the benchmark's task whose name it bears.

    Raises:
        SimulatorError: when they are not: its returns would be another task's.
    """
    task = get_task(name)
    try:
        spec = task.action_spec(data.action_spec.max_choices)
    except ValueError as error:
        raise SimulatorError(f"{name}: {error}; name own data otherwise (--name when it is imported)") from error
    _require_agreement(name, spec, task.observation_size, data)


def _require_agreement(task: str, spec: ActionSpec, size: int, data: Store | DatasetPlan) -> None:
    if (spec, size) != (data.action_spec, data.observation_size):
        raise SimulatorError(
            f"the simulator of {task} takes actions of {list(spec.nvec)} choices and gives {size} "
            f"observation entries; the dataset has {list(data.action_spec.nvec)} and {data.observation_size}: "
            "name its own simulator (Experiment.simulators), or name the data otherwise (--name when it is imported)"
        )
