"""The decoupled Q-network of the behaviour policies (DecQN, Seyde et al., ICLR 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from spinrl.specs import ActionSpec


class DecoupledQNetwork(nn.Module):
    """LayerNorm MLP from a normalised observation to one utility per choice of every sub-action.

    The value of a joint action is the mean of the chosen utilities, so that the greedy joint action is the
    greedy choice of every sub-action by itself.

    Args:
        observation_size: S.
        action_spec: the joint action; all sub-actions have the same number of choices K here.
        hidden: widths of the hidden layers.
    """

    observation_mean: torch.Tensor
    observation_scale: torch.Tensor

    def __init__(self, observation_size: int, action_spec: ActionSpec, hidden: Sequence[int]) -> None:
        super().__init__()
        if len(set(action_spec.nvec)) != 1:
            raise ValueError(
                f"a decoupled Q-network needs equally many choices in every sub-action, got {action_spec.nvec}"
            )
        self.shape = (action_spec.num_sub_actions, action_spec.max_choices)
        self.register_buffer("observation_mean", torch.zeros(observation_size))
        self.register_buffer("observation_scale", torch.ones(observation_size))
        self._layers: list[tuple[nn.Linear, nn.LayerNorm]] = []
        width = observation_size
        for size in hidden:
            self._layers.append((nn.Linear(width, size), nn.LayerNorm(size)))
            width = size
        # Gives the parameters the names that shipped weights have.
        self.body = nn.Sequential(*(part for layer in self._layers for part in (*layer, nn.SiLU())))
        self.head = nn.Linear(width, action_spec.num_sub_actions * action_spec.max_choices)
        # A random output layer would hide rewards of a few thousandths a step.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def set_normalizer(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Fix the input normalisation from (S,) statistics of observations."""
        self.observation_mean.copy_(mean)
        self.observation_scale.copy_(1.0 / std.clamp_min(1e-2))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """(B, S) observations to (B, N, K) utilities."""
        hidden = ((observation - self.observation_mean) * self.observation_scale).clamp(-10.0, 10.0)
        # Not module by module: for the few rows of a collection that costs a quarter more.
        for linear, norm in self._layers:
            hidden = functional.linear(hidden, linear.weight, linear.bias)
            hidden = functional.silu(functional.layer_norm(hidden, norm.normalized_shape, norm.weight, norm.bias))
        return functional.linear(hidden, self.head.weight, self.head.bias).unflatten(-1, self.shape)

    def state_for(self, action_spec: ActionSpec) -> dict[str, torch.Tensor]:
        """The state dict for another number K' of choices: utilities between two choices are interpolated.

        Choices are points spread evenly over the same range, so that the first and the last stay what they are.

        Args:
            action_spec: as many sub-actions, all with K' choices.

        Raises:
            ValueError: when the number of sub-actions differs.
        """
        num_sub_actions, choices = self.shape
        if action_spec.num_sub_actions != num_sub_actions:
            raise ValueError(f"a network for {num_sub_actions} sub-actions cannot act on {action_spec.num_sub_actions}")
        state = self.state_dict()
        for key in ("head.weight", "head.bias"):
            rows = state[key].reshape(num_sub_actions, choices, -1).transpose(1, 2)  # (N, W, K)
            other = functional.interpolate(rows, size=action_spec.max_choices, mode="linear", align_corners=True)
            state[key] = other.transpose(1, 2).reshape(-1, *state[key].shape[1:])
        return state


def joint_value(utilities: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """(B, N, K) utilities and (B, N) choices to the (B,) values of the joint actions."""
    return utilities.gather(-1, action.unsqueeze(-1)).squeeze(-1).mean(-1)
