"""An import request: options as text, the kind of the file, and the place of the store."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from spinrl.cache import Progress
from spinrl.data.importers import published
from spinrl.data.importers.array_import import import_arrays
from spinrl.data.importers.choices import Choices
from spinrl.data.importers.ends import Kind as EndKind
from spinrl.data.importers.files import FORMATS
from spinrl.data.importers.meanings import GIVEN
from spinrl.data.importers.minari_datasets import import_minari
from spinrl.data.importers.options import ArrayOptions
from spinrl.data.importers.result import ImportResult
from spinrl.data.importers.tables import PACKED, ending
from spinrl.data.importers.values import Missing
from spinrl.data.outliers import suspicions
from spinrl.data.store.metadata import StoreError, check_name, read_metadata
from spinrl.data.store.store import Store

MINARI = "minari:"
Kind = Literal["arrays", "minari", "published"]
ARRAY_OPTIONS = (
    *("choices", "one_hot", "action_offset", "ends", "episode_length", "episode_column", "step_column", "missing"),
    "column",
)


@attrs.frozen(kw_only=True)
class Request:
    """The request for an import. Options are text as typed, None if not given.

    Attributes:
        files: one or several files to import.
        name, task, tier, bins: properties of the dataset.
        choices, one_hot, action_offset, ends, episode_length, episode_column, step_column, missing, column: options
            for `ArrayOptions`.

    Raises:
        StoreError: for options that are invalid, or do not go with the files.
    """

    files: Sequence[str]
    name: str | None = None
    task: str | None = None
    tier: str | None = None
    bins: int | None = None
    choices: str | None = None
    one_hot: str | None = None
    action_offset: str | None = None
    ends: EndKind | None = None
    episode_length: int | None = None
    episode_column: str | None = None
    step_column: str | None = None
    missing: Missing | None = None
    column: Sequence[str] | None = None

    def __attrs_post_init__(self) -> None:
        allowed = {"arrays": ARRAY_OPTIONS, "minari": (), "published": ("bins",)}[self.kind]
        for option in (*ARRAY_OPTIONS, "bins"):
            if option not in allowed and getattr(self, option) is not None:
                raise StoreError(f"--{option.replace('_', '-')} does not go with {self.files[0]}; leave it out")
        if len(self.files) > 1 and {kind_of(file) for file in self.files} != {"arrays"}:
            raise StoreError(f"several files are imported together only of {', '.join(FORMATS)}")
        if self.name is not None:
            check_name("--name", self.name)

    @property
    def kind(self) -> Kind:
        """The kind of the first file."""
        return kind_of(self.files[0])

    def dataset_name(self) -> str:
        """The given name of the dataset, or one from the file's name.

        Raises:
            StoreError: when there is no such published file.
        """
        if self.name is not None:
            return self.name
        first = self.files[0]
        if self.kind == "published":
            about = published.Name.of(published.find(first), **self._told())
            return f"{about.task}-{about.tier}-{about.bins}bins"
        found = first.removeprefix(MINARI)
        if self.kind == "arrays":
            name = Path(first).name
            packed = next((each for each in PACKED if name.lower().endswith(each)), "")
            found = Path(name.removesuffix(packed)).stem
        return re.sub(r"[^\w.-]+", "-", found).strip(".-") or "dataset"

    def array_options(self) -> ArrayOptions:
        """The options for files of columns.

        Raises:
            StoreError: for choices that are not numbers, and columns of unknown meaning.
        """
        choices: Choices = None
        if self.choices == "observed":
            choices = "observed"
        elif self.choices is not None:
            choices = _numbers("--choices", self.choices, "3,3,5, or observed")
        columns: dict[str, str | Sequence[str]] = {}
        for given in self.column or []:
            meaning, equals, names = given.partition("=")
            if meaning not in GIVEN or not equals:
                raise StoreError(f"--column: expected MEANING=NAME with a meaning of {', '.join(GIVEN)}, got {given!r}")
            if meaning in columns:
                raise StoreError(f"--column names {meaning} twice; give all its columns at once: {meaning}=NAME,NAME")
            columns[meaning] = names
        if self.episode_column is not None:
            columns["episode"] = (self.episode_column,)
        return ArrayOptions(
            choices=choices,
            one_hot=_numbers("--one-hot", self.one_hot, "3,3,5") if self.one_hot is not None else (),
            action_offset=_numbers("--action-offset", self.action_offset or "0", "1, or 1,0,-2 for each sub-action"),
            ends=self.ends,
            episode_length=self.episode_length,
            step_column=self.step_column,
            missing=self.missing,
            columns=columns,
        )

    def write(self, path: Path, progress: Progress | None = None) -> ImportResult:
        """Import the files as a store at `path`, which must not exist yet.

        Raises:
            StoreError: when the import fails; the message is one line, and no partial files are left.
        """
        name, first = self.dataset_name(), self.files[0]
        if self.kind == "arrays":
            files = [Path(file).expanduser() for file in self.files]
            task, tier = self.task or name, self.tier or "logged"
            return import_arrays(files, path, self.array_options(), task=task, tier=tier, progress=progress)
        if self.kind == "minari":
            dataset_id = first.removeprefix(MINARI)
            result = import_minari(dataset_id, path, name=name, task=self.task, tier=self.tier, progress=progress)
        else:
            store = published.import_published(published.find(first), path, progress=progress, **self._told())
            result = ImportResult(store, ["task, bins and tier are as the file is called, or as given"])
        return attrs.evolve(result, warnings=[*result.warnings, *suspicions(result.store)])

    def _told(self) -> dict[str, Any]:
        """The options that replace parts of a published file's name."""
        return {"task": self.task, "bins": self.bins, "tier": self.tier}


def _numbers(option: str, text: str, example: str) -> list[int]:
    if not re.fullmatch(r"-?\d{1,10}(,-?\d{1,10})*", text):
        raise StoreError(f"{option}: expected whole numbers such as {example}, got {text!r}")
    return [int(each) for each in text.split(",")]


def kind_of(file: str) -> Kind:
    """The kind of a file, from its name.

    Raises:
        StoreError: for a file that cannot be read.
    """
    if file.startswith(MINARI):
        return "minari"
    suffix = ending(Path(file))
    if suffix in FORMATS or Path(file).expanduser().is_dir():
        return "arrays"
    if suffix in ("", ".pkl", ".pickle"):
        return "published"
    raise StoreError(
        f"{file}: expected {', '.join(FORMATS)}, a folder of these, minari:ID or a published <bins>_bins/<task>-<tier>"
    )


def placed(path: Path, replace: bool, make: Callable[[Path], ImportResult]) -> ImportResult:
    """Make a store at `path`; a store to be replaced stays until the new one is complete.

    Raises:
        StoreError: when `path` exists and `replace` is False, or it is no store.
    """
    if not path.exists():
        return make(path)
    try:
        read_metadata(path)
    except StoreError as error:
        raise StoreError(f"{path} exists already and is left alone, for it is no sound store: {error}") from None
    if not replace:
        raise StoreError(f"{path} exists already; give another --name, or --replace it")
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        result = make(beside / path.name)
        shutil.rmtree(path)
        result.store.path.rename(path)
        return attrs.evolve(result, store=Store.open(path))
    finally:
        shutil.rmtree(beside, ignore_errors=True)
