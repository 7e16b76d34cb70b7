"""Splitting a dataset by episodes, so that estimates are made on data that nothing was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spinrl.cache import AS_IT_IS, Making, get_sound, home
from spinrl.config.serialize import fingerprint
from spinrl.data.recipe import DatasetPlan
from spinrl.data.store.metadata import StoreError
from spinrl.data.store.store import Store, opener
from spinrl.data.store.writer import StoreWriter
from spinrl.seeding import numpy_generator

_TRAINING, _HELD_OUT = "training", "held-out"


def split(store: Store, share: float, seed: int, making: Making = AS_IT_IS) -> tuple[Store, Store]:
    """Two stores: of the episodes to train on, and of those held out; in the cache, verified.

    Args:
        store: of all episodes.
        share: of the episodes that is held out, in (0, 1); at least one, and at least one is left.
        seed: of the choice.
        making: who is told.

    Raises:
        StoreError: when there is but one episode, or the disk is full.
    """
    episodes = store.metadata.episodes
    if episodes < 2:
        raise StoreError(
            f"store {store.path} has one episode, of which none can be held out; set Experiment.held_out=0 "
            "and Evaluating.estimators=[@FittedQ()]"
        )
    count = min(max(1, round(share * episodes)), episodes - 1)
    held_out = np.zeros(episodes, dtype=bool)
    held_out[numpy_generator(seed, "held-out").choice(episodes, count, replace=False)] = True

    def part(which: str, chosen: np.ndarray) -> Store:
        def build(path: Path) -> None:
            _copy(store, np.flatnonzero(chosen), path)

        entry = _entry(store, share, seed, which)
        return get_sound("stores", entry, build, opener(), on_wait=making.on_wait, on_damage=making.on_damage)

    return part(_TRAINING, ~held_out), part(_HELD_OUT, held_out)


def cached_split(store: Store, share: float, seed: int) -> Store | None:
    """The training part that `split` would give, if the cache holds it; not verified."""
    path = home() / "stores" / _entry(store, share, seed, _TRAINING)
    return Store.open(path) if path.exists() else None


def _entry(store: Store, share: float, seed: int, which: str) -> str:
    identity = fingerprint({"store": store.fingerprint, "share": share, "seed": seed})
    return f"{store.metadata.task}-{store.metadata.tier}-{which}-{identity}"


def _copy(store: Store, episodes: np.ndarray, path: Path) -> None:
    metadata = store.metadata
    length = store.data["episodes", "length"].numpy()[episodes]
    with StoreWriter(
        path,
        task=metadata.task,
        bins=metadata.bins,
        action_spec=store.action_spec,
        observation_size=metadata.observation_size,
        tier=metadata.tier,
        sources=metadata.sources,
        expected=(int(length.sum()), len(episodes)),
        extras=metadata.extras,
        action_start=metadata.action_start,
        preparation=metadata.preparation,
    ) as writer:
        for index in episodes.tolist():
            writer.append(store.episode(index))


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
