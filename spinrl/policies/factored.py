"""The factored policy: independent sub-actions from one MLP."""

from __future__ import annotations

import attrs
import torch
from attrs.validators import deep_iterable, ge, gt, lt

from spinrl.config.registry import register
from spinrl.nn import MLP, StackedHeads, Standardizer, seeded_initialization
from spinrl.policies.base import IndependentPolicy, PolicyConfig, PretrainedASM
from spinrl.specs import ActionSpec


@register
@attrs.frozen(kw_only=True)
class Factored(PolicyConfig):
    """Independent sub-actions from one MLP, blind to how they go together.

    Attributes:
        hidden: widths of the hidden layers.
        dropout: share of hidden activations set to zero in training.
    """

    hidden: tuple[int, ...] = attrs.field(default=(256, 256), converter=tuple, validator=deep_iterable(gt(0)))
    dropout: float = attrs.field(default=0.1, validator=[ge(0), lt(1)])

    def build(
        self, observation_size: int, action_spec: ActionSpec, *, asm: PretrainedASM | None = None, seed: int
    ) -> FactoredPolicy:
        with seeded_initialization(seed, "policy"):
            return FactoredPolicy(self, observation_size, action_spec)


class FactoredPolicy(IndependentPolicy):
    """MLP S→hidden (ReLU, dropout), then one linear head per sub-action."""

    def __init__(self, config: Factored, observation_size: int, action_spec: ActionSpec) -> None:
        super().__init__(observation_size, action_spec)
        self.standardizer = Standardizer(observation_size)
        sizes = [observation_size, *config.hidden]
        self.trunk = MLP(sizes, dropout=config.dropout, activate_last=True)
        self.heads = StackedHeads(action_spec, sizes[-1])

    def logits(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
        return self.heads(self.trunk(self.standardizer(observation)))
