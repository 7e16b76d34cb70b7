"""Discrete batch-constrained Q-learning (Fujimoto et al., 2019) with critics that add up over sub-actions."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import attrs
import torch
from attrs.validators import ge, gt, le
from tensordict import TensorDict, TensorDictBase

from spinrl.algorithms.base import (
    ActorCriticConfig,
    Algorithm,
    detached,
    minimize,
    next_policy_input,
    polyak_update,
    transition,
)
from spinrl.algorithms.losses import ensemble_mse, td_target
from spinrl.config.registry import register
from spinrl.machine import ResolvedMachine
from spinrl.nn import CriticEnsemble, Dropout, forbid
from spinrl.policies import (
    FactoredPolicy,
    IndependentPolicy,
    Policy,
    gumbel_noise,
    gumbel_to_uniform,
    uniform_to_gumbel,
)
from spinrl.specs import NEXT_ALLOWED, ActionSpec


@register
@attrs.frozen(kw_only=True)
class BCQ(ActorCriticConfig):
    """Batch-constrained Q-learning: the best choices among those that an imitation policy finds likely enough.

    Attributes:
        threshold: a choice is likely where its probability is at least this share of the likeliest allowed choice's.
        candidates: joint actions drawn to choose the best from, by policies whose sub-actions are not independent.
        factored_dropout: whether a factored policy has its dropout in training; the public code has none under BCQ.
    """

    asks_next_policy = True

    threshold: float = attrs.field(default=0.3, validator=[gt(0), le(1)])
    candidates: int = attrs.field(default=10, validator=ge(1))
    factored_dropout: bool = True

    def build(
        self, policy: Policy, observation_size: int, action_spec: ActionSpec, *, seed: int, machine: ResolvedMachine
    ) -> BCQAlgorithm:
        qvalue, _ = self.build_critics(observation_size, action_spec, seed)
        if isinstance(policy, FactoredPolicy) and not self.factored_dropout:
            for layer in policy.modules():
                if isinstance(layer, Dropout):
                    layer.share = 0.0
        return BCQAlgorithm(self, policy, qvalue, machine)


class BCQAlgorithm(Algorithm):
    """One BCQ step is: critics, imitation, targets, in this order (the public reference code)."""

    config: BCQ

    def __init__(self, config: BCQ, policy: Policy, qvalue: CriticEnsemble, machine: ResolvedMachine) -> None:
        super().__init__(config, policy, machine)
        self.qvalue = qvalue
        self.target_qvalue = copy.deepcopy(qvalue).requires_grad_(False)
        self.to(machine.device)
        self.policy_optimizer = self.add_optimizer("policy", policy.parameters(), config.learning_rate)
        self.qvalue_optimizer = self.add_optimizer("qvalue", qvalue.parameters(), config.learning_rate)

    def update(self, batch: TensorDictBase) -> TensorDict:
        config = self.config
        observation, action, reward, terminated, next_observation = transition(batch)

        # (1) The critics by MSE on the best that the imitation policy finds likely in the next state.
        with torch.no_grad():
            target = td_target(reward, terminated, self._next_value(batch, next_observation), config.gamma)  # (B,)
        loss_qvalue = ensemble_mse(self.qvalue(observation, action), target)
        minimize(loss_qvalue, self.qvalue_optimizer)

        # (2) Imitation by likelihood.
        loss_policy = -self.policy_log_prob(batch).mean()
        minimize(loss_policy, self.policy_optimizer)

        # (3) Targets.
        polyak_update(self.target_qvalue, self.qvalue, config.polyak_rate)
        return detached(loss_policy=loss_policy, loss_qvalue=loss_qvalue)

    def critic_losses(self, batch: TensorDictBase, returns: torch.Tensor) -> dict[str, torch.Tensor]:
        observation, action, *_ = transition(batch)
        return {"loss_qvalue": ensemble_mse(self.qvalue(observation, action), returns)}

    def _next_value(self, batch: TensorDictBase, observation: torch.Tensor) -> torch.Tensor:
        """The smallest target-Q of the best likely joint action in each next observation (B, S): (B,)."""
        given, allowed = next_policy_input(batch), batch.get(NEXT_ALLOWED, None)
        if isinstance(self.policy, IndependentPolicy):
            values = self.target_qvalue.per_choice(observation)  # (E, B, N, K)
            with self.machine.autocast():
                likely = likely_choices(self.policy, given, self.config.threshold, allowed)  # (B, N, K)
            return values.masked_fill(~likely, -torch.inf).amax(-1).sum(-1).amin(0)
        spec = self.policy.action_spec
        outputs = self.target_qvalue.outputs(observation)  # (E, B, Σm_i)
        best = torch.full((len(observation),), -torch.inf, device=observation.device)
        for _ in range(self.config.candidates):
            noise = gumbel_noise((len(observation), spec.num_sub_actions, spec.max_choices), device=observation.device)
            with self.machine.autocast():
                action = self.policy.sample(given, noise, allowed)
            best = torch.maximum(best, self.target_qvalue.chosen(outputs, action).amin(0))
        return best

    def acting_policy(self) -> Policy:
        kind = FilteredPolicy if isinstance(self.policy, IndependentPolicy) else BestOfSamplesPolicy
        return kind(self.policy, self.qvalue, self.config).train(self.training)


def likely_choices(
    policy: IndependentPolicy, observation: torch.Tensor, threshold: float, allowed: torch.Tensor | None = None
) -> torch.Tensor:
    """(B, N, K) bool: the choices whose probability is at least `threshold` times that of the likeliest allowed one."""
    log_probs = forbid(policy.log_probs(observation), allowed)
    # Where nothing is allowed, nothing is likely either.
    return (log_probs > -torch.inf) & (log_probs >= math.log(threshold) + log_probs.amax(-1, keepdim=True))


class FilteredPolicy(Policy):
    """Each sub-action's choice of the largest Q among the likely ones; it is the same whatever the noise.

    Its logits are the smallest Q of the ensemble, -inf where a choice is not likely enough.
    """

    drawn_by: ClassVar = "mode"

    def __init__(self, policy: Policy, qvalue: CriticEnsemble, config: BCQ) -> None:
        super().__init__(policy.observation_size, policy.action_spec)
        self.policy, self.qvalue, self.threshold = policy, qvalue, config.threshold

    def log_probs(
        self, observation: torch.Tensor, action: torch.Tensor | None = None, allowed: torch.Tensor | None = None
    ) -> torch.Tensor:
        # Which choices are likely depends on those that are allowed, not on `action`.
        return super().log_probs(observation, None, allowed)

    def logits(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
        return self.decide(observation, None)[1]

    def decide(
        self, observation: torch.Tensor, noise: torch.Tensor | None, allowed: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        likely = likely_choices(self.policy, observation, self.threshold, allowed)  # type: ignore[arg-type]
        logits = self.qvalue.per_choice(observation).amin(0).masked_fill(~likely, -torch.inf)
        return logits.argmax(-1), logits


class BestOfSamplesPolicy(Policy):
    """The best, by the smallest Q of the ensemble, of several joint actions that a policy samples.

    The caller's noise gives all of them: its uniform numbers are shifted by another fixed amount (modulo 1) for each
    candidate, which leaves each candidate an exact sample (a Cranley-Patterson rotation). Without noise the shifts
    alone decide.
    """

    drawn_by: ClassVar = "else"
    shifts: torch.Tensor

    def __init__(self, policy: Policy, qvalue: CriticEnsemble, config: BCQ) -> None:
        super().__init__(policy.observation_size, policy.action_spec)
        self.policy, self.qvalue = policy, qvalue
        spec = policy.action_spec
        shape = (config.candidates, 1, spec.num_sub_actions, spec.max_choices)
        shifts = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("shifts", shifts.to(next(policy.parameters()).device), persistent=False)

    def logits(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
        return self.policy.logits(observation, self.mode(observation) if action is None else action)

    def decide(
        self, observation: torch.Tensor, noise: torch.Tensor | None, allowed: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch, candidates = observation.shape[0], self.shifts.shape[0]  # `len` would be a constant when exported
        uniform = torch.zeros(()) if noise is None else gumbel_to_uniform(noise)
        # All candidates are rows of one batch: an exported program has the policy in it once.
        shifted = ((uniform + self.shifts) % 1).expand(-1, batch, -1, -1).flatten(0, 1)  # (C·B, N, K)
        repeated = None if allowed is None else allowed.repeat(candidates, 1, 1)
        drawn, _ = self.policy.decide(observation.repeat(candidates, 1), uniform_to_gumbel(shifted), repeated)
        outputs = self.qvalue.outputs(observation).repeat(1, candidates, 1)  # (E, C·B, Σm_i)
        best = self.qvalue.chosen(outputs, drawn).amin(0).view(candidates, batch).argmax(0)  # (B,)
        action = drawn.view(candidates, batch, -1)[best, torch.arange(batch, device=best.device)]
        return action, forbid(self.policy.logits(observation, action), allowed)
