"""Estimates by importance weights, as components: `spinrl.evaluation.importance` has the mathematics."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Self

import attrs
import numpy as np
import torch
from attrs.validators import ge, gt, le, optional

from spinrl.algorithms import Algorithm
from spinrl.config.registry import register
from spinrl.data import Progress, Store
from spinrl.evaluation.acting import Acting
from spinrl.evaluation.estimators import (
    RESAMPLES,
    ROWS,
    Estimate,
    EstimationData,
    Estimator,
    WithheldError,
    check_fractions,
    judged_episodes,
    transitions_of,
)
from spinrl.evaluation.fitted_q import FittedQ
from spinrl.evaluation.importance import (
    Steps,
    bounded_log_ratio,
    effective_episodes,
    per_decision_wis,
    percentile_interval,
    resample_counts,
    weighted_doubly_robust,
)
from spinrl.evaluation.logged import LoggedBehavior, LoggedPropensities
from spinrl.evaluation.rollout import ActionChoice
from spinrl.seeding import numpy_generator, torch_generator

_NEGLIGIBLE = 0.01  # discount of a step from which on rewards are left out
_REMAINING = 0.05  # mean discount at the cut of an episode from which on a remark says what is left out


@attrs.frozen(eq=False, kw_only=True)
class Weighed:
    """The judged episodes, weighed for a policy.

    Attributes:
        steps: (E, T) rewards, ratios, and which steps are real.
        transitions: (B,) of the store, the real steps of `steps` in order.
        gamma: discount.
        size: effective number of episodes.
        details: figures of `Estimate`.
        remark: what the estimate suffers from.
    """

    steps: Steps
    transitions: torch.Tensor
    gamma: float
    size: float
    details: dict[str, float]
    remark: str

    def padded(self, values: np.ndarray) -> np.ndarray:
        """(E, T) from one value (B,) for each real step."""
        return _padded(values, self.steps.valid)


@attrs.frozen(kw_only=True)
class ImportanceWeighted(Estimator):
    """Base of the estimators by importance weights.

    Made on the held-out episodes, or on those trained on where none were held out; on 2,000 drawn at random where
    there are more. Steps whose discount is below 0.01 are left out. The interval is a percentile bootstrap over
    episodes.

    Attributes:
        behavior: whose probabilities the policy's are divided by.
        gamma: discount; none for the algorithm's own.
        bound: largest ratio of one sub-action, whose inverse is the smallest.
        least_effective: effective number of episodes below which the estimate is withheld.
        least_covered: mean ratio of a step, which is 1 in expectation where the behaviour does all that the policy
            does, below which it is withheld: the rest of what the policy does is not in the log.
        fractions: shares of the budget after which it is made, of those at which policies are evaluated.
    """

    behavior: LoggedBehavior = attrs.field(factory=LoggedPropensities)
    gamma: float | None = attrs.field(default=None, validator=optional([ge(0), le(1)]))
    bound: float = attrs.field(default=20.0, validator=gt(1))
    least_effective: float = attrs.field(default=20.0, validator=ge(1))
    least_covered: float = attrs.field(default=0.8, validator=[ge(0), le(1)])
    fractions: tuple[float, ...] | None = attrs.field(
        default=(1.0,), converter=attrs.converters.optional(tuple), validator=check_fractions
    )

    def rows(self, held_out: int) -> int:
        return held_out

    def smaller(self) -> Self:
        return attrs.evolve(self, behavior=self.behavior.smaller())

    def judge(
        self, algorithm: Algorithm, data: EstimationData, seed: int, action: ActionChoice, progress: Progress
    ) -> Estimate:
        weighed = self.weigh(algorithm, data, seed, action, progress)
        counts = resample_counts(len(weighed.steps.valid), RESAMPLES, numpy_generator(seed, self.metric))
        counts = np.concatenate([np.ones((1, counts.shape[1])), counts])  # first all episodes as they are
        values = self.values(weighed, counts, algorithm, data, seed, action)
        low, high = percentile_interval(values[1:], 0.95)
        return Estimate(
            metric=self.metric,
            value=float(values[0]),
            low=low,
            high=high,
            effective_episodes=weighed.size,
            remark=weighed.remark,
            details=weighed.details,
        )

    @abstractmethod
    def values(
        self,
        weighed: Weighed,
        counts: np.ndarray,
        algorithm: Algorithm,
        data: EstimationData,
        seed: int,
        action: ActionChoice,
    ) -> np.ndarray:
        """(R,) estimates of resamples of the episodes; `counts` (R, E) as in `spinrl.evaluation.importance`."""

    def weigh(
        self, algorithm: Algorithm, data: EstimationData, seed: int, action: ActionChoice, progress: Progress
    ) -> Weighed:
        """The judged episodes with their weights.

        Raises:
            WithheldError: where they say too little of the policy.
        """
        gamma = algorithm.config.gamma if self.gamma is None else self.gamma
        store, (start, length) = data.judged, judged_episodes(data.judged)
        most = math.inf if gamma == 1 else 1 if gamma == 0 else 1 + math.floor(math.log(_NEGLIGIBLE) / math.log(gamma))
        counted = length.clamp_max(int(min(most, int(length.max()))))
        transitions = transitions_of(start, counted)
        act = Acting(algorithm, action, torch_generator(seed, "importance"))
        behavior = self.behavior.log_probs(data, transitions, seed, act.standardizer.mean is not None)
        policy = _log_policy(act, data, store, transitions, progress)
        if behavior.shape[1] == 1:
            policy = policy.sum(1, keepdims=True)
        ratio, bounded = bounded_log_ratio(policy, behavior, self.bound)
        valid = np.arange(int(counted.max())) < counted.numpy()[:, None]
        reward = store.data["transitions", "reward"][transitions].double().numpy()
        steps = Steps(reward=_padded(reward, valid), log_ratio=_padded(ratio, valid), valid=valid)
        size = effective_episodes(steps.weight, gamma)
        covered = float(np.exp(np.minimum((policy - behavior).sum(1), 50)).mean())
        self._require(steps, size, covered)
        ended = store.data["transitions", "terminated"][start + length - 1].numpy()
        left = float(np.where(ended, 0.0, gamma ** length.double().numpy()).mean())
        remark = "counts no reward after an episode was cut by time" if left > _REMAINING else ""
        details = {"bound": self.bound, "bounded": bounded, "covered": covered}
        return Weighed(steps=steps, transitions=transitions, gamma=gamma, size=size, details=details, remark=remark)

    def _require(self, steps: Steps, size: float, covered: float) -> None:
        reached = steps.weight.sum(0) > 0  # (T,)
        if not reached.all():
            raise WithheldError(
                f"the policy takes the logged actions of no episode beyond its step {int(reached.argmin())}: it never "
                "makes some choice of each"
            )
        if covered < self.least_covered:
            raise WithheldError(
                f"about {1 - covered:.0%} of what the policy does in a step is not in the log, where the behaviour is "
                "nearly deterministic or another"
            )
        if size < self.least_effective:
            raise WithheldError(
                f"only {size:.1f} of {len(steps.valid):,} episodes count in effect, {self.least_effective:g} are asked "
                "for: the policy is too far from the behaviour, or episodes are too long or too few"
            )


@register
@attrs.frozen(kw_only=True)
class PerDecisionWIS(ImportanceWeighted):
    """Per-decision weighted importance sampling (Precup, Sutton and Singh 2000, section 3).

    With episodes of one step it is the self-normalised estimator of contextual bandits (Swaminathan and Joachims 2015).

    Attributes:
        behavior: whose probabilities the policy's are divided by.
        gamma: discount; none for the algorithm's own.
        bound: largest ratio of one sub-action, whose inverse is the smallest.
        least_effective: effective number of episodes below which the estimate is withheld.
        least_covered: mean ratio of a step below which it is withheld.
        fractions: shares of the budget after which it is made, of those at which policies are evaluated.
    """

    metric: ClassVar[str] = "per_decision_wis"

    def values(
        self,
        weighed: Weighed,
        counts: np.ndarray,
        algorithm: Algorithm,
        data: EstimationData,
        seed: int,
        action: ActionChoice,
    ) -> np.ndarray:
        return per_decision_wis(weighed.steps, weighed.gamma, counts)


@register
@attrs.frozen(kw_only=True)
class WeightedDoublyRobust(ImportanceWeighted):
    """Weighted doubly robust (Thomas and Brunskill 2016, section 4), with the values of `FittedQ`.

    With episodes of one step it is the doubly robust estimator of a contextual bandit (Dudík, Langford and Li 2011).

    Attributes:
        behavior: whose probabilities the policy's are divided by.
        gamma: discount; none for the algorithm's own.
        bound: largest ratio of one sub-action, whose inverse is the smallest.
        least_effective: effective number of episodes below which the estimate is withheld.
        least_covered: mean ratio of a step below which it is withheld.
        fractions: shares of the budget after which it is made, of those at which policies are evaluated.
        fitted_q: where the values come from; the same as among the estimators is fitted once for both.
        value_actions: actions drawn from the policy in each logged state for its value there.
    """

    metric: ClassVar[str] = "weighted_doubly_robust"

    fitted_q: FittedQ = attrs.field(factory=FittedQ)
    value_actions: int = attrs.field(default=8, validator=ge(1))

    def values(
        self,
        weighed: Weighed,
        counts: np.ndarray,
        algorithm: Algorithm,
        data: EstimationData,
        seed: int,
        action: ActionChoice,
    ) -> np.ndarray:
        fitted = attrs.evolve(self.fitted_q, gamma=weighed.gamma) if self.gamma is not None else self.fitted_q
        values = fitted.fitted(algorithm, data, seed, action, lambda _done, _total: None)
        q = values.taken(data, data.judged, weighed.transitions).mean(0)
        v = values.expected(data, data.judged, weighed.transitions, self.value_actions).mean(0)
        return weighted_doubly_robust(weighed.steps, weighed.padded(q), weighed.padded(v), weighed.gamma, counts)

    def rows(self, held_out: int) -> int:
        return held_out * (1 + self.value_actions)

    def smaller(self) -> Self:
        return attrs.evolve(super().smaller(), fitted_q=self.fitted_q.smaller())


def _padded(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    padded = np.zeros(valid.shape)
    padded[valid] = values
    return padded


def _log_policy(
    act: Acting, data: EstimationData, store: Store, transitions: torch.Tensor, progress: Progress
) -> np.ndarray:
    """(B, N) log-probability of the logged sub-actions under the policy."""
    done, parts = 0, []
    for rows in transitions.split(ROWS):
        found = act.log_probs(data.observe(store, rows), data.taken(store, rows), data.allowed(store, rows))
        parts.append(found.cpu())
        done += len(rows)
        progress(done, len(transitions))
    return torch.cat(parts).double().numpy()
