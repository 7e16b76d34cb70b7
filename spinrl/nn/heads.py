"""One head per sub-action, all computed at once."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from spinrl.nn.dropout import Dropout
from spinrl.nn.initialization import uniform_fan_in
from spinrl.specs import ActionSpec


class StackedHeads(nn.Module):
    """N heads of the same shape as one (N, d, k) batched matmul each layer, instead of a loop over N.

    Each head is Linear d_in→hidden, GELU, Dropout, Linear hidden→m_i, or only the last when `hidden` is None.
    Sub-actions with fewer than K choices are padded: their weights are zero, never get a gradient, and their
    logits are -inf. The last layer runs in float32 under autocast too, since log-probabilities need the digits.

    Args:
        spec: the action's shape; N heads, of which the i-th has ``spec.nvec[i]`` outputs.
        d_in: width of the inputs.
        hidden: width of the hidden layer, or None for linear heads.
        dropout: share of hidden activations set to zero in training.
    """

    invalid: torch.Tensor
    hidden_weight: nn.Parameter | None
    hidden_bias: nn.Parameter | None

    def __init__(self, spec: ActionSpec, d_in: int, *, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        num, choices = spec.num_sub_actions, spec.max_choices
        d_out = d_in if hidden is None else hidden
        if hidden is not None:
            self.hidden_weight = nn.Parameter(uniform_fan_in(num, d_in, hidden, fan_in=d_in))
            self.hidden_bias = nn.Parameter(uniform_fan_in(num, 1, hidden, fan_in=d_in))
        else:
            self.hidden_weight = None
            self.hidden_bias = None
        self.dropout = Dropout(dropout)
        invalid = ~spec.valid()
        self.weight = nn.Parameter(uniform_fan_in(num, d_out, choices, fan_in=d_out).masked_fill(invalid[:, None], 0))
        self.bias = nn.Parameter(uniform_fan_in(num, 1, choices, fan_in=d_out).masked_fill(invalid[:, None], 0))
        self.padded = bool(invalid.any())
        self.register_buffer("invalid", invalid, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, K) from one input per sub-action, (B, N, d), or from one for all, (B, d)."""
        if x.dim() == 3:
            return self.slot_major(x.transpose(0, 1)).transpose(0, 1)
        num, _, choices = self.weight.shape
        if self.hidden_weight is not None:
            return self.slot_major(x.expand(num, -1, -1)).transpose(0, 1)
        # Linear heads on one input are one plain product, (B, d) x (d, N·K).
        with torch.autocast(x.device.type, enabled=False):
            logits = torch.addmm(self.bias.flatten(), x.to(self.weight.dtype), self.weight.transpose(0, 1).flatten(1))
        return self._mask(logits.view(-1, num, choices), self.invalid)

    def slot_major(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, C, K) from inputs (N, C, d): any C rows for each sub-action."""
        if self.hidden_weight is not None and self.hidden_bias is not None:
            x = self.dropout(functional.gelu(torch.baddbmm(self.hidden_bias, x, self.hidden_weight)))
        with torch.autocast(x.device.type, enabled=False):
            logits = torch.baddbmm(self.bias, x.to(self.weight.dtype), self.weight)
        return self._mask(logits, self.invalid[:, None])

    def logits_of(self, sub_action: int, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) of one sub-action from its inputs (B, d), for policies that decide one after the other."""
        if self.hidden_weight is not None and self.hidden_bias is not None:
            hidden = x @ self.hidden_weight[sub_action] + self.hidden_bias[sub_action]
            x = self.dropout(functional.gelu(hidden))
        with torch.autocast(x.device.type, enabled=False):
            logits = torch.addmm(self.bias[sub_action], x.to(self.weight.dtype), self.weight[sub_action])
        return self._mask(logits, self.invalid[sub_action])

    def _mask(self, logits: torch.Tensor, invalid: torch.Tensor) -> torch.Tensor:
        return logits.masked_fill(invalid, -torch.inf) if self.padded else logits


def forbid(logits: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
    """The logits (..., K) with -inf where `allowed` (..., K) is False; None allows everything."""
    return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)
