"""Random episodes, and stores of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

from spinrl.data import Episode, SourceRecord, Store, StoreWriter
from spinrl.specs import ActionSpec

SOURCES = (SourceRecord(behavior="expert", fingerprint="e", epsilon=0.05, seed=1), SourceRecord(behavior="random"))


def random_episode(
    steps: int,
    spec: ActionSpec,
    observation_size: int,
    seed: int = 0,
    source: int = 0,
    terminated: bool = False,
    masked: bool = False,
) -> Episode:
    """Random in all; where it is `masked`, the choices that were taken and about half of the others are allowed."""
    rng = np.random.default_rng(seed)
    last = np.arange(steps) == steps - 1
    episode = Episode(
        observations=rng.normal(size=(steps + 1, observation_size)).astype(np.float32),
        actions=rng.integers(0, spec.nvec, (steps, spec.num_sub_actions)),
        rewards=rng.normal(size=steps),
        terminated=last & terminated,
        truncated=last & (not terminated),
        source=source,
    )
    if not masked:
        return episode
    allowed = rng.random((steps + 1, spec.num_sub_actions, spec.max_choices)) < 0.5
    taken = np.concatenate([episode.actions, episode.actions[-1:]])
    np.put_along_axis(allowed, taken[..., None], True, axis=2)
    return attrs.evolve(episode, allowed=allowed & (np.arange(spec.max_choices) < np.array(spec.nvec)[:, None]))


def write_store(
    path: Path,
    episodes: Sequence[Episode],
    spec: ActionSpec,
    observation_size: int,
    task: str = "humanoid-stand",
    bins: int | None = 3,
) -> Store:
    with StoreWriter(
        path,
        task=task,
        bins=bins,
        action_spec=spec,
        observation_size=observation_size,
        tier="medium",
        sources=SOURCES,
        extras=() if episodes[0].allowed is None else ("allowed",),
    ) as writer:
        for episode in episodes:
            writer.append(episode)
    return Store.open(path)
