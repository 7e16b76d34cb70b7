"""Import of Minari datasets with discrete actions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from attrs.validators import instance_of, optional

from spinrl.cache import Progress
from spinrl.data.importers.choices import action_spec, bins_of
from spinrl.data.importers.masks import existing, unpacked
from spinrl.data.importers.result import ImportResult, require
from spinrl.data.importers.tables import in_one_line
from spinrl.data.store.metadata import SourceRecord, StoreError
from spinrl.data.store.store import Episode, Store
from spinrl.data.store.writer import StoreWriter
from spinrl.specs import ActionSpec

# Metadata that `spinrl.data.importers.minari_export` adds, as Minari has no field for it.
OURS = "spinrl"  # key of the dataset's metadata: task, tier and behaviours
SOURCE = "source"  # key of an episode's metadata: index of its behaviour
# Keys of an episode's infos by array of a store; a mask has the name that environments give it in theirs.
INFOS = {"allowed": "action_mask", "propensity": "propensity", "propensities": "propensities"}


def import_minari(
    dataset_id: str,
    path: Path,
    *,
    name: str,
    task: str | None = None,
    tier: str | None = None,
    progress: Progress | None = None,
) -> ImportResult:
    """Write a Minari dataset of this machine as a store, episode by episode.

    Args:
        dataset_id: id as in ``minari list local``.
        path: folder of the store, which must not exist yet.
        name: name of the task for a dataset without one; exported stores have one.
        task: name of the task in place of the dataset's.
        tier: name of the tier in place of the dataset's; "logged" if there is none.
        progress: callback with (transitions done, transitions in all).

    Raises:
        StoreError: in one line, for what is missing or damaged, and spaces that `spinrl.tasks.spaces` does not
            support; nothing is left behind.
    """
    what = f"Minari dataset {dataset_id}"
    dataset = _opened(dataset_id, what)
    from spinrl.tasks import spaces  # imports Gymnasium, which takes a third of a second

    with _reading(what):
        size = spaces.observation_size(dataset.observation_space)
        spec = action_spec(what, spaces.action_spec(dataset.action_space).nvec)
        start = spaces.action_start(dataset.action_space)
        recorded = _Recorded.of(dataset.storage.metadata.get(OURS))
        total, episodes = int(dataset.total_steps), int(dataset.total_episodes)
        infos = next(iter(dataset.iterate_episodes(dataset.episode_indices[:1]))).infos if episodes else {}
        extras = [name for name, key in INFOS.items() if key in (infos or {})]
    tier = tier or recorded.tier or "logged"
    done = cut = 0
    with StoreWriter(
        path,
        task=task or recorded.task or name,
        bins=bins_of(spec),
        action_spec=spec,
        observation_size=size,
        tier=tier,
        sources=recorded.sources or [SourceRecord(behavior=tier)],
        expected=(total, episodes),
        extras=extras,
        action_start=start if any(start) else (),
    ) as writer:
        for episode in _episodes(dataset, what, spec, extras, several=len(recorded.sources) > 1):
            if not (episode.terminated[-1] or episode.truncated[-1]):
                cut += 1
                episode = attrs.evolve(episode, truncated=np.arange(len(episode)) == len(episode) - 1)
            writer.append(episode)
            done += len(episode)
            if progress is not None:
                progress(done, total)
    notes = ["choices, and where and how episodes end, are as the dataset tells them"]
    if cut:
        notes.append(f"{cut:,} episodes have no marked end, and are stored as cut off there")
    if extras:
        notes.append(f"{', '.join(extras)}: from {', '.join(INFOS[name] for name in extras)} in the infos of each step")
    if dataset.env_spec is not None:
        notes.append(f"its environment is {dataset.env_spec.id}")
    return ImportResult(Store.open(path), notes)


def _opened(dataset_id: str, what: str) -> Any:
    minari, storages = minari_modules()
    data = dataset_folder(dataset_id) / "data"
    if not data.is_dir():
        raise StoreError(f"{what} is not on this machine; get it with: minari download {dataset_id}")
    with in_one_line(what):
        raw = storages.MinariStorage.read_raw_metadata(data)
        # Minari would take missing spaces from the environment, which runs code that the dataset names.
        for space in ("observation_space", "action_space"):
            if space not in raw:
                raise StoreError(f"{what} does not describe its {space}")
        return minari.load_dataset(dataset_id)


@attrs.frozen
class _Recorded:
    """Metadata of a dataset that was exported from a store."""

    task: str | None = attrs.field(default=None, validator=optional(instance_of(str)))
    tier: str | None = attrs.field(default=None, validator=optional(instance_of(str)))
    sources: list[SourceRecord] = attrs.field(factory=list)

    @classmethod
    def of(cls, ours: Any) -> _Recorded:
        if ours is None:
            return cls()
        return cls(ours["task"], ours["tier"], [SourceRecord(**source) for source in ours["sources"]])


def _episodes(dataset: Any, what: str, spec: ActionSpec, extras: Sequence[str], *, several: bool) -> Iterator[Episode]:
    """All episodes. With `several` sources, as in an exported store, each episode has its source.

    Raises:
        StoreError: for what does not fit the dataset's own description.
    """
    from spinrl.tasks import spaces

    with _reading(what):
        metadata = dataset.storage.get_episode_metadata(dataset.episode_indices)
        for data, about in zip(dataset.iterate_episodes(), metadata, strict=True):
            length = len(data)
            if not length:
                raise StoreError(f"{what}: episode {data.id} has no steps")
            terminated, truncated = (np.asarray(ends).astype(bool) for ends in (data.terminations, data.truncations))
            if (terminated | truncated)[:-1].any():
                raise StoreError(f"{what}: episode {data.id} goes on after an end")
            try:
                observations = spaces.flat_observations(dataset.observation_space, data.observations, length + 1)
                actions = spaces.flat_actions(dataset.action_space, data.actions, length)
                more = _extras(dataset.action_space, data, spec, extras, bool(terminated[-1]))
            except (spaces.SpaceError, StoreError) as error:
                raise StoreError(f"{what}, episode {data.id}: {error}") from error
            yield Episode(
                observations=observations,
                actions=actions,
                rewards=np.asarray(data.rewards).reshape(length).astype(np.float32),
                terminated=terminated,
                truncated=truncated,
                source=int(about[SOURCE]) if several else 0,
                **more,
            )


def _extras(space: Any, data: Any, spec: ActionSpec, extras: Sequence[str], terminated: bool) -> dict[str, np.ndarray]:
    """Masks and propensities of an episode.

    Raises:
        SpaceError, StoreError: when one is missing or does not fit.
    """
    made: dict[str, np.ndarray] = {}
    for name in extras:
        value = (data.infos or {}).get(INFOS[name])
        if value is None:
            raise StoreError(f"it has no {INFOS[name]} in its infos, as the first episode has")
        if name == "allowed":
            made["allowed"] = _allowed(space, value, spec, len(data), terminated)
        else:
            made["propensity"] = np.asarray(value, dtype=np.float32)
    return made


def _allowed(space: Any, masks: Any, spec: ActionSpec, steps: int, terminated: bool) -> np.ndarray:
    """(L+1, N, K) bool: masks of an episode in the form of its environment, one an observation.

    As in other files, every choice counts as allowed at a last observation without a mask, or whose mask allows nothing
    after the task has ended the episode.
    """
    from spinrl.tasks import spaces

    if plain := isinstance(masks, np.ndarray):
        allowed = unpacked(masks.reshape(len(masks), -1) != 0, spec, INFOS["allowed"], "its infos")
    leaf = masks
    while isinstance(leaf, dict | tuple | list):
        leaf = next(iter(leaf.values() if isinstance(leaf, dict) else leaf))
    if len(leaf) not in (steps, steps + 1):
        raise StoreError(f"{INFOS['allowed']} has {len(leaf)} rows; expected {steps + 1}, one for each observation")
    if not plain:
        rows = len(leaf) - (terminated and len(leaf) > steps)
        allowed = np.stack([spaces.allowed_choices(space, _row(masks, row)) for row in range(rows)])
    last = allowed[steps:]
    if not len(last) or (terminated and not last.any(axis=2).all()):
        last = existing(spec)[None]
    return np.concatenate([allowed[:steps], last])


def _row(nested: Any, row: int) -> Any:
    if isinstance(nested, dict):
        return {key: _row(value, row) for key, value in nested.items()}
    return tuple(_row(value, row) for value in nested) if isinstance(nested, tuple | list) else nested[row]


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn every exception into an error that names the dataset.

    Raises:
        StoreError: for every exception within.
    """
    from spinrl.tasks.spaces import SpaceError

    with in_one_line(what):
        try:
            yield
        except SpaceError as error:
            raise StoreError(f"{what}: {error}") from error


def minari_modules() -> tuple[Any, Any]:
    """The modules `minari` and its storage classes.

    Raises:
        StoreError: when a package is missing.
    """
    for module in ("h5py", "gymnasium"):  # Minari imports without them, and fails later
        require(module, "Minari")
    return require("minari", "Minari"), require("minari.dataset.minari_storage", "Minari")


def dataset_folder(dataset_id: str) -> Path:
    """The folder in which Minari keeps a dataset.

    Raises:
        StoreError: when the id is not valid.
    """
    try:
        require("minari.dataset.minari_dataset", "Minari").parse_dataset_id(dataset_id)
    except (ValueError, TypeError):
        raise StoreError(
            f"{dataset_id!r} does not name a Minari dataset; expected NAMESPACE/NAME-vNUMBER, "
            "e.g. spinrl/humanoid-stand/medium-3bins-v0"
        ) from None
    return require("minari.storage.datasets_root_dir", "Minari").get_dataset_path(dataset_id)
