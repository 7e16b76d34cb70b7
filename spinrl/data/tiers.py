"""Dataset recipes: which behaviours a dataset comes from, and in what shares."""

from __future__ import annotations

import itertools
import math
from typing import ClassVar, Literal

import attrs
from attrs.validators import deep_iterable, ge, gt, in_, instance_of, le, min_len, optional

from spinrl.registry import Component, register


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
class Tier(Component):
    """A recipe for a dataset.

    Attributes:
        sources: where its episodes come from, in order.
        transitions: size of the dataset, or None for that of the experiment.
    """

    kind: ClassVar[str] = "tier"

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
