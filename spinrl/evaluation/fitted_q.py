"""Fitted Q evaluation: the value of a policy, learned from data that others made.

Le, Voloshin and Yue 2019, "Batch Policy Learning under Constraints", algorithm 3, with a target network that follows
slowly in place of separate regressions, and several networks on bootstrapped episodes (Hao et al. 2021, "Bootstrapping
Fitted Q-Evaluation for Off-Policy Inference").
"""

from __future__ import annotations

import copy
import math
from typing import ClassVar, Self

import attrs
import torch
from attrs.validators import deep_iterable, ge, gt, le, optional
from scipy import stats

from spinrl.algorithms import Algorithm, returns_to_go
from spinrl.algorithms.base import minimize, polyak_update
from spinrl.algorithms.starts import weights_digest
from spinrl.config import fingerprint, to_plain
from spinrl.config.registry import register
from spinrl.data import Progress, StoreError
from spinrl.evaluation.acting import Acting
from spinrl.evaluation.estimators import (
    Estimate,
    EstimationData,
    Estimator,
    WithheldError,
    check_fractions,
    judged_episodes,
    kept,
)
from spinrl.evaluation.joint_q import FittedValues, JointQ, Sample
from spinrl.evaluation.rollout import ActionChoice
from spinrl.nn.initialization import seeded_initialization
from spinrl.nn.standardizer import Standardizer
from spinrl.seeding import torch_generator

_REPORT_EVERY = 50  # gradient steps
_CHECKED = 4096  # transitions that the residual is measured on
_FAR = 0.1  # of the returns' spread: a value that is to move by more has not converged
_MOST_UNSEEN = 0.1  # share of the policy's decisions with a choice that the data never has


@register
@attrs.frozen(kw_only=True)
class FittedQ(Estimator):
    """Discounted return from the first states of the episodes, by fitted Q evaluation.

    Q is a network of the observation and all chosen sub-actions, not a sum over sub-actions, and none of the
    algorithm's own critics, so that policies and algorithms are judged alike. Several are learned at once, each on a
    bootstrap of the training episodes, first the returns that the data holds, and then the policy's. They are asked for
    the first states of the held-out episodes where there are any, else of those trained on; of 2,000 drawn at random
    where there are more.

    The interval is Student's t of the members' spread and of the first states', widened by how far the mean residual on
    held-out transitions says that the value has yet to go. It says nothing of what a network makes of choices that the
    data does not have.

    Attributes:
        gamma: discount; none for the algorithm's own.
        members: networks, each on a bootstrap of the episodes.
        start_steps: updates towards the returns in the data, before the first towards the policy's.
        last_rewards: number of rewards at the end of an episode cut by time, whose mean goes on for ever in its return.
        gradient_steps: updates towards the policy's value.
        batch_size: transitions per update.
        transitions: of the data, drawn at random, on which it is learned; the policy decides once after each.
        learning_rate: of Adam, falling to a tenth in the second half of the updates.
        polyak_rate: share of Q that its target takes over in a step; values settle within about
            1 / (polyak_rate · (1 − gamma)) steps.
        hidden: widths of the hidden layers.
        start_actions: actions drawn from the policy in each first state.
        fractions: shares of the budget after which it is made, of those at which policies are evaluated.
    """

    metric: ClassVar[str] = "fitted_q"
    unit: ClassVar[str] = "steps"

    gamma: float | None = attrs.field(default=None, validator=optional([ge(0), le(1)]))
    members: int = attrs.field(default=4, validator=ge(2))
    start_steps: int = attrs.field(default=10_000, validator=ge(0))
    last_rewards: int = attrs.field(default=50, validator=ge(1))
    gradient_steps: int = attrs.field(default=100_000, validator=ge(1))
    batch_size: int = attrs.field(default=256, validator=ge(1))
    transitions: int = attrs.field(default=200_000, validator=ge(1))
    learning_rate: float = attrs.field(default=3e-4, validator=gt(0))
    polyak_rate: float = attrs.field(default=0.005, validator=[gt(0), le(1)])
    hidden: tuple[int, ...] = attrs.field(default=(256, 256), converter=tuple, validator=deep_iterable(gt(0)))
    start_actions: int = attrs.field(default=16, validator=ge(1))
    fractions: tuple[float, ...] | None = attrs.field(
        default=(1.0,), converter=attrs.converters.optional(tuple), validator=check_fractions
    )

    def judge(
        self, algorithm: Algorithm, data: EstimationData, seed: int, action: ActionChoice, progress: Progress
    ) -> Estimate:
        values = self.fitted(algorithm, data, seed, action, progress)
        start, length = judged_episodes(data.judged)
        first = values.expected(data, data.judged, start, self.start_actions)  # (M, E)
        episodes, members = len(start), first.mean(1)
        low = high = math.nan
        if data.training.metadata.episodes > 1:  # of a single one there is no bootstrap
            # Each member is one draw of the bootstrap; the first states are a sample too.
            error = members.var(ddof=1) * (1 + 1 / self.members)
            error += first.mean(0).var(ddof=1) / episodes if episodes > 1 else 0.0
            drift = abs(values.residual_bias) * values.horizon(data.judged, start, length)
            half = stats.t.ppf(0.975, self.members - 1) * math.sqrt(error) + drift
            low, high = members.mean() - half, members.mean() + half
        else:
            drift = 0.0
        remark = ""
        if drift > _FAR * values.spread:
            remark = (
                f"has not converged: held-out residuals say that it is to move by about {drift:.3g}; raise "
                "FittedQ.gradient_steps or polyak_rate"
            )
        return Estimate(
            metric=self.metric,
            value=float(members.mean()),
            low=float(low),
            high=float(high),
            effective_episodes=float(episodes),
            remark=remark,
            details={"residual": values.residual, "drift": drift / values.spread, "unseen": values.unseen},
        )

    def rows(self, held_out: int) -> int:
        return self.transitions

    def smaller(self) -> Self:
        return attrs.evolve(self, start_steps=10, gradient_steps=20, batch_size=32, transitions=200)

    def discount(self, algorithm: Algorithm) -> float:
        """The discount of the values."""
        return algorithm.config.gamma if self.gamma is None else self.gamma

    def fitted(
        self, algorithm: Algorithm, data: EstimationData, seed: int, action: ActionChoice, progress: Progress
    ) -> FittedValues:
        """The values of the algorithm's policy; fitted once, whichever estimators ask for them.

        Raises:
            WithheldError: where the policy decides otherwise than the data ever does.
        """
        store, gamma = data.training, self.discount(algorithm)
        act = Acting(algorithm, action, torch_generator(seed, "fitted-q", "actions"))
        asked = fingerprint({"estimator": to_plain(attrs.evolve(self, fractions=None)), "gamma": gamma, "seed": seed})
        on = (asked, store.fingerprint, act.standardizer.mean is not None, data.device)

        def fit() -> FittedValues:
            sample, q = kept(
                ("fitted-q start", *on), lambda: self._start(data, act.standardizer, gamma, seed, progress)
            )
            return self._fit(copy.deepcopy(q), sample, act, data, gamma, seed, progress)

        held = data.held_out.fingerprint if data.held_out else None
        return kept(("fitted-q", *on, held, action, weights_digest(act.policy)), fit)

    def _start(
        self, data: EstimationData, standardizer: Standardizer, gamma: float, seed: int, progress: Progress
    ) -> tuple[Sample, JointQ]:
        """The transitions to learn on, and Q as the returns in the data have it: the same for every policy."""
        store = data.training
        try:
            returns = returns_to_go(store, gamma, self.last_rewards)
        except StoreError as error:
            raise WithheldError("an episode is cut by time, so its undiscounted return has no end") from error
        with seeded_initialization(seed, "fitted-q"):
            q = JointQ(standardizer, store.action_spec, self.hidden, self.members).to(data.device)
        q.shift, q.scale = float(returns.mean()), max(float(returns.std()), 1e-6)
        sample = Sample.draw(q, data, returns, self.transitions, self.members, seed)
        if self.start_steps:
            self._learn(q, sample, seed, "start", self.start_steps, 0, progress)
        return sample, q

    def _fit(
        self,
        q: JointQ,
        sample: Sample,
        act: Acting,
        data: EstimationData,
        gamma: float,
        seed: int,
        progress: Progress,
    ) -> FittedValues:
        following, unseen = sample.decided(q, act, data)
        if unseen > _MOST_UNSEEN:
            raise WithheldError(
                f"in {unseen:.0%} of its decisions the policy makes a choice that the data never has, of whose worth "
                "nothing is known"
            )
        self._learn(q, sample, seed, "policy", self.gradient_steps, self.start_steps, progress, following, gamma)
        rows = torch.randperm(len(data.judged), generator=torch_generator(seed, "fitted-q", "checked"))[:_CHECKED]
        checked = Sample.of(q, data, data.judged, rows)
        with torch.no_grad():
            after = q(checked.decided(q, act, data)[0]).mean(0)
            error = checked.reward + gamma * checked.going * after - q(checked.inputs).mean(0)
        return FittedValues(
            q=q,
            act=act,
            seed=seed,
            gamma=gamma,
            residual=float(error.square().mean().sqrt()) / q.scale,
            residual_bias=float(error.mean()),
            unseen=unseen,
        )

    def _learn(
        self,
        q: JointQ,
        sample: Sample,
        seed: int,
        name: str,
        steps: int,
        done: int,
        progress: Progress,
        following: torch.Tensor | None = None,
        gamma: float = 0.0,
    ) -> None:
        """So many updates towards the returns of the sample, or with `following` towards what the target expects."""
        generator = torch_generator(seed, "fitted-q", name)
        optimizer = torch.optim.Adam(q.parameters(), lr=self.learning_rate, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 1.9 - 1.8 * step / steps))
        target = copy.deepcopy(q).requires_grad_(False)
        for step in range(1, steps + 1):
            index = torch.randint(len(sample.inputs), (self.batch_size,), generator=generator).to(sample.inputs.device)
            with torch.no_grad():
                if following is None:
                    wanted = sample.returns[index]
                else:
                    wanted = sample.reward[index] + gamma * sample.going[index] * target(following[index])  # (M, B)
            error = (wanted - q(sample.inputs[index])) / q.scale
            minimize((sample.weight[:, index] * error.square()).mean(1).sum(), optimizer)
            scheduler.step()
            if following is not None:
                polyak_update(target, q, self.polyak_rate)
            if step % _REPORT_EVERY == 0 or step == steps:
                progress(done + step, self.start_steps + self.gradient_steps)
