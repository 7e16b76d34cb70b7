"""SPIN: SAINT with the state encoder and blocks of a pre-trained ASM, frozen."""

from __future__ import annotations

import copy
import hashlib
from typing import Any, ClassVar, Literal, Self

import attrs
import torch
from attrs.validators import ge, in_, le
from torch import nn

from spinrl.asm.model import ASM, ASMEncoder
from spinrl.config.registry import register
from spinrl.nn import StateEncoder, seeded_initialization
from spinrl.policies.base import FrozenInput, IndependentPolicy, PolicyConfig, PretrainedASM
from spinrl.specs import ActionSpec


@register
@attrs.frozen(kw_only=True)
class SPIN(PolicyConfig):
    """Slot queries and heads trained on top of a frozen, pre-trained ASM.

    With both starts taken from the ASM, the policy begins as the marginal behaviour policy.

    Attributes:
        slot_queries: where the slot queries start: standard normal, or the ASM's mask tokens.
        heads: where the heads start: random, or the ASM's heads.
        query_share: share of the training budget for which the slot queries are trained, after which they are fixed.
            0 keeps them at their start; fixed ones save the gradient through the blocks.
        frozen_share: share of the training budget for which the ASM's part stays frozen; 1 is for ever.
        frozen_dropout: whether dropout in the frozen blocks stays on in training, as in the public code; an ASM with
            ASMEncoder.dropout=0 has none to leave on.
        cached: once the queries are fixed, compute the slot embeddings of the whole dataset and train heads on them.
    """

    needs_asm: ClassVar[bool] = True

    slot_queries: Literal["random", "mask_tokens"] = attrs.field(
        default="random", validator=in_(("random", "mask_tokens"))
    )
    heads: Literal["random", "asm"] = attrs.field(default="random", validator=in_(("random", "asm")))
    query_share: float = attrs.field(default=1.0, validator=[ge(0), le(1)])
    frozen_share: float = attrs.field(default=1.0, validator=[ge(0), le(1)])
    frozen_dropout: bool = True
    cached: bool = False

    def __attrs_post_init__(self) -> None:
        fixed = (
            ("query_share", "below 1", self.query_share < 1),
            ("frozen_share", "1", self.frozen_share == 1),
            ("frozen_dropout", "False", not self.frozen_dropout),
        )
        for field, wanted, holds in fixed if self.cached else ():
            if not holds:
                raise ValueError(
                    f"cached=True needs {field} to be {wanted}, got {getattr(self, field)}: slot embeddings that "
                    "change in training cannot be computed once"
                )

    def build(
        self, observation_size: int, action_spec: ActionSpec, *, asm: PretrainedASM | None = None, seed: int
    ) -> SPINPolicy:
        if asm is None:
            raise ValueError("SPIN needs a pre-trained ASM, got none")
        model = asm.model
        if model.observation_size != observation_size:
            raise ValueError(
                f"SPIN needs an ASM for observations of size {observation_size}, got one for {model.observation_size}"
            )
        if model.action_spec != action_spec:
            raise ValueError(f"SPIN needs an ASM for nvec {action_spec.nvec}, got one for {model.action_spec.nvec}")
        self.frozen_shape(model.config, action_spec)  # refuses what cannot be fixed
        with seeded_initialization(seed, "policy"):
            return SPINPolicy(self, model, asm.fingerprint)

    @property
    def starts_as_asm(self) -> bool:
        return self.slot_queries == "mask_tokens" and self.heads == "asm"

    def frozen_shape(self, encoder: ASMEncoder, action_spec: ActionSpec) -> tuple[int, ...] | None:
        if not self.cached:
            return None
        if not encoder.state_conditioning:
            raise ValueError(
                "SPIN.cached=True needs ASMEncoder.state_conditioning=True: without it, SPIN trains a state encoder "
                "of its own, and slot embeddings cannot be computed once; set SPIN.cached=False"
            )
        return action_spec.num_sub_actions, encoder.d_model


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
        self.config = config
        self.asm_fingerprint = fingerprint
        self.encoder = copy.deepcopy(asm.encoder)
        given = dict(asm.encoder.named_parameters())
        queries = torch.randn(asm.action_spec.num_sub_actions, asm.config.d_model)  # (N, d)
        if config.slot_queries == "mask_tokens":
            queries = asm.mask_embeddings().detach().cpu().clone()
        self.slot_queries = nn.Parameter(queries)
        self.heads = asm.config.build_heads(asm.action_spec)
        if config.heads == "asm":
            self.heads.load_state_dict(asm.heads.state_dict())
        if self.encoder.state_encoder is None:
            self.encoder.state_encoder = StateEncoder(
                asm.observation_size, asm.config.d_model, asm.config.num_state_tokens, asm.config.state_width
            )
        self._from_asm = [parameter for name, parameter in self.encoder.named_parameters() if name in given]
        self.to(asm.embedding.device)
        self.set_trained_parts(0.0)

    def logits(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
        """As every policy's; in place of an observation (B, S) its slot embeddings (B, N, d) may be given."""
        embeddings = observation if observation.dim() == 3 else self._embed(observation)
        return self.heads(embeddings.to(self.heads.weight.dtype))

    def _embed(self, observation: torch.Tensor) -> torch.Tensor:
        """Slot embeddings: (B, S) → (B, N, d)."""
        return self.encoder(observation, self.slot_queries)

    @property
    def milestones(self) -> tuple[float, ...]:
        shares = {self.config.query_share, self.config.frozen_share}
        return tuple(sorted(share for share in shares if 0 < share < 1))

    def set_trained_parts(self, share: float) -> None:
        config = self.config
        self.slot_queries.requires_grad_(share < config.query_share)
        self._unfrozen = config.frozen_share < 1 and share >= config.frozen_share
        for parameter in self._from_asm:
            parameter.requires_grad_(self._unfrozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.train(mode and (self.config.frozen_dropout or self._unfrozen))
        return self

    def frozen_input(self) -> FrozenInput | None:
        if not self.config.cached or self.slot_queries.requires_grad:
            return None
        queries = self.slot_queries.detach().cpu().contiguous()
        # Of the weights themselves: an ASM that is made again, of the same fingerprint, differs in its last bits.
        digest = hashlib.sha256()
        for tensor in (queries, *self.encoder.state_dict().values()):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return FrozenInput(
            encode=self._embed,
            shape=tuple(queries.shape),
            identity=f"{self.asm_fingerprint} {digest.hexdigest()}",
            shared=self.config.query_share == 0,
        )

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
