"""A recipe says how a dataset of a task comes about; its plan says what the dataset will be before it is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

from spinrl.cache import AS_IT_IS, Making
from spinrl.config.registry import Component
from spinrl.data.collect.rollout import Rollout
from spinrl.data.store.metadata import StoreError
from spinrl.data.store.store import Store
from spinrl.specs import ActionSpec


class DatasetPlan(ABC):
    """A dataset that is there or can be made.

    Attributes:
        transitions: T.
        observation_size: S.
        action_spec: N sub-actions and their choices.
        parts: how many transitions it takes from the start of which sequences of episodes, where it is collected.
    """

    transitions: int
    observation_size: int
    action_spec: ActionSpec
    parts: Sequence[tuple[Rollout, int]] = ()

    @abstractmethod
    def cached(self) -> Store | None:
        """The store to train on, if it is there; not verified.

        Raises:
            StoreError: when it is there and damaged.
        """

    def check(self) -> None:  # noqa: B027  # nothing is known of most
        """Find out, as far as that is known before it is made, whether `store` would refuse.

        Raises:
            StoreError: in one line.
        """

    @abstractmethod
    def store(self, making: Making = AS_IT_IS) -> Store:
        """The store to train on, verified; made where missing.

        Args:
            making: in how many processes, and who is told.

        Raises:
            BehaviorError, CollectionError, StoreError: in one line each.
        """

    def held_out(self) -> Store | None:
        """The store of what `store` leaves out of training, after that; None where that is nothing."""
        return None

    @property
    def unwritten(self) -> int:
        """Transitions that making it writes, those of `parts` not counted. A damaged store counts as written."""
        return 0 if self._there() else self.transitions

    def _there(self) -> bool:
        try:
            return self.cached() is not None
        except StoreError:
            return True


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
