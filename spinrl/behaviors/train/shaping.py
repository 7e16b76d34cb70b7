"""Bonuses added to a task's reward while a behaviour policy is trained on it."""

from __future__ import annotations

from typing import ClassVar

import attrs
import numpy as np
from attrs.validators import deep_iterable, ge, gt

from spinrl.config.registry import Component, register


class ShapingConfig(Component):
    """Base of kind "shaping"."""

    kind: ClassVar[str] = "shaping"

    def bonus(self, observation: np.ndarray) -> float:
        """Reward added to the task's own for an (S,) observation, while training a behaviour policy only."""
        raise NotImplementedError


@register
@attrs.frozen(kw_only=True)
class Upright(ShapingConfig):
    """Reward for a high head and an upright torso, growing linearly where the task's own reward is still flat.

    Attributes:
        weight: bonus per step at full height, upright.
        height_index: index of the observation entry with the head height, in metres.
        height: head height that earns the whole bonus, in metres.
        upright_index: index of the observation entry with the torso's uprightness, from -1 to 1.
    """

    weight: float = attrs.field(default=0.5, validator=gt(0))
    height_index: int = attrs.field(validator=ge(0))
    height: float = attrs.field(validator=gt(0))
    upright_index: int = attrs.field(validator=ge(0))

    def bonus(self, observation: np.ndarray) -> float:
        height = min(max(float(observation[self.height_index]) / self.height, 0.0), 1.0)
        return self.weight * height * (1.0 + float(observation[self.upright_index])) / 2.0


@register
@attrs.frozen(kw_only=True)
class Progressive(ShapingConfig):
    """Rewards for several entries of the observation that add up, each growing linearly up to its target.

    Where a task multiplies its conditions, a sum lets each of them be learnt before the others are met.

    Attributes:
        indices: indices of the observation entries.
        targets: value of each entry that earns its whole reward; values below 0 earn nothing.
        weights: reward per step of each entry at its target.
    """

    indices: tuple[int, ...] = attrs.field(converter=tuple, validator=deep_iterable(ge(0)))
    targets: tuple[float, ...] = attrs.field(converter=tuple, validator=deep_iterable(gt(0)))
    weights: tuple[float, ...] = attrs.field(converter=tuple, validator=deep_iterable(gt(0)))

    def __attrs_post_init__(self) -> None:
        if not len(self.indices) == len(self.targets) == len(self.weights):
            raise ValueError("indices, targets and weights must have the same length")

    def bonus(self, observation: np.ndarray) -> float:
        met = np.clip(observation[list(self.indices)] / np.asarray(self.targets), 0.0, 1.0)
        return float(met @ np.asarray(self.weights))
