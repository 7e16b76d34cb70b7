"""Tiers: datasets as shares of behaviour policies' episodes; every source is collected once."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Self

import attrs
from attrs.validators import deep_iterable, gt, instance_of, min_len, optional

from spinrl.behaviors import load_behavior
from spinrl.cache import DEFAULT_BUILD, BuildOptions, OnDamage, get_sound, home, locked, made_anew
from spinrl.config.registry import register
from spinrl.config.serialize import fingerprint
from spinrl.data.collect.partial import KeptEpisodes
from spinrl.data.collect.processes import collect_episodes, episode_lengths
from spinrl.data.collect.rollout import Rollout, Source
from spinrl.data.recipe import DatasetPlan, Recipe
from spinrl.data.store.metadata import FORMAT_VERSION, DamagedStoreError
from spinrl.data.store.store import Episode, Store, opener
from spinrl.data.store.writer import StoreWriter
from spinrl.tasks import EPISODE_STEPS, get_task


@register
@attrs.frozen(kw_only=True)
class Tier(Recipe):
    """Episodes of behaviour policies, rolled out here.

    Attributes:
        sources: sources of its episodes, in order.
        transitions: size of the dataset; None takes that of the experiment.
    """

    benchmark_only: ClassVar[bool] = True

    sources: tuple[Source, ...] = attrs.field(
        converter=tuple, validator=[min_len(1), deep_iterable(instance_of(Source))]
    )
    transitions: int | None = attrs.field(default=None, validator=optional(gt(0)))

    def split(self, transitions: int) -> list[tuple[Source, int]]:
        """Number of transitions from each source, in proportion to its share; they add up exactly.

        Args:
            transitions: size of the experiment, for a tier without its own.

        Raises:
            ValueError: when a source would give no transition.
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


class CollectedPlan(DatasetPlan):
    """A tier of behaviour policies; args as for `spinrl.data.recipe.Recipe.plan`."""

    def __init__(self, tier: Tier, *, name: str, task: str, bins: int, transitions: int, seed: int) -> None:
        self._of = (name, tier, task, bins, transitions, seed)
        self.parts = rollouts(tier, task, bins, transitions, seed)
        self.transitions = sum(count for _, count in self.parts)
        self.observation_size = get_task(task).observation_size
        self.action_spec = get_task(task).action_spec(bins)

    def cached(self) -> Store | None:
        return cached_tier(*self._of)

    def store(self, options: BuildOptions = DEFAULT_BUILD) -> Store:
        return tier_store(*self._of, options)


def rollouts(tier: Tier, task: str, bins: int, transitions: int, seed: int) -> list[tuple[Rollout, int]]:
    """The sequences of episodes of a tier, with the number of transitions from the start of each.

    Raises:
        BehaviorError: when a behaviour policy is not shipped; the message says how to train it.
        ValueError: when the transitions are too few for the tier's shares.
    """
    parts = tier.split(transitions)
    return [(Rollout.of(source, load_behavior(task, bins, source.behavior), seed), n) for source, n in parts]


def cached_transitions(rollout: Rollout) -> int:
    """Number of transitions of a sequence in the cache."""
    return max((count for count, _ in _source_stores(rollout)), default=0)


def source_store(rollout: Rollout, transitions: int, options: BuildOptions = DEFAULT_BUILD) -> Store:
    """A cached store of at least `transitions` steps from the start of a sequence of episodes.

    A shorter cached store is extended, and a killed collection resumes.

    Args:
        rollout: description of the sequence of episodes.
        transitions: number of transitions needed.
        options: options and callbacks for building.

    Raises:
        BehaviorError, CollectionError, StoreError: in one line each.
    """
    folder = _source_folder(rollout)
    with locked(folder, options.on_wait):
        existing = [each for each in sorted(_source_stores(rollout)) if _is_sound(each[1], options.on_damage)]
        if existing and existing[-1][0] >= transitions:
            return Store.open(existing[-1][1], rollout.task, rollout.bins)
        path = folder / str(transitions)
        for left in folder.glob(".*.partial"):  # left by killed runs
            shutil.rmtree(left, ignore_errors=True)
        old = Store.open(existing[-1][1]) if existing else None
        first = len(old) // EPISODE_STEPS if old else 0
        kept = KeptEpisodes(folder / "episodes")
        lengths = episode_lengths(transitions)
        to_keep = lengths[first + len(kept) :]
        task = get_task(rollout.task)
        with StoreWriter(
            path,
            task=rollout.task,
            bins=rollout.bins,
            action_spec=task.action_spec(rollout.bins),
            observation_size=task.observation_size,
            tier=f"{rollout.behavior} source",
            sources=[rollout.record()],
            # Until the store is complete, new episodes are on disk twice: in it, and as files of their own.
            expected=(transitions + sum(to_keep), len(lengths) + len(to_keep)),
        ) as writer:
            for index in range(first):
                assert old is not None
                writer.append(old.episode(index))
            for episode in _new_episodes(rollout, transitions, first, kept, options):
                writer.append(episode)
        kept.remove()
        for _, smaller in existing:
            shutil.rmtree(smaller, ignore_errors=True)
        return Store.open(path)


def _is_sound(path: Path, on_damage: OnDamage | None) -> bool:
    """Whether a store is undamaged; a damaged one is reported and deleted."""
    try:
        Store.open(path).verify()
    except DamagedStoreError as error:
        if on_damage is None:
            raise
        on_damage(made_anew(error))
        shutil.rmtree(path)
        return False
    return True


def _new_episodes(
    rollout: Rollout, transitions: int, first: int, kept: KeptEpisodes, options: BuildOptions
) -> Iterator[Episode]:
    """The episodes from number `first` on: kept ones, then newly collected ones, which are kept at once."""
    for number, steps in enumerate(episode_lengths(transitions)[first:], first):
        episode = kept.read(number, steps)
        if episode is None:
            break
        first += 1
        yield episode
    for number, episode in enumerate(
        collect_episodes(rollout, transitions, first=first, processes=options.processes, progress=options.progress),
        first,
    ):
        kept.save(number, episode)
        yield episode


def tier_store(
    name: str,
    tier: Tier,
    task: str,
    bins: int,
    transitions: int,
    seed: int,
    options: BuildOptions = DEFAULT_BUILD,
) -> Store:
    """The cached store of a tier, checked against its checksums; built from its sources if missing.

    Args:
        name: name of the recipe, e.g. "medium-expert".
        tier: recipe of the dataset.
        task: name of the task.
        bins: choices per sub-action.
        transitions: size of the experiment, for a tier without its own.
        seed: seed of the episodes.
        options: options and callbacks for building.

    Raises:
        BehaviorError, CollectionError, StoreError: in one line each.
        ValueError: when the transitions are too few for the tier's shares.
    """
    parts = rollouts(tier, task, bins, transitions, seed)

    def build(path: Path) -> None:
        sources = [source_store(each, n, options) for each, n in parts]
        combine(path, name, [(store, each, n) for store, (each, n) in zip(sources, parts, strict=True)])

    entry = _tier_entry(name, task, bins, parts)
    return get_sound("stores", entry, build, opener(task, bins), on_wait=options.on_wait, on_damage=options.on_damage)


def cached_tier(name: str, tier: Tier, task: str, bins: int, transitions: int, seed: int) -> Store | None:
    """The store that `tier_store` would give, if the cache holds it; not verified.

    Raises:
        BehaviorError, StoreError, ValueError: as `tier_store`.
    """
    path = home() / "stores" / _tier_entry(name, task, bins, rollouts(tier, task, bins, transitions, seed))
    return Store.open(path, task, bins) if path.exists() else None


def _tier_entry(name: str, task: str, bins: int, parts: list[tuple[Rollout, int]]) -> str:
    plan = {"format_version": FORMAT_VERSION, "tier": name, "parts": [[attrs.asdict(each), n] for each, n in parts]}
    return f"{task}-{bins}bins-{name}-{fingerprint(plan)}"


def combine(path: Path, name: str, parts: Iterable[tuple[Store, Rollout, int]]) -> None:
    """Write a store with the given number of first transitions of each of several stores."""
    parts = list(parts)
    store, rollout, _ = parts[0]
    total = sum(count for *_, count in parts)
    with StoreWriter(
        path,
        task=rollout.task,
        bins=rollout.bins,
        action_spec=store.action_spec,
        observation_size=store.observation_size,
        tier=name,
        sources=[rollout.record() for _, rollout, _ in parts],
        expected=(total, sum(-(-count // EPISODE_STEPS) for *_, count in parts)),
    ) as writer:
        for index, (store, _, count) in enumerate(parts):
            for episode in store.episodes():
                if count <= 0:
                    break
                episode = episode.first(count)
                writer.append(attrs.evolve(episode, source=index))
                count -= len(episode)


def _source_folder(rollout: Rollout) -> Path:
    return home() / "sources" / f"{rollout.task}-{rollout.bins}bins-{rollout.behavior}-{rollout.fingerprint}"


def _source_stores(rollout: Rollout) -> list[tuple[int, Path]]:
    """Transitions and path of each cached store; normally one."""
    folder = _source_folder(rollout)
    return [(int(path.name), path) for path in folder.glob("[0-9]*")] if folder.is_dir() else []
