"""The action structure model (ASM): predicts masked sub-actions from the state and the other sub-actions."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from attrs.validators import ge, gt, lt, optional
from torch import nn

from spinrl.config.registry import Component, register
from spinrl.nn import SlotEncoder, StackedHeads, seeded_initialization
from spinrl.specs import ActionSpec


@register
@attrs.frozen(kw_only=True)
class ASMEncoder(Component):
    """Sizes of the action structure model, and of the SAINT encoder of the same shape.

    Attributes:
        d_model: width of a token.
        num_heads: attention heads of every block; divides d_model.
        num_blocks: transformer blocks.
        num_state_tokens: tokens that the observation becomes.
        state_width: width of the state encoder's hidden layer; none for the published 2 · d_model.
        dropout: share set to zero in training, in blocks and heads.
        head_width: width of the hidden layer of every sub-action's head.
        state_conditioning: False leaves the state tokens out, so that only the other sub-actions are seen.
    """

    kind: ClassVar[str] = "encoder"

    d_model: int = attrs.field(default=256, validator=gt(0))
    num_heads: int = attrs.field(default=4, validator=gt(0))
    num_blocks: int = attrs.field(default=3, validator=gt(0))
    num_state_tokens: int = attrs.field(default=1, validator=gt(0))
    state_width: int | None = attrs.field(default=None, validator=optional(gt(0)))
    dropout: float = attrs.field(default=0.1, validator=[ge(0), lt(1)])
    head_width: int = attrs.field(default=128, validator=gt(0))
    state_conditioning: bool = True

    def __attrs_post_init__(self) -> None:
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model has to be a multiple of num_heads, got {self.d_model} and {self.num_heads}")

    def build(self, observation_size: int, action_spec: ActionSpec, *, seed: int) -> ASM:
        """An ASM with fresh weights from the named child seed."""
        with seeded_initialization(seed, "asm"):
            return ASM(self, observation_size, action_spec)

    def build_blocks(self, observation_size: int) -> SlotEncoder:
        """The state encoder and blocks alone."""
        return SlotEncoder(
            observation_size,
            d_model=self.d_model,
            num_heads=self.num_heads,
            num_blocks=self.num_blocks,
            num_state_tokens=self.num_state_tokens,
            state_width=self.state_width,
            dropout=self.dropout,
            state_conditioning=self.state_conditioning,
        )

    def build_heads(self, action_spec: ActionSpec) -> StackedHeads:
        """The heads alone."""
        return StackedHeads(action_spec, self.d_model, hidden=self.head_width, dropout=self.dropout)


class ASM(nn.Module):
    """The ASM network (arXiv 2601.04441, stage 1).

    A token of sub-action i is a choice 0..m_i-1, or m_i: the mask token.

    Args:
        config: its sizes.
        observation_size: S.
        action_spec: the action's shape.
    """

    offsets: torch.Tensor
    mask_token: torch.Tensor

    def __init__(self, config: ASMEncoder, observation_size: int, action_spec: ActionSpec) -> None:
        super().__init__()
        self.config = config
        self.observation_size = observation_size
        self.action_spec = action_spec
        counts = torch.tensor(action_spec.nvec)
        self.register_buffer("mask_token", counts, persistent=False)  # (N,)
        self.register_buffer("offsets", (counts + 1).cumsum(0) - counts - 1, persistent=False)  # (N,)
        # One table for all sub-actions: m_i + 1 rows each, the mask token's last. (R, d)
        self.embedding = nn.Parameter(torch.randn(sum(action_spec.nvec) + len(action_spec.nvec), config.d_model))
        self.encoder = config.build_blocks(observation_size)
        self.heads = config.build_heads(action_spec)

    def forward(self, observation: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of every sub-action: (B, S), (B, N) → (B, N, K), -inf where a sub-action has fewer choices."""
        return self.heads(self.slot_embeddings(observation, tokens))

    def slot_embeddings(self, observation: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """What the heads see: (B, S), (B, N) → (B, N, d)."""
        return self.encoder(observation, self.embedding, tokens + self.offsets)

    def logits_at(
        self, observation: torch.Tensor, tokens: torch.Tensor, chosen: torch.Tensor, *, everywhere: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits where `chosen` is True, without finishing the last block for the rest, unless `everywhere`.

        Args:
            observation: (B, S).
            tokens: (B, N).
            chosen: (B, N) bool.
            everywhere: finish every token, so that shapes do not depend on data and the device is not waited for.

        Returns:
            logits (N, C, K), the sample of each (N, C) int64, and whether it was chosen (N, C): C is the largest
            number of chosen samples of any sub-action, or B, and the others are filled up.
        """
        if everywhere:
            real, rows = chosen.t(), torch.arange(len(chosen), device=chosen.device).expand(chosen.shape[1], -1)
        else:
            most = int(chosen.sum(0).max())
            # Chosen samples first, the rest in whatever order fills up.
            real, rows = chosen.t().to(torch.uint8).topk(most, dim=1)  # (N, C)
        embeddings = self.encoder(observation, self.embedding, tokens + self.offsets, rows)  # (N, C, d)
        return self.heads.slot_major(embeddings), rows, real.bool()

    def mask_embeddings(self) -> torch.Tensor:
        """The mask token's embedding of every sub-action, (N, d)."""
        return self.embedding[self.offsets + self.mask_token]
