"""How long and on how much a policy is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import attrs
from attrs.validators import ge, gt, optional

from spinrl.config.registry import Component, register


@register
@attrs.frozen(kw_only=True)
class Training(Component):
    """How long and on how much a cell's policy is trained.

    Attributes:
        gradient_steps: the budget: updates of policy, critics and value.
        batch_size: transitions per update.
        report_every: gradient steps between two logged losses.
        checkpoint_minutes: minutes between two checkpoints of a cell.
        patience: end a cell early when so many evaluations in a row have a mean return no higher than the best one
            before them; none trains to the end of the budget.
    """

    kind: ClassVar[str] = "training"

    gradient_steps: int = attrs.field(default=1_000_000, validator=ge(1))
    batch_size: int = attrs.field(default=256, validator=ge(1))
    report_every: int = attrs.field(default=100, validator=ge(1))
    checkpoint_minutes: float = attrs.field(default=10.0, validator=gt(0))
    patience: int | None = attrs.field(default=None, validator=optional(ge(1)))

    def ends(self, means: Sequence[float]) -> bool:
        """Whether training ends after the evaluations of these mean returns, in order."""
        if self.patience is None or len(means) <= self.patience:
            return False
        return max(means[-self.patience :]) <= max(means[: -self.patience])
