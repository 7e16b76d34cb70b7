"""Choosing the sub-actions that the ASM has to predict, and what it sees in their place."""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs
import torch
from attrs.validators import ge, gt, in_, le
from torch.nn import functional

from spinrl.asm.model import ASM
from spinrl.config.registry import Component, register
from spinrl.nn import forbid

_PROBABILITY = 0.15  # the paper's


@register
@attrs.frozen(kw_only=True)
class Masking(Component):
    """Which sub-actions are to be predicted, and what stands in their place (arXiv 2601.04441, stage 1).

    What is neither masked nor replaced stays as it is.

    Attributes:
        share: fixed: every sub-action is chosen with the same probability; per_sample: each sample draws its own
            share uniformly, so that the fully masked action is familiar.
        probability: with which a sub-action is chosen where the share is fixed.
        least: the smallest share that a sample draws.
        mask: share of the chosen ones that become the mask token.
        random: share of the chosen ones that become a uniformly random choice.
    """

    kind: ClassVar[str] = "masking"

    share: Literal["fixed", "per_sample"] = attrs.field(default="fixed", validator=in_(("fixed", "per_sample")))
    probability: float = attrs.field(default=_PROBABILITY, validator=[gt(0), le(1)])
    least: float = attrs.field(default=0.0, validator=[ge(0), le(1)])
    mask: float = attrs.field(default=0.8, validator=[ge(0), le(1)])
    random: float = attrs.field(default=0.1, validator=[ge(0), le(1)])

    def __attrs_post_init__(self) -> None:
        # What would change nothing is refused: it would be taken for an ablation that has no effect.
        if self.share == "per_sample" and self.probability != _PROBABILITY:
            raise ValueError("probability changes nothing where share is per_sample: least is what counts there")
        if self.share == "fixed" and self.least:
            raise ValueError(
                "least changes nothing where share is fixed, and has to be 0: probability is what counts there"
            )
        if self.mask + self.random > 1 + 1e-9:
            raise ValueError(f"random has to be at most 1 - mask, got mask {self.mask} and random {self.random}")

    def apply(
        self, action: torch.Tensor, nvec: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw a mask.

        Args:
            action: (B, N) int64.
            nvec: (N,) int64 numbers of choices; the mask token of sub-action i is nvec[i].
            generator: on the action's device.

        Returns:
            tokens (B, N) that the ASM sees, and chosen (B, N) bool, at least one of them True.
        """

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=generator, device=action.device)

        rows, slots = action.shape
        share = self.least + (1 - self.least) * uniform(rows, 1) if self.share == "per_sample" else self.probability
        draw = uniform(rows, slots)
        chosen = draw < share
        # The entry with the smallest draw is chosen even when none would be; indexing by it would ask the device.
        chosen.view(-1).scatter_(0, draw.argmin().view(1), True)
        what = uniform(rows, slots)
        other = (uniform(rows, slots) * nvec).long().clamp_max(nvec - 1)
        seen = torch.where(what < self.mask, nvec, torch.where(what < self.mask + self.random, other, action))
        return torch.where(chosen, seen, action), chosen


def masked_prediction(
    model: ASM,
    masking: Masking,
    observation: torch.Tensor,
    action: torch.Tensor,
    generator: torch.Generator,
    allowed: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy, averaged over the chosen entries of the whole batch, and the share of them predicted right.

    Args:
        model: the ASM.
        masking: how entries are chosen.
        observation: (B, S).
        action: (B, N).
        generator: for the masking.
        allowed: (B, N, K) bool, the choices among which the ASM has to predict; None for all. What stands in the place
            of a chosen entry is noise, and may be any choice.
    """
    tokens, chosen = masking.apply(action, model.mask_token, generator)
    # A GPU is not asked how many were chosen: waiting for the answer takes longer than finishing every token.
    logits, rows, real = model.logits_at(observation, tokens, chosen, everywhere=chosen.is_cuda)  # (N, C, K), (N, C) x2
    if allowed is not None:
        logits = forbid(logits, allowed[rows, torch.arange(len(rows), device=rows.device)[:, None]])
    return masked_cross_entropy(logits.float(), action.t().gather(1, rows), real)


def masked_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, counted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy, and accuracy, of (..., K) logits against (...) targets where `counted` is True."""
    each = functional.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none")
    weight = counted.flatten().to(each.dtype)
    right = (logits.detach().argmax(-1) == target) & counted
    return (each * weight).sum() / weight.sum(), right.sum() / weight.sum()
