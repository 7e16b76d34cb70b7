"""When and how the policy of a cell is evaluated."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import attrs
from attrs.validators import ge, in_, optional

from harness.records import PROTOCOL_FRACTIONS
from spinrl.config.registry import Component, register
from spinrl.evaluation import Estimator
from spinrl.tasks import EPISODE_STEPS


def _check_shares(_instance: Any, attribute: attrs.Attribute, value: tuple[float, ...]) -> None:
    if any(not 0 < share <= 1 for share in value) or list(value) != sorted(set(value)):
        raise ValueError(f"{attribute.name} has to be rising numbers over 0 and up to 1, got {list(value)}")


def _check_fractions(instance: Any, attribute: attrs.Attribute, value: tuple[float, ...]) -> None:
    _check_shares(instance, attribute, value)
    if not value or value[-1] != 1:
        raise ValueError(f"fractions has to end with 1.0, the whole budget, got {list(value)}")


@register
@attrs.frozen(kw_only=True)
class Evaluating(Component):
    """When and how a policy is evaluated: in the simulator where its task has one, and by estimates from data.

    Attributes:
        fractions: shares of the budget of gradient steps after which to evaluate, ending with 1.
        every_steps: gradient steps between further evaluations; None evaluates at the fractions only.
        episodes: episodes per evaluation in the simulator.
        final_episodes: episodes of the evaluation at the full budget; None takes `episodes`.
        during_pretraining: shares of the ASM pre-training, over 0 and up to 1, at which a policy that starts as the ASM
            is evaluated before its training; seconds are those of the pre-training so far.
        action: choice of actions: a sample from the policy, or each sub-action's most likely choice (mode).
        episode_steps: most control steps per episode. Episodes of the benchmark have 1000; a user's own simulator may
            allow more, and a cell reports when it cut an unfinished episode.
        pictures: whether the last evaluation's first episode is drawn, as a strip of eight pictures: of a task of the
            benchmark where EGL or OSMesa is installed, or of an environment of Gymnasium that has pictures.
        estimators: estimators of the return from data alone; a task without a simulator needs at least one.
    """

    kind: ClassVar[str] = "evaluation"

    fractions: tuple[float, ...] = attrs.field(default=PROTOCOL_FRACTIONS, converter=tuple, validator=_check_fractions)
    every_steps: int | None = attrs.field(default=None, validator=optional(ge(1)))
    episodes: int = attrs.field(default=10, validator=ge(1))
    final_episodes: int | None = attrs.field(default=None, validator=optional(ge(1)))
    during_pretraining: tuple[float, ...] = attrs.field(default=(), converter=tuple, validator=_check_shares)
    action: Literal["sample", "mode"] = attrs.field(default="sample", validator=in_(("sample", "mode")))
    episode_steps: int = attrs.field(default=EPISODE_STEPS, validator=ge(1))
    pictures: bool = False
    estimators: tuple[Estimator, ...] = attrs.field(default=(), converter=tuple)

    @estimators.validator
    def _check_estimators(self, _attribute: attrs.Attribute, value: tuple[Estimator, ...]) -> None:
        names = [estimator.metric for estimator in value]
        if len(set(names)) < len(names):
            raise ValueError(f"estimators has to hold each class once, got {names}")

    def episodes_at(self, fraction: float) -> int:
        """Episodes of the evaluation at a share of the budget."""
        return self.final_episodes or self.episodes if fraction >= 1 else self.episodes

    def marks(self, gradient_steps: int) -> dict[int, float]:
        """Gradient step → fraction of the budget, for every evaluation in rising order."""
        steps = {max(1, round(fraction * gradient_steps)): fraction for fraction in self.fractions}
        if self.every_steps:
            for step in range(self.every_steps, gradient_steps, self.every_steps):
                steps.setdefault(step, step / gradient_steps)
        return dict(sorted(steps.items()))
