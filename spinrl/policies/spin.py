"""SPIN: SAINT with the state encoder and blocks of a pre-trained ASM, frozen."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal, Self

import attrs
import torch
from attrs.validators import in_
from torch import nn

from spinrl.asm.model import ASM
from spinrl.nn import StateEncoder, seeded_initialization
from spinrl.policies.base import IndependentPolicy, PolicyConfig, PretrainedASM
from spinrl.registry import register
from spinrl.specs import ActionSpec


@register
@attrs.frozen(kw_only=True)
class SPIN(PolicyConfig):
    """Slot queries and heads trained on top of a frozen, pre-trained ASM.

    With both starts taken from the ASM, the policy begins as the marginal behaviour policy.

    Attributes:
        slot_queries: where the slot queries start: standard normal, or the ASM's mask tokens.
        heads: where the heads start: random, or the ASM's heads.
        train_slot_queries: False keeps the slot queries at their start, and saves the gradient through the blocks.
        frozen_dropout: whether dropout in the frozen blocks stays on in training, as in the public code.
    """

    needs_asm: ClassVar[bool] = True

    slot_queries: Literal["random", "mask_tokens"] = attrs.field(
        default="random", validator=in_(("random", "mask_tokens"))
    )
    heads: Literal["random", "asm"] = attrs.field(default="random", validator=in_(("random", "asm")))
    train_slot_queries: bool = True
    frozen_dropout: bool = True

    def build(
        self, observation_size: int, action_spec: ActionSpec, *, asm: PretrainedASM | None = None, seed: int
    ) -> SPINPolicy:
        if asm is None:
            raise ValueError("SPIN wants a pre-trained ASM, got none")
        model = asm.model
        if model.observation_size != observation_size:
            raise ValueError(
                f"SPIN wants an ASM for observations of size {observation_size}, got one for {model.observation_size}"
            )
        if model.action_spec != action_spec:
            raise ValueError(f"SPIN wants an ASM for nvec {action_spec.nvec}, got one for {model.action_spec.nvec}")
        with seeded_initialization(seed, "policy"):
            return SPINPolicy(self, model, asm.fingerprint)


class SPINPolicy(IndependentPolicy):
    """SAINT's network whose state encoder and blocks are a frozen copy of an ASM's.

    An ASM that was pre-trained without state conditioning has no state encoder to freeze; then a new one is trained.

    Args:
        config: where it starts, and what stays fixed.
        asm: the network to copy from; it is left as it is.
        fingerprint: what the ASM came from. It is part of the state dict, and loading another one is an error.
    """

    def __init__(self, config: SPIN, asm: ASM, fingerprint: str) -> None:
        super().__init__(asm.observation_size, asm.action_spec)
        self.asm_fingerprint = fingerprint
        self.frozen_dropout = config.frozen_dropout
        self.encoder = copy.deepcopy(asm.encoder).requires_grad_(False)
        queries = torch.randn(asm.action_spec.num_sub_actions, asm.config.d_model)  # (N, d)
        if config.slot_queries == "mask_tokens":
            queries = asm.mask_embeddings().detach().cpu().clone()
        self.slot_queries = nn.Parameter(queries, requires_grad=config.train_slot_queries)
        self.heads = asm.config.build_heads(asm.action_spec)
        if config.heads == "asm":
            self.heads.load_state_dict(asm.heads.state_dict())
        if self.encoder.state_encoder is None:
            self.encoder.state_encoder = StateEncoder(
                asm.observation_size, asm.config.d_model, asm.config.num_state_tokens
            )
        self.to(asm.embedding.device)
        self.train(self.training)

    def logits(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
        return self.heads(self.encoder(observation, self.slot_queries))

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.train(mode and self.frozen_dropout)
        return self

    def get_extra_state(self) -> dict[str, str]:
        """The fingerprint of the ASM, kept in the state dict."""
        return {"asm_fingerprint": self.asm_fingerprint}

    def set_extra_state(self, state: Any) -> None:
        """Check a loaded fingerprint against the ASM this policy was built on.

        Raises:
            ValueError: when they differ.
        """
        found = state.get("asm_fingerprint") if isinstance(state, dict) else None
        if found != self.asm_fingerprint:
            raise ValueError(f"these weights came from ASM {found!r}, this policy is built on {self.asm_fingerprint!r}")
