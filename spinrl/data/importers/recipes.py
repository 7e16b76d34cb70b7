"""Recipes for datasets that come from elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import attrs
from attrs.validators import min_len

from spinrl.cache import AS_IT_IS, Making, get_sound, home
from spinrl.config.registry import register
from spinrl.config.serialize import fingerprint
from spinrl.data.importers.published import DATA_DIR, Name, find, import_published
from spinrl.data.recipe import DatasetPlan, Recipe
from spinrl.data.store.metadata import StoreError
from spinrl.data.store.store import Store, opener
from spinrl.tasks import get_task


def imported_folder(name: str) -> Path:
    """Where `tools.import_dataset` keeps the dataset called `name`."""
    return home() / "imported" / name


def store_folder(name: str) -> Path:
    """The folder of a store that is named as people name one: as an imported dataset, or by its path.

    Raises:
        StoreError: when there is neither.
    """
    for folder in (imported_folder(name), Path(name).expanduser()):
        if folder.is_dir():
            return folder
    raise StoreError(
        f"no imported dataset is called {name!r}, and there is no such folder; "
        f"python -m tools.import_dataset FILE --name {name} makes one"
    )


@register
@attrs.frozen(kw_only=True)
class Imported(Recipe):
    """A dataset made by `tools.import_dataset`.

    Attributes:
        store: the name that it was given, or the path of a store's folder; {task}, {bins} and {tier} stand for those
            of the cell.
    """

    store: str = attrs.field(default="{task}", validator=min_len(1))

    @store.validator
    def _check_store(self, _attribute: attrs.Attribute, value: str) -> None:
        try:
            value.format(task="", bins=0, tier="")
        except (KeyError, IndexError, ValueError):
            raise ValueError(
                f"store wants no other {{name}} than {{task}}, {{bins}} and {{tier}}, got {value!r}"
            ) from None

    def plan(self, name: str, task: str, bins: int, transitions: int, seed: int) -> DatasetPlan:
        return StoredPlan(store_folder(self.store.format(task=task, bins=bins, tier=name)), task, bins)


class StoredPlan(DatasetPlan):
    """A store that is there.

    Args:
        path: its folder.
        task: that it is to be of.
        bins: likewise; 0 for any.
    """

    def __init__(self, path: Path, task: str, bins: int) -> None:
        self._store = Store.open(path, task, bins or None)
        self.transitions = len(self._store)
        self.observation_size = self._store.observation_size
        self.action_spec = self._store.action_spec

    def cached(self) -> Store:
        return self._store

    def store(self, making: Making = AS_IT_IS) -> Store:
        self._store.verify()
        return self._store


@register
@attrs.frozen(kw_only=True)
class Published(Recipe):
    """The published dataset of a task, number of bins and tier, imported when it is first used.

    Attributes:
        folder: of the published files, or None for the one that the environment variable DMC_DISCRETE_DATA_DIR names.
    """

    benchmark_only: ClassVar[bool] = True

    folder: str | None = None

    def plan(self, name: str, task: str, bins: int, transitions: int, seed: int) -> DatasetPlan:
        wanted = Name(task=task, bins=bins, tier=name)
        folder = self.folder or os.environ.get(DATA_DIR)
        return PublishedPlan(find(str(Path(folder).expanduser() / wanted.path) if folder else wanted.path), wanted)


class PublishedPlan(DatasetPlan):
    """A published file, imported into the cache; args are the file and what its name says."""

    def __init__(self, file: Path, name: Name) -> None:
        self._file, self._name = file, name
        status = file.stat()
        # Reading a gigabyte to know it again would take longer than anybody changes a file and sets back its clock.
        identity = fingerprint([str(file.resolve()), status.st_size, status.st_mtime_ns])
        self._entry = f"{name.task}-{name.bins}bins-{name.tier}-published-{identity}"
        task = get_task(name.task)
        self.observation_size = task.observation_size
        self.action_spec = task.action_spec(name.bins)
        store = self.cached()
        # Of each transition the file holds an observation and an action of 8 bytes an entry, and some 50 bytes more.
        each = 8 * (task.observation_size + task.num_sub_actions) + 50
        self.transitions = len(store) if store else max(1, status.st_size // each)

    def cached(self) -> Store | None:
        path = home() / "stores" / self._entry
        return Store.open(path) if path.exists() else None

    def store(self, making: Making = AS_IT_IS) -> Store:
        def build(path: Path) -> None:
            name = self._name
            import_published(self._file, path, progress=making.progress, task=name.task, bins=name.bins, tier=name.tier)

        return get_sound("stores", self._entry, build, opener(), on_wait=making.on_wait, on_damage=making.on_damage)
