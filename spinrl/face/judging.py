"""How good a trained policy is: returns in a simulator, or estimates from data alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np
from scipy import stats

from spinrl.errors import UserError
from spinrl.evaluation import ActionChoice, episode_seeds, evaluate_episodes
from spinrl.evaluation.rollout import ROWS
from spinrl.policies import Policy
from spinrl.seeding import numpy_generator
from spinrl.tasks import TASKS, Environment, Gymnasium, get_task


def _floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


@attrs.frozen(eq=False)
class Score:
    """How good a policy is: one number for each episode.

    Attributes:
        metric: what they are: `return` in a simulator, or the name of an estimate.
        values: (E,) one for each episode.
    """

    metric: str
    values: tuple[float, ...] = attrs.field(converter=_floats)

    @property
    def mean(self) -> float:
        """Over episodes."""
        return float(np.mean(self.values))

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the mean, by the percentiles of 2,000 bootstraps over episodes; nan for a single one."""
        if len(self.values) < 2:
            return float("nan"), float("nan")
        rng = numpy_generator(0, "interval")
        found = stats.bootstrap((self.values,), np.mean, n_resamples=2000, method="percentile", rng=rng)
        return float(found.confidence_interval.low), float(found.confidence_interval.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.metric} {self.mean:.4g} [{low:.4g}, {high:.4g}], {len(self.values)} episodes"


def simulated(module: Policy, environment: Any, seed: int, episodes: int, action: ActionChoice, steps: int) -> Score:
    """Returns of a policy's episodes; `TrainedPolicy.evaluate` has the arguments."""
    if episodes < 1:
        raise UserError(f"episodes must be a number from 1; found {episodes}")
    nvec, size = module.action_spec.nvec, module.observation_size
    with _environments(environment, max(nvec), min(episodes, ROWS)) as (name, made):
        # The size of its observations is known after a reset.
        found = (made.action_spec.nvec, len(made.reset(0, 0)))
        if found != (nvec, size):
            raise UserError(
                f"{name} takes actions of {list(found[0])} choices and gives {found[1]} observation entries; the "
                f"policy was trained on {list(nvec)} and {size}"
            )
        seeds = episode_seeds(seed, episodes)
        return Score("return", evaluate_episodes(module, made, seeds, action=action, steps=steps).returns)


@contextmanager
def _environments(given: Any, bins: int, episodes: int) -> Iterator[tuple[str, Environment]]:
    """The environments' name, and the environments, closed afterwards where they were made here."""
    name: str = given
    made: Environment
    if isinstance(given, str) and given in TASKS:
        from spinrl.tasks.dm_control_env import BatchedEnvironment  # MuJoCo is imported by those alone who simulate

        try:
            made = BatchedEnvironment(get_task(given), bins, episodes)
        except ValueError as error:
            raise UserError(f"{given}: {error}") from error
    elif isinstance(given, str):
        made = Gymnasium(id=given).build(episodes)
    elif hasattr(given, "action_space"):
        from spinrl.tasks.gymnasium_env import GymnasiumEnvironment

        name = getattr(getattr(given, "spec", None), "id", None) or type(given).__name__
        yield name, GymnasiumEnvironment(name, [given])
        return
    else:
        raise UserError(f"environment must be a task, an id or an environment of Gymnasium; found {given!r}")
    try:
        yield name, made
    finally:
        made.close()
