"""A trained policy for export: one network from raw observation to control values."""

from __future__ import annotations

import copy

import torch
from torch import nn

from spinrl.algorithms.bcq import FilteredPolicy
from spinrl.nn import FoldedSlots
from spinrl.policies import IndependentPolicy, Policy, SAINTPolicy, SPINPolicy

UNDECIDED = -1  # action of a sub-action that cannot be decided
Outputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class FoldedPolicy(IndependentPolicy):
    """SAINT or SPIN with everything precomputed that does not depend on the observation.

    Args:
        policy: trained policy.
    """

    def __init__(self, policy: SAINTPolicy | SPINPolicy) -> None:
        super().__init__(policy.observation_size, policy.action_spec)
        self.slots = FoldedSlots(policy.encoder, policy.slot_queries)
        self.heads = policy.heads

    def logits(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
        return self.heads(self.slots(observation))


def folded(policy: Policy) -> Policy:
    """The same policy with everything precomputed that does not depend on the observation."""
    if isinstance(policy, SAINTPolicy | SPINPolicy):
        return FoldedPolicy(policy)
    if isinstance(policy, FilteredPolicy):
        outer = copy.copy(policy)
        outer._modules = dict(policy._modules)
        outer.policy = folded(policy.policy)
        return outer
    return policy


class DeployedPolicy(nn.Module):
    """Observation → action, control values and logits.

    If a row's observation is not finite, or a sub-action has no allowed choice, the action is -1 and the control NaN.
    The logits of a row that is not finite are NaN.

    Args:
        policy: trained policy; it is put into evaluation mode.
        controls: (N, K) control value of every choice, NaN if it does not exist.
    """

    controls: torch.Tensor
    slots: torch.Tensor

    def __init__(self, policy: Policy, controls: torch.Tensor) -> None:
        super().__init__()
        self.policy = folded(policy.eval()).requires_grad_(False)
        self.register_buffer("controls", controls.float())
        self.register_buffer("slots", torch.arange(len(controls)), persistent=False)
        self.eval()

    def forward(self, observation: torch.Tensor, noise: torch.Tensor | None, allowed: torch.Tensor | None) -> Outputs:
        """Decide.

        Args:
            observation: (B, S) float32, raw.
            noise: (B, N, K) standard Gumbel noise to sample with, or None for the most likely choices.
            allowed: (B, N, K) bool, False for choices that must not be made; None for all.

        Returns:
            action (B, N) int64, control (B, N) float32, logits (B, N, K) float32.
        """
        known = observation.isfinite().all(-1)  # (B,)
        action, logits = self.policy.decide(torch.where(known[:, None], observation, 0.0), noise, allowed)
        possible = known[:, None] & (logits > -torch.inf).any(-1)  # (B, N)
        control = torch.where(possible, self.controls[self.slots, action], torch.nan)
        return (
            torch.where(possible, action, UNDECIDED),
            control,
            torch.where(known[:, None, None], logits, torch.nan),
        )


class EntryPoint(nn.Module):
    """The exported module. Without the input `noise` it takes the most likely choices; with noise it samples.

    Args:
        deployed: deployed policy.
    """

    def __init__(self, deployed: DeployedPolicy) -> None:
        super().__init__()
        self.deployed = deployed

    def forward(self, observation: torch.Tensor, allowed: torch.Tensor, noise: torch.Tensor | None = None) -> Outputs:
        """As `DeployedPolicy.forward`."""
        return self.deployed(observation, noise, allowed)
