"""Multi-head attention of short sequences, with its gradient written out."""

from __future__ import annotations

from typing import Any

import torch


def attention(
    projected: torch.Tensor, num_heads: int, tail: int | None = None, factor: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(q·kᵀ)·v of every head, the heads side by side.

    Not `scaled_dot_product_attention`: with dropout it has no fast path on a CPU, and its bfloat16 backward there is
    far slower than this. The gradient is written out because what autograd does with the slices and permutations
    here copies the whole of `projected` three times.

    Args:
        projected: (B, T, 3d), queries (already scaled), keys and values side by side.
        num_heads: H.
        tail: only the last so many tokens ask; None for all.
        factor: (B·H, Q, T), dropout's factors on the weights; None for none.

    Returns:
        (B, Q, d) with Q = `tail` or T.
    """
    queries = projected.shape[1] if tail is None else tail
    # A compiler finds a gradient without spare copies by itself.
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and projected.requires_grad):
        return _forward(projected, num_heads, queries, factor)[0]
    return _Attention.apply(projected, num_heads, queries, factor)


def _split_heads(x: torch.Tensor, num_heads: int) -> torch.Tensor:
    """(B, T, d) → (B·H, T, d/H), contiguous."""
    batch, tokens, width = x.shape
    return x.view(batch, tokens, num_heads, width // num_heads).transpose(1, 2).reshape(batch * num_heads, tokens, -1)


def _forward(
    projected: torch.Tensor, num_heads: int, queries: int, factor: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The contexts (B, Q, d), and what the gradient needs: q, k and v (3, B·H, T, d/H), weights (B·H, Q, T)."""
    batch, tokens, width = projected.shape
    per_head = width // 3 // num_heads
    split = projected.view(batch, tokens, 3, num_heads, per_head).permute(2, 0, 3, 1, 4)
    split = split.reshape(3, batch * num_heads, tokens, per_head)
    query, key, value = split.unbind()
    scores = torch.bmm(query[:, -queries:], key.transpose(1, 2))  # (B·H, Q, T)
    weights = scores.softmax(-1, dtype=torch.float32).to(split.dtype)
    mixed = torch.bmm(weights if factor is None else weights * factor, value)  # (B·H, Q, d/H)
    return mixed.view(batch, num_heads, queries, per_head).transpose(1, 2).flatten(2), split, weights


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, projected: torch.Tensor, num_heads: int, queries: int, factor: torch.Tensor | None
    ) -> torch.Tensor:
        mixed, split, weights = _forward(projected, num_heads, queries, factor)
        ctx.save_for_backward(split, weights, factor)
        ctx.num_heads = num_heads
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        split, weights, factor = ctx.saved_tensors
        query, key, value = split.unbind()
        queries, num_heads = weights.shape[1], ctx.num_heads
        gradient = _split_heads(gradient.to(split.dtype), num_heads)  # (B·H, Q, d/H)
        of_weights = torch.bmm(gradient, value.transpose(1, 2))  # (B·H, Q, T)
        of_split = torch.empty_like(split)  # (3, B·H, T, d/H)
        if factor is None:
            torch.bmm(weights.transpose(1, 2), gradient, out=of_split[2])
        else:
            of_weights.mul_(factor)
            torch.bmm((weights * factor).transpose(1, 2), gradient, out=of_split[2])
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_split[0, :, :-queries] = 0
        of_split[0, :, -queries:] = torch.bmm(of_scores, key)
        torch.bmm(of_scores.transpose(1, 2), query[:, -queries:], out=of_split[1])
        tokens, per_head = split.shape[2:]
        merged = of_split.view(3, -1, num_heads, tokens, per_head).permute(1, 3, 0, 2, 4)  # (B, T, 3, H, d/H)
        return merged.reshape(merged.shape[0], tokens, -1), None, None, None
