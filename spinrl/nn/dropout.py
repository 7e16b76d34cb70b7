"""Dropout whose random numbers do not cost more than the layers around it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

_LANES = 4  # 16-bit lanes in an int64


class Dropout(nn.Module):
    """Set a share of the entries to zero in training, and scale up the rest.

    On a CPU torch draws one number an entry from a sequential generator, which took a fifth of a training step. Here
    one 64-bit draw serves four entries, each with 16 bits of it, so the share is kept to 1/65536.

    Args:
        share: of entries set to zero.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.share == 0:
            return x
        if x.is_cuda:
            return functional.dropout(x, self.share)
        bits = torch.empty(-(-x.numel() // _LANES), dtype=torch.int64).random_(-(2**63), None)
        dropped = round(self.share * 2**16)
        keep = bits.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 2**15
        # A factor in x's type takes one pass over memory forward and one backward; bytes convert faster than bools.
        factor = keep.view(torch.uint8).to(x.dtype).mul_(2**16 / (2**16 - dropped))
        return x * factor

    def extra_repr(self) -> str:
        return f"share={self.share}"
