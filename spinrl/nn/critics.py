"""Action values as sums over sub-actions, and state values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from spinrl.nn.initialization import uniform_fan_in
from spinrl.nn.mlp import MLP
from spinrl.nn.standardizer import Standardizer
from spinrl.specs import ActionSpec


class CriticEnsemble(nn.Module):
    """E independent MLPs S→hidden→Σm_i (ReLU) as one batched matmul (E, in, out) a layer.

    Q(s, a) is the sum over sub-actions of the chosen outputs (arXiv 2601.04441, algorithms).

    Args:
        observation_size: S.
        spec: the action's shape.
        hidden: widths of the hidden layers.
        num_critics: E.
    """

    offsets: torch.Tensor
    padded_index: torch.Tensor
    invalid: torch.Tensor

    def __init__(self, observation_size: int, spec: ActionSpec, *, hidden: Sequence[int], num_critics: int) -> None:
        super().__init__()
        self.standardizer = Standardizer(observation_size)
        sizes = [observation_size, *hidden, sum(spec.nvec)]
        pairs = list(itertools.pairwise(sizes))
        self.weights = nn.ParameterList(uniform_fan_in(num_critics, i, o, fan_in=i) for i, o in pairs)
        self.biases = nn.ParameterList(uniform_fan_in(num_critics, 1, o, fan_in=i) for i, o in pairs)
        counts = torch.tensor(spec.nvec)
        offsets = counts.cumsum(0) - counts  # (N,) where each sub-action's outputs begin
        choice = torch.arange(spec.max_choices)
        valid = spec.valid()
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("padded_index", (offsets[:, None] + choice) * valid, persistent=False)  # (N, K)
        self.register_buffer("invalid", ~valid, persistent=False)

    def outputs(self, observation: torch.Tensor) -> torch.Tensor:
        """(B, S) → (E, B, Σm_i)."""
        x = self.standardizer(observation)
        x = x.expand(self.weights[0].shape[0], *x.shape)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if layer < last:
                x = functional.relu(x)
        return x

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Q(s, a) of every critic: (B, S), (B, N) → (E, B)."""
        return self.chosen(self.outputs(observation), action)

    def chosen(self, outputs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """The sum of the chosen outputs: (E, B, Σm_i), (B, N) → (E, B)."""
        index = (action + self.offsets).expand(outputs.shape[0], -1, -1)  # (E, B, N)
        return outputs.gather(-1, index).sum(-1)

    def per_choice(self, observation: torch.Tensor) -> torch.Tensor:
        """The value of every choice: (B, S) → (E, B, N, K), -inf where a sub-action has fewer choices."""
        return self.outputs(observation)[..., self.padded_index].masked_fill(self.invalid, -torch.inf)


class ValueNetwork(nn.Module):
    """V(s), an MLP S→hidden→1 (ReLU): (B, S) → (B,)."""

    def __init__(self, observation_size: int, *, hidden: Sequence[int]) -> None:
        super().__init__()
        self.standardizer = Standardizer(observation_size)
        self.network = MLP([observation_size, *hidden, 1])

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.network(self.standardizer(observation)).squeeze(-1)
