"""Export of stores as Minari datasets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from spinrl.cache import Progress, made_alone
from spinrl.data.importers.masks import existing
from spinrl.data.importers.minari_datasets import INFOS, OURS, SOURCE, dataset_folder, minari_modules
from spinrl.data.importers.result import require
from spinrl.data.importers.tables import in_one_line
from spinrl.data.store.metadata import StoreError
from spinrl.data.store.store import Episode, Store


def export_minari(
    store: Store,
    dataset_id: str,
    *,
    description: str | None = None,
    author: str | None = None,
    author_email: str | None = None,
    code_permalink: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a store as a local Minari dataset, which `import_minari` reads back unchanged.

    Args:
        store: store to export.
        dataset_id: ``NAMESPACE/NAME-vNUMBER``, e.g. ``spinrl/humanoid-stand/medium-3bins-v0``; it must not exist yet.
        description: text for the dataset's metadata; by default the store's sizes.
        author, author_email, code_permalink: further entries of the metadata.
        progress: callback with (episodes done, episodes in all).

    Returns:
        The dataset's folder.

    Raises:
        StoreError: in one line, when the id is not one or is taken, or the disk is full; nothing is left behind.
    """
    minari, storages = minari_modules()
    spaces, namespaces = require("gymnasium.spaces", "Minari"), require("minari.namespace", "Minari")
    folder, what = dataset_folder(dataset_id), f"Minari dataset {dataset_id}"
    root = require("minari.storage.datasets_root_dir", "Minari").get_dataset_path()
    # Not in its namespace folder, which may exist only for complete datasets.
    place = root / dataset_id.replace("/", "-")
    beside = place.with_name(f".{place.name}.{os.getpid()}.partial")
    people = {"author": author and {author}, "author_email": author_email and {author_email}}
    told = people | {"description": description, "code_permalink": code_permalink}
    metadata = {"dataset_id": dataset_id, "minari_version": minari.__version__, **_about(store)}
    metadata |= {name: value for name, value in told.items() if value}
    try:
        with made_alone(place), in_one_line(what, "written"):
            if folder.exists():
                taken = f"delete it (minari delete {dataset_id}) or give the next version"
                raise StoreError(f"{what} exists already; {taken}")
            beside.mkdir()
            storage = storages.MinariStorage.new(
                beside / "data",
                observation_space=spaces.Box(-np.inf, np.inf, (store.observation_size,), np.float32),
                action_space=spaces.MultiDiscrete(store.metadata.nvec, start=list(_start(store))),
            )
            storage.update_metadata(metadata)
            storage.update_episodes(_buffers(store, progress))
            storage.update_episode_metadata({SOURCE: int(each)} for each in store.data["episodes", "source"])
            namespace = dataset_id.rpartition("/")[0]
            if namespace and namespace not in namespaces.list_local_namespaces():
                namespaces.create_namespace(namespace)
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _about(store: Store) -> dict[str, Any]:
    """What a Minari dataset's metadata say of a store by themselves."""
    about = store.metadata
    return {
        "description": f"{about.task}, {about.tier}: {len(store)} transitions, nvec {list(about.nvec)}",
        "algorithm_name": ", ".join(source.behavior for source in about.sources),
        OURS: {"task": about.task, "tier": about.tier, "sources": [attrs.asdict(each) for each in about.sources]},
    }


def _start(store: Store) -> np.ndarray:
    """(N,) number of each sub-action's first choice in the log, which the dataset goes on with."""
    return np.array(store.metadata.action_start or [0] * len(store.metadata.nvec))


def _infos(store: Store, episode: Episode) -> dict[str, np.ndarray]:
    """The optional arrays of an episode; a mask has a column for each choice of each sub-action."""
    made = {}
    for name in store.metadata.extras:
        if name == "allowed" and episode.allowed is not None:
            made[INFOS[name]] = episode.allowed[:, existing(store.action_spec)].astype(np.int8)
        elif episode.propensity is not None:
            made[INFOS[name]] = episode.propensity
    return made


def _buffers(store: Store, progress: Progress | None) -> Iterator[Any]:
    buffer = require("minari.data_collector.episode_buffer", "Minari").EpisodeBuffer
    for done, episode in enumerate(store.episodes(), start=1):
        yield buffer(
            observations=episode.observations,
            actions=episode.actions + _start(store),
            rewards=episode.rewards,
            terminations=episode.terminated,
            truncations=episode.truncated,
            infos=_infos(store, episode),
        )
        if progress is not None:
            progress(done, store.metadata.episodes)
