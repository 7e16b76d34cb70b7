"""Dropout with cheap random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

_LANES = 4  # 16-bit lanes in an int64


class Dropout(nn.Module):
    """Set a share of the entries to zero in training, and scale up the rest.

    On a CPU torch draws one number an entry from a sequential generator, which took a fifth of a training step. Here
    one 64-bit draw serves four entries, each with 16 bits of it, so the share is kept to 1/65536.

    Args:
        share: share of entries set to zero.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor = self.factor(x.shape, x)
        return x if factor is None else x * factor

    def add(self, x: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """x + dropout(change), in one pass over memory."""
        factor = self.factor(change.shape, x)
        return x + change if factor is None else torch.addcmul(x, change.to(x.dtype), factor)

    def factor(self, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor | None:
        """Zeros and 1/(1 − share), of `shape`, in the type and on the device of `like`; None where nothing drops."""
        if not self.training or self.share == 0:
            return None
        if like.is_cuda:
            kept = torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(1 - self.share)
            return kept.div_(1 - self.share)
        count = int(torch.Size(shape).numel())
        bits = torch.empty(-(-count // _LANES), dtype=torch.int64).random_(-(2**63), None)
        dropped = round(self.share * 2**16)
        keep = bits.view(torch.int16)[:count].view(shape) >= dropped - 2**15
        # Bytes convert faster than bools.
        return keep.view(torch.uint8).to(like.dtype).mul_(2**16 / (2**16 - dropped))

    def extra_repr(self) -> str:
        return f"share={self.share}"
