"""SAINT: learned slot queries that attend to the state and to one another, trained from scratch."""

from __future__ import annotations

import attrs
import torch
from torch import nn

from spinrl.asm.model import ASMEncoder
from spinrl.config.registry import register
from spinrl.nn import seeded_initialization
from spinrl.policies.base import IndependentPolicy, PolicyConfig, PretrainedASM
from spinrl.specs import ActionSpec


@register
@attrs.frozen(kw_only=True)
class SAINT(PolicyConfig):
    """Learned slot queries that attend to the state and to one another, trained from scratch.

    Attributes:
        encoder: sizes of its state encoder, blocks and heads: those of an ASM.
    """

    encoder: ASMEncoder = attrs.field(factory=ASMEncoder, validator=attrs.validators.instance_of(ASMEncoder))

    @encoder.validator
    def _sees_the_state(self, _attribute: attrs.Attribute, value: ASMEncoder) -> None:
        if not value.state_conditioning:
            raise ValueError("SAINT.encoder needs state_conditioning=True: nothing else tells the policy the state")

    def build(
        self, observation_size: int, action_spec: ActionSpec, *, asm: PretrainedASM | None = None, seed: int
    ) -> SAINTPolicy:
        with seeded_initialization(seed, "policy"):
            return SAINTPolicy(self, observation_size, action_spec)


class SAINTPolicy(IndependentPolicy):
    """The ASM's network with N learned slot queries in place of embedded sub-actions."""

    def __init__(self, config: SAINT, observation_size: int, action_spec: ActionSpec) -> None:
        super().__init__(observation_size, action_spec)
        self.slot_queries = nn.Parameter(torch.randn(action_spec.num_sub_actions, config.encoder.d_model))  # (N, d)
        self.encoder = config.encoder.build_blocks(observation_size)
        self.heads = config.encoder.build_heads(action_spec)

    def logits(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
        return self.heads(self.encoder(observation, self.slot_queries))
