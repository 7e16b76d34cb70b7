"""State tokens and slots through a stack of blocks, shared by the ASM, SAINT and SPIN."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from spinrl.nn.standardizer import Standardizer
from spinrl.nn.transformer import TransformerBlock


class StateEncoder(nn.Sequential):
    """Observation (B, S) → state tokens (B, M, d): Linear S→W, GELU, Linear W→M·d; the paper's W is 2d."""

    def __init__(self, observation_size: int, d_model: int, num_state_tokens: int, width: int | None = None) -> None:
        width = 2 * d_model if width is None else width
        super().__init__(
            nn.Linear(observation_size, width),
            nn.GELU(),
            nn.Linear(width, num_state_tokens * d_model),
            nn.Unflatten(-1, (num_state_tokens, d_model)),
        )


class SlotEncoder(nn.Module):
    """Contextual slot embeddings (B, N, d) from an observation and one token per sub-action.

    The tokens come as rows of a table, because there are few different ones: what the first block computes from a
    token alone is done once a row instead of once a sample. In the last block, state tokens are keys and values only.

    Args:
        observation_size: S.
        d_model: width of a token.
        num_heads: attention heads of every block.
        num_blocks: L, at least 1.
        num_state_tokens: M.
        state_width: W, width of the state encoder's hidden layer; None for 2d.
        dropout: share of activations set to zero in every block in training.
        state_conditioning: whether there are state tokens.
    """

    def __init__(
        self,
        observation_size: int,
        *,
        d_model: int,
        num_heads: int,
        num_blocks: int,
        num_state_tokens: int,
        state_width: int | None = None,
        dropout: float,
        state_conditioning: bool = True,
    ) -> None:
        super().__init__()
        self.observation_size = observation_size
        self.num_heads = num_heads
        self.standardizer = Standardizer(observation_size)
        self.state_encoder = (
            StateEncoder(observation_size, d_model, num_state_tokens, state_width) if state_conditioning else None
        )
        self.blocks = nn.ModuleList(TransformerBlock(d_model, num_heads, dropout) for _ in range(num_blocks))

    def forward(
        self,
        observation: torch.Tensor,
        table: torch.Tensor,
        index: torch.Tensor | None = None,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Slot embeddings.

        Args:
            observation: (B, S).
            table: (R, d), the different tokens.
            index: (B, N), the table row of each slot; None when slot i is row i for the whole batch.
            rows: (N, C), for each slot the samples whose embeddings are returned; None for all of them.

        Returns:
            (B, N, d), or (N, C, d) when `rows` is given.
        """
        batch, device = observation.shape[0], observation.device
        if index is None:
            index = torch.arange(table.shape[0], device=device).expand(batch, -1)
        num_slots = index.shape[1]
        if self.state_encoder is not None:
            # State tokens join the table, so that one look-up gathers all of a sample's tokens.
            state = self.state_encoder(self.standardizer(observation))  # (B, M, d)
            first = state.shape[0] * state.shape[1]
            own = torch.arange(first, device=device).view(state.shape[:2])  # (B, M)
            table = torch.cat([state.flatten(0, 1).to(table.dtype), table])
            index = torch.cat([own, index + first], dim=1)
        x = functional.embedding(index, table)  # (B, M+N, d)
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, TransformerBlock)
            if layer == 0 and table.shape[0] < index.numel():
                projected = functional.embedding(index, block.project(table))  # (B, M+N, 3d)
            else:
                projected = block.project(x)
            if layer < last:
                x = block.finish(x, block.mix(projected))
                continue
            x, context = x[:, -num_slots:], block.mix(projected, num_slots)  # (B, N, d)
            if rows is not None:
                flat = rows * num_slots + torch.arange(num_slots, device=device)[:, None]  # (N, C)
                x, context = (functional.embedding(flat, part.flatten(0, 1)) for part in (x, context))  # (N, C, d)
            x = block.finish(x, context)
        return x
