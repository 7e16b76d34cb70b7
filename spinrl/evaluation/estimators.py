"""How good a policy is where there is no simulator: estimates from data, which are never mixed with returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import attrs
import numpy as np
import torch

from spinrl.algorithms import Algorithm
from spinrl.config.registry import Component, register
from spinrl.data import Progress, Store
from spinrl.evaluation.rollout import ActionChoice
from spinrl.seeding import numpy_generator
from spinrl.specs import ACTION, OBSERVATION

ROWS = 1024  # of one call of the policy
MOST_EPISODES = 2000  # that an estimate is made on: the mean of as many has an error of 2% of their spread


@attrs.frozen(eq=False, kw_only=True)
class EstimationData:
    """What an estimate is made on.

    Attributes:
        training: the dataset that the policy was trained on.
        held_out: episodes that nothing was trained on; None where none were kept.
        device: of the policy.
    """

    training: Store
    held_out: Store | None
    device: torch.device | str = "cpu"

    def observe(self, store: Store, transitions: torch.Tensor) -> torch.Tensor:
        """The observations (B, S) of some transitions (B,) of a store, on the policy's device."""
        rows = store.data["observations", OBSERVATION][store.data["transitions", "row"][transitions]]
        return rows.to(self.device)

    def allowed(self, store: Store, transitions: torch.Tensor) -> torch.Tensor | None:
        """The choices (B, N, K) that their observations allow, on the policy's device; None where the data has none."""
        if store.allowed is None:
            return None
        return store.allowed[store.data["transitions", "row"][transitions]].to(self.device)


def judged_episodes(store: Store) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and length (E,) of the episodes that an estimate is made on: all, or `MOST_EPISODES` drawn at random.

    A log of many short episodes would otherwise leave millions of numbers behind, and a bootstrap of them takes
    gigabytes. They are drawn without replacement and by the number of episodes alone: all policies, seeds and
    evaluations are judged on the same ones.
    """
    start, length = store.data["episodes", "start"], store.data["episodes", "length"]
    if len(start) <= MOST_EPISODES:
        return start, length
    drawn = numpy_generator(0, "judged-episodes").choice(len(start), MOST_EPISODES, replace=False)
    chosen = torch.from_numpy(np.sort(drawn))
    return start[chosen], length[chosen]


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

    @abstractmethod
    def estimate(
        self, algorithm: Algorithm, data: EstimationData, *, seed: int, action: ActionChoice, progress: Progress
    ) -> list[float]:
        """One number for each of `judged_episodes`. The algorithm and torch's random state are left as they were.

        Args:
            algorithm: whose policy is judged, left in the mode that it came in.
            data: to judge it on.
            seed: the cell's.
            action: how the policy acts: by sampling, or by its most likely choices.
            progress: called with (units done, in all).
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

    The mean over each held-out episode, or over each of 2,000 drawn at random where there are more. It says how well
    the policy predicts the behaviour, not how good that is.

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
    def estimate(
        self, algorithm: Algorithm, data: EstimationData, *, seed: int, action: ActionChoice, progress: Progress
    ) -> list[float]:
        store = data.held_out
        if store is None:
            raise ValueError("HeldOutLikelihood needs held-out data; set Experiment.held_out above 0")
        policy, was_training = algorithm.policy, algorithm.policy.training
        policy.eval()
        start, length = judged_episodes(store)
        begins = length.cumsum(0) - length  # of the episodes among `transitions`
        transitions = torch.arange(int(length.sum())) + (start - begins).repeat_interleave(length)
        done, parts = 0, []
        try:
            for chosen in transitions.split(ROWS):
                taken = store.data["transitions", ACTION][chosen].long().to(data.device)
                observation, allowed = data.observe(store, chosen), data.allowed(store, chosen)
                parts.append(policy.log_prob(observation, taken, allowed).float().cpu())
                done += len(chosen)
                progress(done, len(transitions))
        finally:
            policy.train(was_training)
        totals = np.add.reduceat(torch.cat(parts).double().numpy(), begins.numpy())
        return (totals / length.numpy()).tolist()
