"""Implicit Q-learning (Kostrikov et al., 2022) with critics that add up over sub-actions."""

from __future__ import annotations

import copy

import attrs
import torch
from attrs.validators import ge, gt, lt
from tensordict import TensorDict, TensorDictBase

from spinrl.algorithms.base import ActorCriticConfig, Algorithm, detached, minimize, polyak_update, transition
from spinrl.algorithms.losses import (
    advantage_weight,
    effective_share,
    ensemble_mse,
    expectile_loss,
    td_target,
    weighted_log_likelihood,
)
from spinrl.config.registry import register
from spinrl.machine import ResolvedMachine
from spinrl.nn import CriticEnsemble, ValueNetwork
from spinrl.policies.base import Policy
from spinrl.specs import ActionSpec


@register
@attrs.frozen(kw_only=True)
class IQL(ActorCriticConfig):
    """Implicit Q-learning: expectile state values, and a policy by advantage-weighted likelihood.

    Attributes:
        expectile: of the state value regression; 0.5 is the mean, 1 the maximum.
        inverse_temperature: how sharply the policy prefers advantages.
        weight_clip: largest weight of a transition in the policy's loss.
    """

    expectile: float = attrs.field(default=0.8, validator=[gt(0), lt(1)])
    inverse_temperature: float = attrs.field(default=3.0, validator=ge(0))
    weight_clip: float = attrs.field(default=100.0, validator=gt(0))

    def build(
        self, policy: Policy, observation_size: int, action_spec: ActionSpec, *, seed: int, machine: ResolvedMachine
    ) -> IQLAlgorithm:
        qvalue, value = self.build_critics(observation_size, action_spec, seed)
        return IQLAlgorithm(self, policy, qvalue, value, machine)


class IQLAlgorithm(Algorithm):
    """One IQL step is: state value, critics, policy, targets, in this order (Kostrikov et al., 2022)."""

    config: IQL

    def __init__(
        self, config: IQL, policy: Policy, qvalue: CriticEnsemble, value: ValueNetwork, machine: ResolvedMachine
    ) -> None:
        super().__init__(config, policy, machine)
        self.qvalue = qvalue
        self.target_qvalue = copy.deepcopy(qvalue).requires_grad_(False)
        self.value = value
        self.to(machine.device)
        self.value_optimizer = self.add_optimizer("value", value.parameters(), config.learning_rate)
        self.qvalue_optimizer = self.add_optimizer("qvalue", qvalue.parameters(), config.learning_rate)
        self.policy_optimizer = self.add_optimizer("policy", policy.parameters(), config.learning_rate)

    def update(self, batch: TensorDictBase) -> TensorDict:
        config = self.config
        observation, action, reward, terminated, next_observation = transition(batch)

        # (1) V by expectile regression on the smallest target-Q.
        with torch.no_grad():
            target_q = self.target_qvalue(observation, action).amin(0)  # (B,)
        value = self.value(observation)  # (B,)
        loss_value = expectile_loss(target_q - value, config.expectile)
        minimize(loss_value, self.value_optimizer)

        # (2) The critics by MSE on a target that bootstraps from the V just updated.
        with torch.no_grad():
            target = td_target(reward, terminated, self.value(next_observation), config.gamma)  # (B,)
        loss_qvalue = ensemble_mse(self.qvalue(observation, action), target)
        minimize(loss_qvalue, self.qvalue_optimizer)

        # (3) The policy by advantage-weighted likelihood, with the V from before (1).
        weight = advantage_weight(target_q - value.detach(), config.inverse_temperature, config.weight_clip)  # (B,)
        loss_policy = weighted_log_likelihood(self.policy_log_prob(batch), weight)
        minimize(loss_policy, self.policy_optimizer)

        # (4) Targets.
        polyak_update(self.target_qvalue, self.qvalue, config.polyak_rate)
        return detached(
            loss_value=loss_value,
            loss_qvalue=loss_qvalue,
            loss_policy=loss_policy,
            effective_share=effective_share(weight),
        )

    def critic_losses(self, batch: TensorDictBase, returns: torch.Tensor) -> dict[str, torch.Tensor]:
        observation, action, *_ = transition(batch)
        values = self.qvalue(observation, action)  # (E, B)
        advantage = values.detach().amin(0) - self.value(observation)  # (B,)
        return {
            "loss_qvalue": ensemble_mse(values, returns),
            "loss_value": expectile_loss(advantage, self.config.expectile),
        }
