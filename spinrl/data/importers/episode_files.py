"""HDF5 files with separate arrays for every episode (d3rlpy 2, robomimic) as tables."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from spinrl.data.importers.array_files import is_column, values_of
from spinrl.data.importers.result import require
from spinrl.data.importers.tables import Block, Table, in_one_line
from spinrl.data.store.metadata import StoreError

EPISODE = "episode"  # column with the number of a row's episode
SPLIT = "split"  # column with the name of its split
_SPLITS = ("train", "valid", "validation", "test")  # masks of robomimic that are splits; others are choices of episodes


@attrs.frozen
class _Part:
    """One episode: the HDF5 paths of its columns, and the columns with one value for the episode."""

    paths: Mapping[str, str]
    last: Mapping[str, bool]  # value in the last row; all others are false
    split: str | None = None  # name of its split, or None


class EpisodeTable(Table):
    """The rows of all episodes, with a column `episode`.

    Args:
        file: HDF5 file.
        layout: name of the library that wrote it, for notes.
        parts: episodes of the file.
        usual: column names by meaning that the layout defines.
    """

    def __init__(self, file: Path, layout: str, parts: Sequence[_Part], usual: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__(file)
        self._parts = parts
        columns = dict.fromkeys(name for part in parts[:1] for name in (*part.paths, *part.last))
        self.names = (*columns, EPISODE)
        self.flags = frozenset(parts[0].last)
        self.usual = {**usual, "episode": (EPISODE,)}
        if parts[0].split is not None:
            self.names, self.usual = (*self.names, SPLIT), {**self.usual, "split": (SPLIT,)}
        self.notes = [f"the layout is that of {layout}: {len(parts):,} episodes with arrays of their own"]

    def read(self, names: Sequence[str], text: Collection[str] = ()) -> Iterator[Block]:
        h5py = require("h5py", "HDF5")
        with in_one_line(self.file), h5py.File(self.file, "r") as opened:
            for number, part in enumerate(self._parts):
                block = self._episode(h5py, opened, number, part, names)
                if len(next(iter(block.values()))):
                    yield block

    def _episode(self, h5py: Any, opened: Any, number: int, part: _Part, names: Sequence[str]) -> Block:
        wanted = [name for name in names if name not in (EPISODE, *part.last) and (name != SPLIT or not part.split)]
        if missing := [name for name in wanted if name not in part.paths]:
            raise StoreError(f"{self.file}: episode {number} has no {missing[0]}")
        # If only a mark or the episode column is read, one array gives the number of rows.
        found = {name: opened[part.paths[name]] for name in wanted or list(part.paths)[:1]}
        block: Block = {}
        for name, column in found.items():
            if not column.shape:
                raise StoreError(f"{self.file}: {name} of episode {number} is a single value")
            if h5py.check_string_dtype(column.dtype) is None:
                self._check(name, column.dtype)
            block[name] = values_of(h5py, column)
        lengths = {name: len(values) for name, values in block.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {rows}" for name, rows in lengths.items())
            raise StoreError(f"{self.file}: the arrays of episode {number} differ in length: {told}")
        rows = next(iter(lengths.values()))
        block[EPISODE] = np.full(rows, number)
        if part.split is not None:
            block[SPLIT] = np.full(rows, part.split)
        for name, value in part.last.items():
            block[name] = (np.arange(rows) == rows - 1) & value
        return block


def episode_layout(file: Path) -> EpisodeTable | None:
    """The table of an HDF5 file with separate arrays for every episode; None for another layout.

    Raises:
        StoreError: when the file cannot be read.
    """
    h5py = require("h5py", "HDF5")
    with in_one_line(file), h5py.File(file, "r") as opened:
        if "total_size" in opened and "observations_0" in opened:
            return _d3rlpy(file, h5py, opened)
        if isinstance(group := opened.get("data"), h5py.Group):
            demonstrations = [name for name in group if isinstance(group.get(name), h5py.Group)]
            if demonstrations and all("actions" in group[name] for name in demonstrations):
                return _robomimic(file, h5py, group, sorted(demonstrations, key=_number))
    return None


def _number(name: str) -> tuple[int, str]:
    found = re.search(r"\d+$", name)
    return (int(found[0]) if found else -1), name


def _d3rlpy(file: Path, h5py: Any, opened: Any) -> EpisodeTable:
    parts = []
    for number in range(sum(1 for name in opened if re.fullmatch(r"observations_\d+", name))):
        arrays = {name: f"{name}_{number}" for name in ("observations", "actions", "rewards")}
        if missing := [path for path in arrays.values() if path not in opened or not is_column(h5py, opened, path)]:
            raise StoreError(f"{file} has observations of episode {number} but no {missing[0]}")
        ended = f"terminated_{number}"
        if ended not in opened or not is_column(h5py, opened, ended) or opened[ended].shape:
            raise StoreError(f"{file} does not say how episode {number} ended: it has no {ended}")
        terminated = bool(opened[ended][()])
        parts.append(_Part(arrays, {"terminated": terminated, "truncated": not terminated}))
    usual = {name: (name,) for name in ("observations", "actions", "rewards")}
    return EpisodeTable(file, "d3rlpy 2", parts, {**usual, "terminals": ("terminated",), "timeouts": ("truncated",)})


def _robomimic(file: Path, h5py: Any, group: Any, demonstrations: Sequence[str]) -> EpisodeTable:
    parts, wide = [], []
    splits = _splits(h5py, group.file.get("mask"), demonstrations)
    for name in demonstrations:
        paths = {}
        for prefix in ("", "obs", "next_obs"):
            inside = group[name].get(prefix) if prefix else group[name]
            for key in inside if isinstance(inside, h5py.Group) else ():
                if is_column(h5py, inside, key) and inside[key].shape:
                    paths[f"{prefix}/{key}" if prefix else key] = inside[key].name
        parts.append(_Part(paths, {}, splits.get(name)))
    columns = parts[0].paths
    usual: dict[str, tuple[str, ...]] = {}
    for prefix, meaning in (("obs/", "observations"), ("next_obs/", "next_observations")):
        named = [column for column in columns if column.startswith(prefix)]
        flat = [column for column in named if len(group.file[columns[column]].shape) < 3]
        wide += sorted(set(named) - set(flat))
        if flat:
            usual[meaning] = tuple(flat)
    table = EpisodeTable(file, "robomimic", parts, usual)
    if wide:
        table.notes.append(f"images and other arrays of a step are left out: {', '.join(wide)}")
    return table


def _splits(h5py: Any, masks: Any, demonstrations: Sequence[str]) -> dict[str, str]:
    """The split of each demonstration; empty unless the file has splits, and each demonstration is in one of them."""
    found: dict[str, str] = {}
    listed = 0
    for split in _SPLITS if isinstance(masks, h5py.Group) else ():
        if split in masks and is_column(h5py, masks, split):
            names = [each.decode() if isinstance(each, bytes) else str(each) for each in np.ravel(masks[split][()])]
            listed += len(names)
            found |= dict.fromkeys(names, split)
    whole = set(found) == set(demonstrations) and listed == len(demonstrations)
    return found if whole and len(set(found.values())) > 1 else {}
