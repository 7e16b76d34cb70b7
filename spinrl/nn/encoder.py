"""State tokens and slots through a stack of blocks: what the ASM, SAINT and SPIN have in common."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from spinrl.nn.transformer import TransformerBlock


class StateEncoder(nn.Sequential):
    """Observation (B, S) → state tokens (B, M, d): Linear S→2d, GELU, Linear 2d→M·d."""

    def __init__(self, observation_size: int, d_model: int, num_state_tokens: int) -> None:
        super().__init__(
            nn.Linear(observation_size, 2 * d_model),
            nn.GELU(),
            nn.Linear(2 * d_model, num_state_tokens * d_model),
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
        dropout: of every block.
        state_conditioning: whether there are state tokens at all.
    """

    def __init__(
        self,
        observation_size: int,
        *,
        d_model: int,
        num_heads: int,
        num_blocks: int,
        num_state_tokens: int,
        dropout: float,
        state_conditioning: bool = True,
    ) -> None:
        super().__init__()
        self.observation_size = observation_size
        self.state_encoder = StateEncoder(observation_size, d_model, num_state_tokens) if state_conditioning else None
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
            rows: (N, C), for each slot the samples whose embedding is wanted; None for all of them.

        Returns:
            (B, N, d), or (N, C, d) when `rows` is given.
        """
        batch = observation.shape[0]
        slots = _look_up(table, index, batch)  # (B, N, d)
        num_slots = slots.shape[1]
        state = self.state_encoder(observation) if self.state_encoder is not None else slots[:, :0]  # (B, M, d)
        x = torch.cat([state, slots], dim=1)  # (B, M+N, d)
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, TransformerBlock)
            if layer == 0 and table.shape[0] < batch * num_slots:
                shared = _look_up(block.project(table), index, batch)  # (B, N, 3d)
                projected = torch.cat([block.project(state), shared], dim=1)
            else:
                projected = block.project(x)  # (B, M+N, 3d)
            if layer < last:
                x = block.finish(x, block.mix(projected))
                continue
            x, context = x[:, -num_slots:], block.mix(projected, num_slots)  # (B, N, d)
            if rows is not None:
                columns = torch.arange(num_slots, device=rows.device)[:, None]
                x, context = x[rows, columns], context[rows, columns]  # (N, C, d)
            x = block.finish(x, context)
        return x


def _look_up(table: torch.Tensor, index: torch.Tensor | None, batch: int) -> torch.Tensor:
    """(R, c) → (B, N, c)."""
    return table.expand(batch, *table.shape) if index is None else functional.embedding(index, table)
