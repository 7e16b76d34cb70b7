"""Slots through the blocks where the slots are the same for every observation, as acting has them."""

from __future__ import annotations

import torch
from torch import nn

from spinrl.nn.encoder import SlotEncoder
from spinrl.nn.transformer import TransformerBlock


class FoldedBlock(TransformerBlock):
    """A block with a precomputed projection, for trained networks.

    Args:
        block: block whose projection is copied; its other layers are shared.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, block: TransformerBlock) -> None:
        nn.Module.__init__(self)
        weight, bias = block.projection()
        self.register_buffer("weight", weight.detach().clone())  # (3d, d)
        self.register_buffer("bias", bias.detach().clone())  # (3d,)
        self.num_heads = block.num_heads
        self.out, self.norm_ffn = block.out, block.norm_ffn
        self.ffn_in, self.ffn_out = block.ffn_in, block.ffn_out
        self.dropout = block.dropout

    def projection(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.weight, self.bias


class FoldedSlots(nn.Module):
    """A `SlotEncoder` with fixed slots: (B, S) → (B, N, d).

    The first block's projection of the slots does not depend on the observation, so it is precomputed.

    Args:
        encoder: trained encoder.
        slots: (N, d) slot tokens.

    Raises:
        ValueError: when the encoder has no state encoder: then nothing would depend on the observation.
    """

    slots: torch.Tensor
    projected: torch.Tensor

    def __init__(self, encoder: SlotEncoder, slots: torch.Tensor) -> None:
        super().__init__()
        if encoder.state_encoder is None:
            raise ValueError("an encoder without state encoder cannot be folded")
        self.standardizer = encoder.standardizer
        self.state_encoder = encoder.state_encoder
        self.num_heads = encoder.num_heads
        self.blocks = nn.ModuleList(
            FoldedBlock(block) for block in encoder.blocks if isinstance(block, TransformerBlock)
        )
        self.register_buffer("slots", slots.detach().clone())  # (N, d)
        with torch.no_grad():
            self.register_buffer("projected", self._block(0).project(self.slots))  # (N, 3d)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Slot embeddings."""
        batch, num_slots = observation.shape[0], self.slots.shape[0]
        state = self.state_encoder(self.standardizer(observation))  # (B, M, d)
        x = torch.cat([state, self.slots.expand(batch, -1, -1)], dim=1)  # (B, M+N, d)
        first = self._block(0)
        projected = torch.cat([first.project(state), self.projected.expand(batch, -1, -1)], dim=1)
        last = len(self.blocks) - 1
        for layer in range(last):
            block = self._block(layer)
            x = block.finish(x, block.mix(projected))
            projected = self._block(layer + 1).project(x)
        block = self._block(last)
        return block.finish(x[:, -num_slots:], block.mix(projected, num_slots))

    def _block(self, layer: int) -> FoldedBlock:
        block = self.blocks[layer]
        assert isinstance(block, FoldedBlock)
        return block
