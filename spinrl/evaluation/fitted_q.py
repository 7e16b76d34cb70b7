"""Fitted Q evaluation: the value of a policy, learned from data that others made.

Le, Voloshin and Yue 2019, "Batch Policy Learning under Constraints", algorithm 3, with a target network that follows
slowly in place of separate regressions.
"""

from __future__ import annotations

import copy
from typing import ClassVar, Self

import attrs
import torch
from attrs.validators import deep_iterable, ge, gt, le
from torch import nn
from torch.nn import functional

from spinrl.algorithms import Algorithm
from spinrl.algorithms.base import minimize, polyak_update, transition
from spinrl.config.registry import register
from spinrl.data import ReplayLoader
from spinrl.evaluation.estimators import ROWS, EstimationData, Estimator, Progress, check_fractions, judged_episodes
from spinrl.evaluation.rollout import ActionChoice
from spinrl.nn.initialization import seeded_initialization
from spinrl.nn.mlp import MLP
from spinrl.nn.standardizer import Standardizer, standardizers
from spinrl.policies import Policy, gumbel_noise
from spinrl.seeding import child_seed, torch_generator
from spinrl.specs import NEXT_ALLOWED, ActionSpec

_REPORT_EVERY = 50  # gradient steps


@register
@attrs.frozen(kw_only=True)
class FittedQ(Estimator):
    """Discounted return from the first states of the episodes, by fitted Q evaluation.

    Q is one network of the observation and all chosen sub-actions, not a sum over sub-actions, and it is none of the
    algorithm's own critics, so that policies and algorithms are judged alike. It is learned on the training data, and
    asked for the first states of the held-out episodes where there are any, else of those trained on; of 2,000 drawn at
    random where there are more.

    Attributes:
        gamma: discount.
        gradient_steps: updates of Q.
        batch_size: transitions per update.
        learning_rate: of Adam.
        polyak_rate: share of Q that its target takes over in a step.
        hidden: widths of the hidden layers.
        start_actions: actions drawn from the policy in each first state.
        fractions: shares of the budget after which it is made, of those at which policies are evaluated.
    """

    metric: ClassVar[str] = "fitted_q"
    unit: ClassVar[str] = "steps"

    gamma: float = attrs.field(default=0.99, validator=[ge(0), le(1)])
    gradient_steps: int = attrs.field(default=100_000, validator=ge(1))
    batch_size: int = attrs.field(default=256, validator=ge(1))
    learning_rate: float = attrs.field(default=3e-4, validator=gt(0))
    polyak_rate: float = attrs.field(default=0.005, validator=[gt(0), le(1)])
    hidden: tuple[int, ...] = attrs.field(default=(256, 256), converter=tuple, validator=deep_iterable(gt(0)))
    start_actions: int = attrs.field(default=16, validator=ge(1))
    fractions: tuple[float, ...] | None = attrs.field(
        default=(1.0,), converter=attrs.converters.optional(tuple), validator=check_fractions
    )

    def estimate(
        self, algorithm: Algorithm, data: EstimationData, *, seed: int, action: ActionChoice, progress: Progress
    ) -> list[float]:
        policy = algorithm.acting_policy()
        was_training = policy.training
        policy.eval()
        try:
            act = _Acting(policy, action, torch_generator(seed, "fitted-q", "actions"))
            seen = next(iter(standardizers(policy)), Standardizer(policy.observation_size))
            qvalue = self._fit(act, seen, data, seed, progress)
            return self._first_values(qvalue, act, data)
        finally:
            policy.train(was_training)

    def rows(self, held_out: int) -> int:
        return self.gradient_steps * self.batch_size

    def smaller(self) -> Self:
        return attrs.evolve(self, gradient_steps=20, batch_size=32)

    def _fit(
        self, act: _Acting, standardizer: Standardizer, data: EstimationData, seed: int, progress: Progress
    ) -> JointQ:
        store = data.training
        loader = ReplayLoader(store, self.batch_size, child_seed(seed, "fitted-q"), device=data.device)
        with seeded_initialization(seed, "fitted-q"):
            qvalue = JointQ(standardizer, store.action_spec, self.hidden).to(data.device)
        target = copy.deepcopy(qvalue).requires_grad_(False)
        optimizer = torch.optim.Adam(qvalue.parameters(), lr=self.learning_rate, fused=True)
        for step in range(1, self.gradient_steps + 1):
            batch = loader.sample()
            observation, action, reward, terminated, following = transition(batch)
            with torch.no_grad():
                taken = act(following, batch.get(NEXT_ALLOWED, None))  # (B, N)
                bootstrapped = reward + self.gamma * (~terminated) * target(following, taken)
            minimize(functional.mse_loss(qvalue(observation, action), bootstrapped), optimizer)
            polyak_update(target, qvalue, self.polyak_rate)
            if step % _REPORT_EVERY == 0 or step == self.gradient_steps:
                progress(step, self.gradient_steps)
        return qvalue

    @torch.inference_mode()
    def _first_values(self, qvalue: JointQ, act: _Acting, data: EstimationData) -> list[float]:
        store = data.held_out or data.training
        start, _ = judged_episodes(store)
        values = []
        for chosen in start.split(ROWS):
            first, allowed = data.observe(store, chosen), data.allowed(store, chosen)  # (B, S), (B, N, K)
            drawn = [qvalue(first, act(first, allowed)) for _ in range(self.start_actions)]
            values.append(torch.stack(drawn).mean(0))
        return torch.cat(values).double().cpu().tolist()


class _Acting:
    """A policy's actions, drawn from a generator of their own."""

    def __init__(self, policy: Policy, action: ActionChoice, generator: torch.Generator) -> None:
        self._policy, self._action, self._generator = policy, action, generator

    @torch.no_grad()
    def __call__(self, observation: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
        """(B, S), (B, N, K) → (B, N)."""
        if self._action == "mode":
            return self._policy.mode(observation, allowed)
        spec = self._policy.action_spec
        shape = (len(observation), spec.num_sub_actions, spec.max_choices)
        noise = gumbel_noise(shape, generator=self._generator).to(observation.device)
        return self._policy.sample(observation, noise, allowed)


class JointQ(nn.Module):
    """Q(s, a), an MLP of the observation and of one input for each choice of each sub-action.

    Args:
        standardizer: of the observations, of which Q gets a copy: it sees them as the policy does.
        spec: the action's shape.
        hidden: widths of the hidden layers.
    """

    offsets: torch.Tensor

    def __init__(self, standardizer: Standardizer, spec: ActionSpec, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.standardizer = copy.deepcopy(standardizer)
        counts = torch.tensor(spec.nvec)
        self._choices = sum(spec.nvec)
        self.register_buffer("offsets", counts.cumsum(0) - counts, persistent=False)  # (N,)
        self.network = MLP([standardizer.observation_size + self._choices, *hidden, 1])

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """(B, S), (B, N) → (B,)."""
        chosen = observation.new_zeros(len(observation), self._choices).scatter_(1, action + self.offsets, 1.0)
        return self.network(torch.cat([self.standardizer(observation), chosen], -1)).squeeze(-1)
