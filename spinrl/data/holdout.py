"""Splits a dataset, so that estimates are made on data that no training used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from spinrl.cache import DEFAULT_BUILD, BuildOptions, get_sound, home
from spinrl.config.serialize import fingerprint
from spinrl.data.recipe import DatasetPlan
from spinrl.data.store.metadata import StoreError
from spinrl.data.store.store import Episode, Store, opener
from spinrl.data.store.writer import StoreWriter
from spinrl.seeding import numpy_generator

_TRAINING, _HELD_OUT = "training", "held-out"


HeldOutBy = Literal["episodes", "rows"]


def split(
    store: Store,
    share: float,
    seed: int,
    options: BuildOptions = DEFAULT_BUILD,
    by: HeldOutBy = "episodes",
    sources: Sequence[str] = (),
) -> tuple[Store, Store]:
    """Two verified stores in the cache: the training part and the held-out part.

    Args:
        store: store of all episodes.
        share: share of the episodes or rows to hold out, in (0, 1).
        seed: seed of the choice of episodes.
        options: options and callbacks for building.
        by: unit of the split. "episodes" draws whole episodes, at least one for each part. "rows" takes the last rows
            of each episode, for data of one or a few long episodes; an episode of one row is trained on.
        sources: names of the sources (files, splits or behaviours) to hold out whole; if there are any, they replace
            share, seed and unit.

    Raises:
        StoreError: when nothing can be held out, or the disk is full.
    """
    check_split(store, by, sources)

    def part(which: str) -> Store:
        def build(path: Path) -> None:
            if sources:
                _copy(store, path, *_named(store, sources, which))
            elif by == "episodes":
                _copy(store, path, *_drawn(store, share, seed, which))
            else:
                _copy(store, path, *_cut(store, share, which))

        entry = _entry(store, share, seed, which, by, sources)
        return get_sound("stores", entry, build, opener(), on_wait=options.on_wait, on_damage=options.on_damage)

    return part(_TRAINING), part(_HELD_OUT)


def check_split(store: Store, by: HeldOutBy, sources: Sequence[str] = ()) -> None:
    """Check that something can be held out of a store.

    Raises:
        StoreError: if not; the message names the settings to change.
    """
    if sources:
        _check_sources(store, sources)
        return
    if by == "episodes" and store.metadata.episodes < 2:
        raise StoreError(
            f"store {store.path} has one episode, of which none can be held out; hold out its last rows "
            "(Experiment.held_out_by='rows'), or nothing (Experiment.held_out=0 and "
            "Evaluating.estimators=[@FittedQ()])"
        )
    if by == "rows" and store.metadata.transitions == store.metadata.episodes:
        raise StoreError(
            f"store {store.path} has episodes of one row each, of which no last rows can be held out; set "
            "Experiment.held_out_by='episodes'"
        )


def _check_sources(store: Store, sources: Sequence[str]) -> None:
    having = [source.behavior for source in store.metadata.sources if source.episodes]
    if unknown := [name for name in sources if name not in having]:
        raise StoreError(
            f"store {store.path} has no episodes of {unknown[0]!r} to hold out; Experiment.held_out_sources can name "
            f"{', '.join(map(repr, having))}"
        )
    if set(having) <= set(sources):
        raise StoreError(
            f"store {store.path} has episodes of {', '.join(map(repr, having))} alone, so nothing is left to train on; "
            "set Experiment.held_out_sources to fewer of them"
        )


def cached_split(
    store: Store, share: float, seed: int, by: HeldOutBy = "episodes", sources: Sequence[str] = ()
) -> Store | None:
    """The training part that `split` would give, if the cache holds it; not verified."""
    path = home() / "stores" / _entry(store, share, seed, _TRAINING, by, sources)
    return Store.open(path) if path.exists() else None


def _entry(store: Store, share: float, seed: int, which: str, by: HeldOutBy, sources: Sequence[str]) -> str:
    content = {"store": store.fingerprint, "share": share, "seed": seed}
    if sources:
        identity = fingerprint({"store": store.fingerprint, "sources": sorted(set(sources))})
    else:
        identity = fingerprint(content if by == "episodes" else {**content, "seed": 0, "by": by})
    return f"{store.metadata.task}-{store.metadata.tier}-{which}-{identity}"


def _drawn(store: Store, share: float, seed: int, which: str) -> tuple[np.ndarray, Iterator[Episode]]:
    """The lengths of the episodes in a part, and the episodes."""
    episodes = store.metadata.episodes
    count = min(max(1, round(share * episodes)), episodes - 1)
    held_out = np.zeros(episodes, dtype=bool)
    held_out[numpy_generator(seed, "held-out").choice(episodes, count, replace=False)] = True
    return _part(store, held_out, which)


def _named(store: Store, sources: Sequence[str], which: str) -> tuple[np.ndarray, Iterator[Episode]]:
    """The episodes of the named or of the other sources, in the form of `_drawn`."""
    indices = [index for index, source in enumerate(store.metadata.sources) if source.behavior in sources]
    return _part(store, np.isin(store.data["episodes", "source"].numpy(), indices), which)


def _part(store: Store, held_out: np.ndarray, which: str) -> tuple[np.ndarray, Iterator[Episode]]:
    chosen = np.flatnonzero(held_out if which == _HELD_OUT else ~held_out)
    return store.data["episodes", "length"].numpy()[chosen], map(store.episode, chosen.tolist())


def _cut(store: Store, share: float, which: str) -> tuple[np.ndarray, Iterator[Episode]]:
    """The first or the last rows of the episodes, in the form of `_drawn`."""
    lengths = store.data["episodes", "length"].numpy()
    trained = np.maximum(1, lengths - np.maximum(1, np.round(share * lengths).astype(lengths.dtype)))
    if which == _TRAINING:
        return trained, (store.episode(i).first(trained[i]) for i in range(len(lengths)))
    longer = np.flatnonzero(lengths > trained)
    return (lengths - trained)[longer], (store.episode(i).after(trained[i]) for i in longer.tolist())


def _copy(store: Store, path: Path, lengths: np.ndarray, episodes: Iterator[Episode]) -> None:
    metadata = store.metadata
    with StoreWriter(
        path,
        task=metadata.task,
        bins=metadata.bins,
        action_spec=store.action_spec,
        observation_size=metadata.observation_size,
        tier=metadata.tier,
        sources=metadata.sources,
        expected=(int(lengths.sum()), len(lengths)),
        extras=metadata.extras,
        action_start=metadata.action_start,
        preparation=metadata.preparation,
    ) as writer:
        for episode in episodes:
            writer.append(episode)


class HoldingOut(DatasetPlan):
    """A plan that holds out a part of another plan's transitions.

    Args:
        plan: plan of all transitions.
        share, seed, by, sources: as for `split`.
    """

    def __init__(
        self,
        plan: DatasetPlan,
        share: float,
        seed: int,
        by: HeldOutBy = "episodes",
        sources: Sequence[str] = (),
    ) -> None:
        self._plan, self._share, self._seed, self._by, self._named = plan, share, seed, by, tuple(sources)
        self._held_out: Store | None = None
        self.transitions = plan.transitions
        self.observation_size = plan.observation_size
        self.action_spec = plan.action_spec
        self.parts = plan.parts
        self.masked, self.sources = plan.masked, plan.sources
        self.held_out_share = share
        if self._named:
            counts = {name: count for name, count in plan.sources.items() if name in self._named}
            self.held_out_share = sum(counts.values()) / max(1, plan.transitions)

    def cached(self) -> Store | None:
        whole = self._plan.cached()
        return cached_split(whole, self._share, self._seed, self._by, self._named) if whole else None

    def check(self) -> None:
        self._plan.check()
        if whole := self._plan.cached():
            check_split(whole, self._by, self._named)

    def store(self, options: BuildOptions = DEFAULT_BUILD) -> Store:
        whole = self._plan.store(options)
        training, self._held_out = split(whole, self._share, self._seed, options, self._by, self._named)
        return training

    def held_out(self) -> Store | None:
        return self._held_out

    @property
    def unwritten(self) -> int:
        return self._plan.unwritten + (0 if self._there() else self.transitions)
