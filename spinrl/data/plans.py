"""What a cell's dataset will be, known before it is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spinrl.data.build import cached_tier, rollouts, tier_store
from spinrl.data.held_out import cached_split, split
from spinrl.data.making import AS_IT_IS, Making
from spinrl.data.metadata import StoreError
from spinrl.data.rollout import Rollout
from spinrl.data.store import Store
from spinrl.specs import ActionSpec
from spinrl.tasks import get_task

if TYPE_CHECKING:
    from spinrl.data.tiers import Tier


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


class CollectedPlan(DatasetPlan):
    """A tier of behaviour policies; args as for `spinrl.data.tiers.Recipe.plan`."""

    def __init__(self, tier: Tier, *, name: str, task: str, bins: int, transitions: int, seed: int) -> None:
        self._of = (name, tier, task, bins, transitions, seed)
        self.parts = rollouts(tier, task, bins, transitions, seed)
        self.transitions = sum(count for _, count in self.parts)
        self.observation_size = get_task(task).observation_size
        self.action_spec = get_task(task).action_spec(bins)

    def cached(self) -> Store | None:
        return cached_tier(*self._of)

    def store(self, making: Making = AS_IT_IS) -> Store:
        return tier_store(*self._of, making)


class HoldingOut(DatasetPlan):
    """Another plan, of whose episodes a share is kept from training.

    Args:
        plan: of all of them.
        share: of the episodes, in (0, 1).
        seed: of the choice.
    """

    def __init__(self, plan: DatasetPlan, share: float, seed: int) -> None:
        self._plan, self._share, self._seed = plan, share, seed
        self._held_out: Store | None = None
        self.transitions = plan.transitions
        self.observation_size = plan.observation_size
        self.action_spec = plan.action_spec
        self.parts = plan.parts

    def cached(self) -> Store | None:
        whole = self._plan.cached()
        return cached_split(whole, self._share, self._seed) if whole else None

    def store(self, making: Making = AS_IT_IS) -> Store:
        whole = self._plan.store(making)
        training, self._held_out = split(whole, self._share, self._seed, making)
        return training

    def held_out(self) -> Store | None:
        return self._held_out

    @property
    def unwritten(self) -> int:
        return self._plan.unwritten + (0 if self._there() else self.transitions)
