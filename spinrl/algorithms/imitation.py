"""A start for policies: plain imitation of the dataset, as many supervised steps as an ASM has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import attrs
import torch
from attrs.validators import ge, gt, in_, optional
from tensordict import TensorDictBase
from torch import nn

from spinrl.algorithms.base import Algorithm
from spinrl.algorithms.starts import Losses, SupervisedStart
from spinrl.config.registry import register
from spinrl.data import Store


@register
@attrs.frozen(kw_only=True)
class Imitation(SupervisedStart):
    """The policy by likelihood of the dataset's actions: the fair control of the steps that an ASM has.

    Attributes:
        steps: gradient steps.
        batch_size: transitions per step, drawn with replacement.
        learning_rate: Adam's, at the start; none for the algorithm's own.
        schedule: constant, or cosine down to zero.
        max_gradient_norm: gradients are clipped to this norm; none leaves them as they are.
        report_every: steps between two reported losses.
    """

    kind: ClassVar[str] = "warm_start"
    seed_name: ClassVar[str] = "imitation"

    steps: int = attrs.field(default=4000, validator=ge(1))
    schedule: Literal["constant", "cosine"] = attrs.field(default="cosine", validator=in_(("constant", "cosine")))
    max_gradient_norm: float | None = attrs.field(default=1.0, validator=optional(gt(0)))  # type: ignore[arg-type]

    def modules(self, algorithm: Algorithm) -> dict[str, nn.Module]:
        return {"policy": algorithm.policy}

    def losses(self, algorithm: Algorithm, store: Store) -> Losses:
        def losses_of(batch: TensorDictBase, index: torch.Tensor) -> Mapping[str, torch.Tensor]:
            return {"loss_imitation": -algorithm.policy_log_prob(batch).mean()}

        return losses_of

    def follows_policy(self, algorithm: Algorithm) -> bool:
        return True

    def depends_on(self, algorithm: Algorithm) -> dict[str, Any]:
        return {"learning_rate": self._rate(algorithm)}
