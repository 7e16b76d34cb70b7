"""Dataset recipes: which behaviours a dataset comes from, and in what shares."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Self

import attrs
from attrs.validators import deep_iterable, ge, gt, in_, instance_of, le, min_len, optional

from spinrl.data.plans import CollectedPlan, DatasetPlan
from spinrl.registry import Component, register


class Recipe(Component, ABC):
    """Base of kind "tier": how a dataset of a task comes about."""

    kind: ClassVar[str] = "tier"
    benchmark_only: ClassVar[bool] = False  # whether no other tasks than the benchmark's have such datasets

    @abstractmethod
    def plan(self, name: str, task: str, bins: int, transitions: int, seed: int) -> DatasetPlan:
        """The dataset of one task.

        Args:
            name: of the tier.
            task: its name.
            bins: choices of every sub-action; 0 where the data says them.
            transitions: the experiment's size.
            seed: of what is drawn.

        Raises:
            BehaviorError, StoreError, ValueError: when it cannot be made, in one line that says what to do.
        """

    def smaller(self, transitions: int) -> Self:
        """The same with no more transitions, where that is for the recipe to say."""
        return self


@register
@attrs.frozen(kw_only=True)
class Source(Component):
    """Episodes of one behaviour policy.

    Attributes:
        behavior: which shipped policy acts; random draws every sub-action uniformly.
        share: of the dataset's transitions, relative to the other sources'.
        epsilon: share of sub-actions that are drawn at random instead, each by itself.
        hold: control steps for which such a random sub-action is held.
    """

    kind: ClassVar[str] = "source"

    behavior: Literal["expert", "medium", "random"] = attrs.field(validator=in_(("expert", "medium", "random")))
    share: float = attrs.field(default=1.0, validator=gt(0))
    epsilon: float = attrs.field(default=0.0, validator=[ge(0), le(1)])
    hold: int = attrs.field(default=1, validator=ge(1))


@register
@attrs.frozen(kw_only=True)
class Tier(Recipe):
    """Episodes of behaviour policies, rolled out here.

    Attributes:
        sources: where its episodes come from, in order.
        transitions: size of the dataset, or None for that of the experiment.
    """

    benchmark_only: ClassVar[bool] = True

    sources: tuple[Source, ...] = attrs.field(
        converter=tuple, validator=[min_len(1), deep_iterable(instance_of(Source))]
    )
    transitions: int | None = attrs.field(default=None, validator=optional(gt(0)))

    def split(self, transitions: int) -> list[tuple[Source, int]]:
        """How many transitions each source gives, in proportion to its share; they add up exactly.

        Args:
            transitions: the experiment's size, for a tier without its own.

        Raises:
            ValueError: when a source would give none.
        """
        total = self.transitions or transitions
        shares = [source.share for source in self.sources]
        marks = [round(total * math.fsum(shares[:end]) / math.fsum(shares)) for end in range(len(shares) + 1)]
        counts = [end - start for start, end in itertools.pairwise(marks)]
        if min(counts) < 1:
            raise ValueError(f"{total} transitions are too few for shares of {', '.join(map(str, shares))}")
        return list(zip(self.sources, counts, strict=True))

    def plan(self, name: str, task: str, bins: int, transitions: int, seed: int) -> DatasetPlan:
        return CollectedPlan(self, name=name, task=task, bins=bins, transitions=transitions, seed=seed)

    def smaller(self, transitions: int) -> Self:
        return attrs.evolve(self, transitions=transitions)
