"""The only attention block, shared by the ASM, SAINT and SPIN."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from spinrl.nn.attention import attention
from spinrl.nn.dropout import Dropout

NORM_EPS = 1e-5  # torch's


class TransformerBlock(nn.Module):
    """A pre-norm block with separate LayerNorms for queries and for keys and values, and no norm at its end.

    x ← x + Out(Attention(LN_q(x), LN_kv(x), LN_kv(x))), then x ← x + FFN(LN(x)), FFN = d→2d, GELU, 2d→d.
    Dropout falls on the attention weights, after Out, and inside and after the FFN.

    It is taken apart into `project`, `mix` and `finish`, so that a caller can project tokens that many samples
    share once, and finish only the tokens whose outputs it needs. Source: arXiv 2601.04441, the ASM's blocks.

    Args:
        d_model: width of a token, a multiple of `num_heads`.
        num_heads: attention heads.
        dropout: share set to zero in training, at all four places.
    """

    def __init__(self, d_model: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"d_model has to be a multiple of num_heads, got {d_model} and {num_heads}")
        self.num_heads = num_heads
        self.norm_query = nn.LayerNorm(d_model)
        self.norm_key_value = nn.LayerNorm(d_model)
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.norm_ffn = nn.LayerNorm(d_model)
        self.ffn_in = nn.Linear(d_model, 2 * d_model)
        self.ffn_out = nn.Linear(2 * d_model, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor, tail: int | None = None) -> torch.Tensor:
        """(B, T, d) → (B, T, d), or only the last `tail` tokens of it, (B, tail, d)."""
        context = self.mix(self.project(x), tail)
        return self.finish(x if tail is None else x[:, -tail:], context)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values of tokens, side by side: (..., d) → (..., 3d)."""
        weight, bias = self.projection()
        normalized = functional.layer_norm(x, x.shape[-1:], eps=NORM_EPS)
        return functional.linear(normalized, weight, bias)

    def projection(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (3d, d) and bias (3d,) of `project`, which applies them to tokens normalised without either norm."""
        # Both norms share their statistics, so their scales and shifts move into one fused projection:
        # W(γ⊙x̂ + β) + b = (Wγ)x̂ + (Wβ + b); the 1/√(d/H) of the scores moves into the queries.
        temper = (self.num_heads / self.query.in_features) ** 0.5
        scale_q, scale_kv = self.norm_query.weight * temper, self.norm_key_value.weight
        shift_q, shift_kv = self.norm_query.bias, self.norm_key_value.bias
        weight = torch.cat([self.query.weight * scale_q, self.key.weight * scale_kv, self.value.weight * scale_kv])
        bias = torch.cat(
            [
                functional.linear(shift_q, self.query.weight, self.query.bias) * temper,
                functional.linear(shift_kv, self.key.weight, self.key.bias),
                functional.linear(shift_kv, self.value.weight, self.value.bias),
            ]
        )
        return weight, bias

    def mix(self, projected: torch.Tensor, tail: int | None = None) -> torch.Tensor:
        """Attention over (B, T, 3d) for all queries or the last `tail`: contexts (B, T or tail, d), before Out."""
        batch, tokens, _ = projected.shape
        shape = (batch * self.num_heads, tokens if tail is None else tail, tokens)
        return attention(projected, self.num_heads, tail, self.dropout.factor(shape, projected))

    def finish(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """The rest of the block for tokens and their contexts of the same shape (..., d)."""
        x = self.dropout.add(x, self.out(context))
        hidden = self.dropout(functional.gelu(self.ffn_in(self.norm_ffn(x))))
        return self.dropout.add(x, self.ffn_out(hidden))
