"""How long a cell trains, and when and how its policy is evaluated."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import attrs
from attrs.validators import ge, gt, in_, optional

from harness.records import PROTOCOL_FRACTIONS
from spinrl.config.registry import Component, register
from spinrl.evaluation import Estimator
from spinrl.tasks import EPISODE_STEPS


@register
@attrs.frozen(kw_only=True)
class Training(Component):
    """How long and on how much a cell's policy is trained.

    Attributes:
        gradient_steps: the budget: updates of policy, critics and value.
        batch_size: transitions per update.
        report_every: gradient steps between two logged losses.
        checkpoint_minutes: minutes between two checkpoints of a cell.
    """

    kind: ClassVar[str] = "training"

    gradient_steps: int = attrs.field(default=1_000_000, validator=ge(1))
    batch_size: int = attrs.field(default=256, validator=ge(1))
    report_every: int = attrs.field(default=100, validator=ge(1))
    checkpoint_minutes: float = attrs.field(default=10.0, validator=gt(0))


def _check_fractions(_instance: Any, _attribute: attrs.Attribute, value: tuple[float, ...]) -> None:
    if not value or any(not 0 < fraction <= 1 for fraction in value) or list(value) != sorted(set(value)):
        raise ValueError(f"fractions wants rising numbers over 0 up to 1, got {list(value)}")
    if value[-1] != 1:
        raise ValueError(f"fractions wants to end with 1.0, the whole budget, got {list(value)}")


@register
@attrs.frozen(kw_only=True)
class Evaluating(Component):
    """When and how a policy is evaluated: in the simulator where its task has one, and by estimates from data.

    Attributes:
        fractions: shares of the budget of gradient steps after which to evaluate, ending with 1.
        every_steps: evaluate also after every so many gradient steps; none for the fractions alone.
        episodes: episodes per evaluation in the simulator.
        action: sample from the policy, or take each sub-action's most likely choice (mode).
        episode_steps: control steps per episode, at most. The benchmark's is 1000; with a simulator of one's own it may
            be more, and a cell says when it cut an episode that the simulator would have gone on with.
        estimators: what is estimated from data alone; a task without a simulator wants at least one.
    """

    kind: ClassVar[str] = "evaluation"

    fractions: tuple[float, ...] = attrs.field(default=PROTOCOL_FRACTIONS, converter=tuple, validator=_check_fractions)
    every_steps: int | None = attrs.field(default=None, validator=optional(ge(1)))
    episodes: int = attrs.field(default=10, validator=ge(1))
    action: Literal["sample", "mode"] = attrs.field(default="sample", validator=in_(("sample", "mode")))
    episode_steps: int = attrs.field(default=EPISODE_STEPS, validator=ge(1))
    estimators: tuple[Estimator, ...] = attrs.field(default=(), converter=tuple)

    @estimators.validator
    def _check_estimators(self, _attribute: attrs.Attribute, value: tuple[Estimator, ...]) -> None:
        names = [estimator.metric for estimator in value]
        if len(set(names)) < len(names):
            raise ValueError(f"estimators wants each once, got {names}")

    def marks(self, gradient_steps: int) -> dict[int, float]:
        """Gradient step → fraction of the budget of every evaluation, rising."""
        steps = {max(1, round(fraction * gradient_steps)): fraction for fraction in self.fractions}
        if self.every_steps:
            for step in range(self.every_steps, gradient_steps, self.every_steps):
                steps.setdefault(step, step / gradient_steps)
        return dict(sorted(steps.items()))
