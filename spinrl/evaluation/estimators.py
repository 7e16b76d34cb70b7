"""How good a policy is where there is no simulator: estimates from data, which are never mixed with returns."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

import attrs
import numpy as np
import torch

from spinrl.algorithms import Algorithm
from spinrl.config.registry import Component, register
from spinrl.data import Progress, Store
from spinrl.evaluation.importance import percentile_interval, resample_counts
from spinrl.evaluation.rollout import ActionChoice
from spinrl.machine import ResolvedMachine
from spinrl.seeding import numpy_generator
from spinrl.specs import ACTION, OBSERVATION

T = TypeVar("T")
ROWS = 1024  # of one call of the policy
MOST_EPISODES = 2000  # that an estimate is made on: the mean of as many has an error of 2% of their spread
RESAMPLES = 1000  # of a bootstrap

_KEPT: dict[Hashable, Any] = {}
_MOST_KEPT = 4


def kept(key: Hashable, make: Callable[[], T]) -> T:
    """What estimators share within this process, made once: of several policies, or of one policy by several of them.

    Args:
        key: names all that it depends on.
        make: makes it. What was kept first is given up for it where there is too much.
    """
    if key not in _KEPT:
        made = make()
        while len(_KEPT) >= _MOST_KEPT:
            del _KEPT[next(iter(_KEPT))]
        _KEPT[key] = made
    return _KEPT[key]


class WithheldError(Exception):
    """The data cannot tell what is asked; the message is the reason, for the user."""


@attrs.frozen(kw_only=True)
class Estimate:
    """How good a policy is, from data alone, how sure that is, and how much data stands behind it.

    Attributes:
        metric: name of what is estimated.
        value: None where the data cannot tell; `remark` then has the reason.
        low, high: bounds of its 95% interval; NaN where it has none.
        effective_episodes: number of episodes that would tell as much, if all of them were the policy's own.
        remark: the reason why there is no value, or what it suffers from; empty where there is nothing to say.
        details: further figures by name, e.g. the share of ratios that were bounded, and seconds.
    """

    metric: str
    value: float | None
    low: float = math.nan
    high: float = math.nan
    effective_episodes: float = math.nan
    remark: str = ""
    details: Mapping[str, float] = attrs.field(factory=dict)

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.metric} withheld: {self.remark}"
        text = f"{self.metric} {self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"
        return f"{text}, {self.effective_episodes:.0f} effective episodes" + (f"; {self.remark}" if self.remark else "")


@attrs.frozen(eq=False, kw_only=True)
class EstimationData:
    """What an estimate is made on.

    Attributes:
        training: the dataset that the policy was trained on.
        held_out: episodes that nothing was trained on; None where none were kept.
        machine: whose device the policy is on, and on which the estimate is made.
    """

    training: Store
    held_out: Store | None
    machine: ResolvedMachine = attrs.field(factory=ResolvedMachine)

    @property
    def judged(self) -> Store:
        """The held-out episodes, or those of the training where none were held out."""
        return self.held_out or self.training

    @property
    def device(self) -> str:
        """Of the policy."""
        return self.machine.device

    def observe(self, store: Store, transitions: torch.Tensor, following: int = 0) -> torch.Tensor:
        """The observations (B, S) of some transitions (B,), or with `following` 1 those after them."""
        rows = store.data["transitions", "row"][transitions] + following
        return store.data["observations", OBSERVATION][rows].to(self.device)

    def allowed(self, store: Store, transitions: torch.Tensor, following: int = 0) -> torch.Tensor | None:
        """The choices (B, N, K) that these observations allow; None where the data has none."""
        if store.allowed is None:
            return None
        return store.allowed[store.data["transitions", "row"][transitions] + following].to(self.device)

    def taken(self, store: Store, transitions: torch.Tensor) -> torch.Tensor:
        """The actions (B, N) of some transitions (B,)."""
        return store.data["transitions", ACTION][transitions].long().to(self.device)


def judged_episodes(store: Store) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and length (E,) of the episodes that an estimate is made on: all, or `MOST_EPISODES` drawn at random.

    They are drawn without replacement and by the number of episodes alone: all policies, seeds and evaluations are
    judged on the same ones.
    """
    start, length = store.data["episodes", "start"], store.data["episodes", "length"]
    if len(start) <= MOST_EPISODES:
        return start, length
    drawn = numpy_generator(0, "judged-episodes").choice(len(start), MOST_EPISODES, replace=False)
    chosen = torch.from_numpy(np.sort(drawn))
    return start[chosen], length[chosen]


def transitions_of(start: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """(B,) the transitions of episodes with these starts and lengths (E,), one episode after the other."""
    begins = length.cumsum(0) - length
    return torch.arange(int(length.sum())) + (start - begins).repeat_interleave(length)


def check_fractions(_instance: Any, _attribute: attrs.Attribute, value: Sequence[float] | None) -> None:
    """For a field that lists shares of the budget."""
    if value is not None and (not value or any(not 0 < fraction <= 1 for fraction in value)):
        raise ValueError(f"fractions must be numbers above 0 and at most 1; found {list(value)}")


class Estimator(Component, ABC):
    """Base of kind "estimator".

    Attributes:
        metric: name of what is estimated, in tables and in MLflow.
        unit: of its progress.
        needs_held_out: whether it means nothing on data that was trained on.
        fractions: shares of the budget after which it is made; None for every evaluation.
    """

    kind: ClassVar[str] = "estimator"
    metric: ClassVar[str]
    unit: ClassVar[str] = "transitions"
    needs_held_out: ClassVar[bool] = False
    fractions: tuple[float, ...] | None

    def estimate(
        self, algorithm: Algorithm, data: EstimationData, *, seed: int, action: ActionChoice, progress: Progress
    ) -> Estimate:
        """How good the algorithm's policy is. The algorithm and torch's random state are left as they were.

        Args:
            algorithm: whose policy is judged, left in the mode that it came in.
            data: to judge it on.
            seed: the cell's.
            action: how the policy acts: by sampling, or by its most likely choices.
            progress: called with (units done, in all).
        """
        modes = [(module, module.training) for module in algorithm.modules()]
        algorithm.eval()
        began = time.perf_counter()
        try:
            found = self.judge(algorithm, data, seed, action, progress)
        except WithheldError as reason:
            found = Estimate(metric=self.metric, value=None, remark=str(reason))
        finally:
            for module, training in modes:
                module.training = training
        return attrs.evolve(found, details={**found.details, "seconds": time.perf_counter() - began})

    @abstractmethod
    def judge(
        self, algorithm: Algorithm, data: EstimationData, seed: int, action: ActionChoice, progress: Progress
    ) -> Estimate:
        """As `estimate`, of an algorithm in evaluation mode.

        Raises:
            WithheldError: where the data cannot tell.
        """

    @abstractmethod
    def rows(self, held_out: int) -> int:
        """How many observations the policy is given at most, with so many held-out transitions; to guess the time."""

    def smaller(self) -> Self:
        """The same in no time, for a smoke run."""
        return self


@register
@attrs.frozen(kw_only=True)
class HeldOutLikelihood(Estimator):
    """Log-likelihood of the held-out actions under the trained policy, in nats for a joint action.

    The mean over each held-out episode, averaged over the episodes, or over 2,000 drawn at random where there are more;
    its interval is a bootstrap over episodes. It says how well the policy predicts the behaviour, not how good that is.

    Attributes:
        fractions: shares of the budget after which it is made; None for every evaluation.
    """

    metric: ClassVar[str] = "log_likelihood"
    needs_held_out: ClassVar[bool] = True

    fractions: tuple[float, ...] | None = attrs.field(
        default=None, converter=attrs.converters.optional(tuple), validator=check_fractions
    )

    def rows(self, held_out: int) -> int:
        return held_out

    @torch.inference_mode()
    def judge(
        self, algorithm: Algorithm, data: EstimationData, seed: int, action: ActionChoice, progress: Progress
    ) -> Estimate:
        store = data.held_out
        if store is None:
            raise ValueError("HeldOutLikelihood needs held-out data; set Experiment.held_out above 0")
        start, length = judged_episodes(store)
        transitions = transitions_of(start, length)
        done, parts = 0, []
        for chosen in transitions.split(ROWS):
            observation, allowed = data.observe(store, chosen), data.allowed(store, chosen)
            parts.append(algorithm.policy.log_prob(observation, data.taken(store, chosen), allowed).float().cpu())
            done += len(chosen)
            progress(done, len(transitions))
        totals = np.add.reduceat(torch.cat(parts).double().numpy(), (length.cumsum(0) - length).numpy())
        return mean_of_episodes(self.metric, totals / length.numpy())


def mean_of_episodes(metric: str, values: np.ndarray) -> Estimate:
    """The mean of one value (E,) for each episode, with its interval by a bootstrap over episodes."""
    low = high = math.nan
    if len(values) > 1:
        counts = resample_counts(len(values), RESAMPLES, numpy_generator(0, "interval"))
        low, high = percentile_interval(counts @ values / len(values), 0.95)
    return Estimate(
        metric=metric, value=float(values.mean()), low=low, high=high, effective_episodes=float(len(values))
    )
