"""Advantage-weighted actor-critic (Nair et al., 2020) with critics that add up over sub-actions."""

from __future__ import annotations

import copy

import attrs
import torch
from attrs.validators import ge, gt
from tensordict import TensorDict, TensorDictBase

from spinrl.algorithms.base import (
    ActorCriticConfig,
    Algorithm,
    detached,
    minimize,
    policy_input,
    polyak_update,
    transition,
)
from spinrl.algorithms.losses import (
    advantage_weight,
    effective_share,
    ensemble_mse,
    td_target,
    weighted_log_likelihood,
)
from spinrl.config.registry import register
from spinrl.machine import ResolvedMachine
from spinrl.nn import CriticEnsemble, ValueNetwork
from spinrl.policies.base import Policy
from spinrl.specs import ACTION, ALLOWED, OBSERVATION, ActionSpec


@register
@attrs.frozen(kw_only=True)
class AWAC(ActorCriticConfig):
    """Advantage-weighted actor-critic: values of the policy itself, and a policy by advantage-weighted likelihood.

    Attributes:
        temperature: advantages are divided by it; the lower, the more sharply the policy prefers them.
        weight_clip: largest weight of a transition in the policy's loss.
        value_samples: joint actions drawn for a state's value, by policies whose sub-actions are not independent.
    """

    temperature: float = attrs.field(default=0.3, validator=gt(0))
    weight_clip: float = attrs.field(default=100.0, validator=gt(0))
    value_samples: int = attrs.field(default=4, validator=ge(1))

    def build(
        self, policy: Policy, observation_size: int, action_spec: ActionSpec, *, seed: int, machine: ResolvedMachine
    ) -> AWACAlgorithm:
        qvalue, value = self.build_critics(observation_size, action_spec, seed)
        return AWACAlgorithm(self, policy, qvalue, value, machine)


class AWACAlgorithm(Algorithm):
    """One AWAC step is: critics, policy, state value, targets, in this order (Nair et al., 2020)."""

    config: AWAC
    values_follow_policy = True

    def __init__(
        self, config: AWAC, policy: Policy, qvalue: CriticEnsemble, value: ValueNetwork, machine: ResolvedMachine
    ) -> None:
        super().__init__(config, policy, machine)
        self.qvalue = qvalue
        self.target_qvalue = copy.deepcopy(qvalue).requires_grad_(False)
        self.value = value
        self.target_value = copy.deepcopy(value).requires_grad_(False)
        self.to(machine.device)
        self.qvalue_optimizer = self.add_optimizer("qvalue", qvalue.parameters(), config.learning_rate)
        self.policy_optimizer = self.add_optimizer("policy", policy.parameters(), config.learning_rate)
        self.value_optimizer = self.add_optimizer("value", value.parameters(), config.learning_rate)

    def update(self, batch: TensorDictBase) -> TensorDict:
        config = self.config
        observation, action, reward, terminated, next_observation = transition(batch)

        # (1) The critics by MSE, summed over them, on a target that bootstraps from the target V.
        with torch.no_grad():
            target = td_target(reward, terminated, self.target_value(next_observation), config.gamma)  # (B,)
        loss_qvalue = config.num_critics * ensemble_mse(self.qvalue(observation, action), target)
        minimize(loss_qvalue, self.qvalue_optimizer)

        # (2) The policy by advantage-weighted likelihood, with the critics just updated.
        with torch.no_grad():
            advantage = self.qvalue(observation, action).amin(0) - self.value(observation)  # (B,)
        weight = advantage_weight(advantage, 1 / config.temperature, config.weight_clip)
        loss_policy = weighted_log_likelihood(self.policy_log_prob(batch), weight)
        minimize(loss_policy, self.policy_optimizer)

        # (3) V by MSE on what the target critics expect of the policy just updated.
        loss_value = self._value_loss(batch, self.target_qvalue)
        minimize(loss_value, self.value_optimizer)

        # (4) Targets.
        polyak_update(self.target_qvalue, self.qvalue, config.polyak_rate)
        polyak_update(self.target_value, self.value, config.polyak_rate)
        return detached(
            loss_qvalue=loss_qvalue,
            loss_policy=loss_policy,
            loss_value=loss_value,
            effective_share=effective_share(weight),
        )

    def _value_loss(self, batch: TensorDictBase, qvalue: CriticEnsemble) -> torch.Tensor:
        observation = batch[OBSERVATION]
        with torch.no_grad():
            values = qvalue.per_choice(observation)  # (E, B, N, K)
            with self.machine.autocast():
                expected = self.policy.expected_minimum(  # (B,)
                    policy_input(batch), values, self.config.value_samples, batch.get(ALLOWED, None)
                )
        return (self.value(observation) - expected).square().mean()

    def critic_losses(self, batch: TensorDictBase, returns: torch.Tensor) -> dict[str, torch.Tensor]:
        values = self.qvalue(batch[OBSERVATION], batch[ACTION])  # (E, B)
        return {"loss_qvalue": ensemble_mse(values, returns), "loss_value": self._value_loss(batch, self.qvalue)}
