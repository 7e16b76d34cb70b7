"""Recipes of datasets, and plans: the properties of a dataset that are known before it is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from spinrl.cache import DEFAULT_BUILD, BuildOptions
from spinrl.config.registry import Component
from spinrl.data.collect.rollout import Rollout
from spinrl.data.store.metadata import StoreError
from spinrl.data.store.store import Store
from spinrl.specs import ActionSpec


class DatasetPlan(ABC):
    """A dataset that exists or can be made.

    Attributes:
        transitions: T.
        observation_size: S.
        action_spec: N sub-actions and their choices.
        parts: sequences of episodes of a collected dataset, with the number of transitions from the start of each.
        masked: whether the data has masks of allowed choices.
        sources: transitions of each source (file, split or behaviour) of an existing dataset, by its name.
        held_out_share: share of the transitions that no training uses, as far as it is known.
    """

    transitions: int
    observation_size: int
    action_spec: ActionSpec
    parts: Sequence[tuple[Rollout, int]] = ()
    masked: bool = False
    sources: Mapping[str, int] = {}
    held_out_share: float = 0.0

    @abstractmethod
    def cached(self) -> Store | None:
        """The store to train on if it exists, else None; not verified.

        Raises:
            StoreError: when it exists and is damaged.
        """

    def check(self) -> None:  # noqa: B027  # most plans have nothing to check
        """Check whether `store` would raise, as far as that is known before.

        Raises:
            StoreError: in one line.
        """

    @abstractmethod
    def store(self, options: BuildOptions = DEFAULT_BUILD) -> Store:
        """The verified store to train on; made if missing.

        Args:
            options: options and callbacks for building.

        Raises:
            BehaviorError, CollectionError, StoreError: in one line each.
        """

    def held_out(self) -> Store | None:
        """The held-out store, once `store` was called; None if nothing is held out."""
        return None

    @property
    def unwritten(self) -> int:
        """Number of transitions still to write, without those of `parts`. A damaged store counts as written."""
        return 0 if self._there() else self.transitions

    def _there(self) -> bool:
        try:
            return self.cached() is not None
        except StoreError:
            return True


class Recipe(Component, ABC):
    """Base of kind "tier": how the dataset of a task is made."""

    kind: ClassVar[str] = "tier"
    benchmark_only: ClassVar[bool] = False  # whether only tasks of the benchmark have such datasets

    @abstractmethod
    def plan(self, name: str, task: str, bins: int, transitions: int, seed: int) -> DatasetPlan:
        """The plan of a task's dataset.

        Args:
            name: name of the tier.
            task: name of the task.
            bins: choices of every sub-action; 0 takes those of the data.
            transitions: size of the experiment's datasets.
            seed: seed of random draws.

        Raises:
            BehaviorError, StoreError, ValueError: when it cannot be made; the message is one line that says what to do.
        """

    def smaller(self, transitions: int) -> Self:
        """The same recipe with at most so many transitions, if the recipe sets their number."""
        return self
