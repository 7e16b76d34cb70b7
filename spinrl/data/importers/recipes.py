"""Recipes for imported datasets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import attrs
from attrs.validators import min_len

from spinrl.cache import DEFAULT_BUILD, BuildOptions, get_sound, home
from spinrl.config.registry import register
from spinrl.config.serialize import fingerprint
from spinrl.data.importers.published import DATA_DIR, Name, find, import_published
from spinrl.data.recipe import DatasetPlan, Recipe
from spinrl.data.store.metadata import StoreError
from spinrl.data.store.store import Store, opener
from spinrl.tasks import get_task


def imported_folder(name: str) -> Path:
    """Folder in which `tools.import_dataset` keeps the dataset called `name`."""
    return home() / "imported" / name


def store_folder(name: str) -> Path:
    """The folder of a store, given by the name of an imported dataset or by its path.

    Raises:
        StoreError: when neither exists.
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
        store: name of the dataset, or path of a store's folder; {task}, {bins} and {tier} stand for those of the
            cell.
    """

    store: str = attrs.field(default="{task}", validator=min_len(1))

    @store.validator
    def _check_store(self, _attribute: attrs.Attribute, value: str) -> None:
        try:
            value.format(task="", bins=0, tier="")
        except (KeyError, IndexError, ValueError):
            raise ValueError(
                f"store can hold {{task}}, {{bins}} and {{tier}} in braces and nothing else, got {value!r}"
            ) from None

    def plan(self, name: str, task: str, bins: int, transitions: int, seed: int) -> DatasetPlan:
        return StoredPlan(store_folder(self.store.format(task=task, bins=bins, tier=name)), task, bins)


class StoredPlan(DatasetPlan):
    """The plan of an existing store.

    Args:
        path: folder of the store.
        task: expected task.
        bins: expected number of bins; 0 accepts any.
    """

    def __init__(self, path: Path, task: str, bins: int) -> None:
        self._store = Store.open(path, task, bins or None)
        self.transitions = len(self._store)
        self.observation_size = self._store.observation_size
        self.action_spec = self._store.action_spec
        self.masked = self._store.allowed is not None
        self.sources = {each.behavior: each.transitions for each in self._store.metadata.sources if each.episodes}

    def cached(self) -> Store:
        return self._store

    def store(self, options: BuildOptions = DEFAULT_BUILD) -> Store:
        self._store.verify()
        return self._store


@register
@attrs.frozen(kw_only=True)
class Published(Recipe):
    """The published dataset of a task, number of bins and tier, imported when it is first used.

    Attributes:
        folder: folder of the published files; None takes the environment variable DMC_DISCRETE_DATA_DIR.
    """

    benchmark_only: ClassVar[bool] = True

    folder: str | None = None

    def plan(self, name: str, task: str, bins: int, transitions: int, seed: int) -> DatasetPlan:
        wanted = Name(task=task, bins=bins, tier=name)
        folder = self.folder or os.environ.get(DATA_DIR)
        return PublishedPlan(find(str(Path(folder).expanduser() / wanted.path) if folder else wanted.path), wanted)


class PublishedPlan(DatasetPlan):
    """The plan of a published file, which is imported into the cache; args are the file and its parsed name."""

    def __init__(self, file: Path, name: Name) -> None:
        self._file, self._name = file, name
        status = file.stat()
        # Size and time identify the file: a checksum would have to read a gigabyte at every start.
        identity = fingerprint([str(file.resolve()), status.st_size, status.st_mtime_ns])
        self._entry = f"{name.task}-{name.bins}bins-{name.tier}-published-{identity}"
        task = get_task(name.task)
        self.observation_size = task.observation_size
        self.action_spec = task.action_spec(name.bins)
        store = self.cached()
        # The file holds 8 bytes for each entry of a transition's observation and action, and some 50 bytes more.
        each = 8 * (task.observation_size + task.num_sub_actions) + 50
        self.transitions = len(store) if store else max(1, status.st_size // each)

    def cached(self) -> Store | None:
        path = home() / "stores" / self._entry
        return Store.open(path) if path.exists() else None

    def store(self, options: BuildOptions = DEFAULT_BUILD) -> Store:
        def build(path: Path) -> None:
            name = self._name
            import_published(
                self._file, path, progress=options.progress, task=name.task, bins=name.bins, tier=name.tier
            )

        return get_sound("stores", self._entry, build, opener(), on_wait=options.on_wait, on_damage=options.on_damage)
