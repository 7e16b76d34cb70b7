"""What the columns of a file mean, and their values, checked: one block of transitions after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from spinrl.data.importers.tables import Block, open_table
from spinrl.data.store.metadata import StoreError
from spinrl.data.store.validate import not_finite

# What the columns are usually called. Gymnasium's names mean the same as D4RL's.
ALIASES: dict[str, tuple[str, ...]] = {
    "observations": ("observations", "observation", "obs", "states", "state"),
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward"),
    "next_observations": ("next_observations", "next_observation", "next_obs", "next_states", "next_state"),
    "terminals": ("terminals", "terminal", "terminations", "terminated"),
    "timeouts": ("timeouts", "timeout", "truncations", "truncated"),
    "dones": ("dones", "done"),
    "episode": ("episode", "episodes", "episode_id", "episode_ids", "episode_index"),
}
REQUIRED = ("observations", "actions", "rewards")
_SEVERAL = ("observations", "actions", "next_observations")  # may be spread over columns of one number each
_EXACT = 2.0**53  # beyond it, floats hold no single whole numbers


@attrs.frozen(eq=False, kw_only=True)
class Columns:
    """B consecutive transitions of a file.

    Attributes:
        first_row: of the file, where they begin.
        observations: (B, S) float32.
        actions: (B, N) int64, as they stand in the file.
        rewards: (B,) float32.
        next_observations: (B, S) float32, or None.
        terminals: (B,) bool, ended by the task, or None.
        timeouts: (B,) bool, ended by a time limit, or None.
        dones: (B,) bool, ended by either, or None.
        episode: (B,) integers or text, the same throughout an episode, or None.
    """

    first_row: int
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray | None = None
    terminals: np.ndarray | None = None
    timeouts: np.ndarray | None = None
    dones: np.ndarray | None = None
    episode: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.actions)

    def __getitem__(self, rows: slice) -> Columns:
        parts: dict[str, Any] = {name: values[rows] for name, values in self._arrays().items()}
        return attrs.evolve(self, first_row=self.first_row + (rows.start or 0), **parts)

    def __add__(self, other: Columns) -> Columns:
        parts: dict[str, Any] = {
            name: np.concatenate([values, getattr(other, name)]) for name, values in self._arrays().items()
        }
        return attrs.evolve(self, **parts)

    def _arrays(self) -> dict[str, Any]:
        """Those that there are."""
        values = {field.name: getattr(self, field.name) for field in attrs.fields(Columns)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


class Arrays:
    """The transitions of a file.

    Args:
        file: npz, HDF5 or Parquet.
        given: names of columns by what they mean, in place of the usual ones; none at all for what is not to be used.

    Attributes:
        columns: names by what they mean, for everything that the file has.
        float_actions: whether actions are whole numbers stored as floats; known once they were read.
        coarse: by meaning, the first entry that single precision does not tell apart; known once they were read.

    Raises:
        StoreError: when the file cannot be read, a column is missing, or several could be meant.
    """

    def __init__(self, file: Path, given: Mapping[str, Sequence[str]]) -> None:
        self.file = file
        self.float_actions = False
        self.coarse: dict[str, int] = {}
        self._table = open_table(file)
        self.columns = find_columns(file, self._table.names, given)

    def blocks(self, *meanings: str) -> tuple[int, Iterator[Block]]:
        """The number of rows, and some columns block by block: (B, ...) each, those of one meaning side by side.

        Raises:
            StoreError: for values that are no plain finite numbers.
        """
        names = [name for meaning in meanings for name in self.columns[meaning]]
        rows, blocks = self._table.read(names)
        if not rows:
            raise StoreError(f"{self.file} holds no transitions")
        return rows, self._checked(meanings, blocks)

    def transitions(self) -> tuple[int, Iterator[Columns]]:
        """The number of rows, and all of them.

        Raises:
            StoreError: for values that are no plain finite numbers.
        """
        rows, blocks = self.blocks(*self.columns)
        return rows, self._transitions(blocks)

    def _transitions(self, blocks: Iterator[Block]) -> Iterator[Columns]:
        row, size = 0, 0
        for block in blocks:
            columns = Columns(first_row=row, **block)
            size = size or columns.observations.shape[1]
            for name in ("observations", "next_observations"):
                values = getattr(columns, name)
                if values is not None and values.shape[1] != size:
                    sizes = f"{values.shape[1]} entries in row {row}, the first observation has {size}"
                    raise StoreError(f"{self.file}: {name} have {sizes}")
            yield columns
            row += len(columns)

    def _checked(self, meanings: Sequence[str], blocks: Iterator[Block]) -> Iterator[Block]:
        row = 0
        for block in blocks:
            yield {meaning: self._values(meaning, block, row) for meaning in meanings}
            row += len(next(iter(block.values())))

    def _values(self, meaning: str, block: Block, row: int) -> np.ndarray:
        for name in self.columns[meaning]:
            shape = block[name].shape[1:]
            if 0 in shape:
                raise StoreError(f"{self.file}: column {name} has no entries in a row")
            if meaning == "actions" and sum(size > 1 for size in shape) > 1:
                raise StoreError(
                    f"{self.file}: {name} want one number a sub-action, got {' × '.join(map(str, shape))} a row; "
                    "of one-hot vectors, take argmax(-1)"
                )
        values = [block[name].reshape(len(block[name]), -1) for name in self.columns[meaning]]
        together = np.concatenate(values, axis=1)
        kind, what = together.dtype.kind, f"{self.file}: {meaning}"
        if meaning not in _SEVERAL and together.shape[1] != 1:
            raise StoreError(f"{what} want one value a row, got {together.shape[1]}")
        if meaning == "episode":
            if kind == "f":
                raise StoreError(f"{what} wants integers or text, got {together.dtype}")
            return together[:, 0]
        if kind in "SU":
            raise StoreError(f"{what} want numbers, got text; encode it as integers")
        if meaning == "actions":
            self.float_actions |= kind == "f"
            return _whole(together, what, row)
        if meaning in ("terminals", "timeouts", "dones"):
            return _flags(together, what, row)[:, 0]
        _refuse(not_finite(together), together, what, row, "a finite number")
        single = together.astype(np.float32)
        # Of a time stamp, say, whose differences single precision does not hold.
        if together.dtype.itemsize > single.dtype.itemsize:
            exact = together.astype(np.float64)
            lost, spread = np.abs(exact - single).max(axis=0), np.ptp(exact, axis=0)
            if (coarse := np.flatnonzero((lost > 1e-3 * spread) & (spread > 0))).size:
                self.coarse.setdefault(meaning, int(coarse[0]))
        return single if meaning in _SEVERAL else single[:, 0]


def _whole(values: np.ndarray, what: str, row: int) -> np.ndarray:
    """(B, N) int64."""
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            bad = ~((values == np.floor(values)) & (np.abs(values) < _EXACT))
        _refuse(bad, values, what, row, "whole numbers, the index of a choice (discretise continuous ones first)")
    return values.astype(np.int64)


def _flags(values: np.ndarray, what: str, row: int) -> np.ndarray:
    """(B, 1) bool."""
    _refuse((values != 0) & (values != 1), values, what, row, "0 or 1")
    return values.astype(bool)


def _refuse(bad: np.ndarray, values: np.ndarray, what: str, row: int, wanted: str) -> None:
    if bad.any():
        at, entry = (int(index) for index in np.argwhere(bad)[0])
        raise StoreError(f"{what} want {wanted}, got {values[at, entry]} in row {row + at}, entry {entry}")


def find_columns(file: Path, names: Sequence[str], given: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Which columns mean what.

    Args:
        file: named in messages.
        names: of all columns.
        given: names by meaning, in place of the usual ones; none at all for what is not to be used.

    Returns:
        Names by meaning, of what there is.

    Raises:
        StoreError: when a column is missing, or several could be meant.
    """
    found: dict[str, tuple[str, ...]] = {}
    for meaning, aliases in ALIASES.items():
        columns = tuple(given[meaning]) if meaning in given else _usual(file, names, meaning, aliases)
        if missing := [name for name in columns if name not in names]:
            raise StoreError(f"{file} has no column {missing[0]} for {meaning}; it has {', '.join(names) or 'none'}")
        if columns:
            found[meaning] = columns
        elif meaning in REQUIRED:
            raise StoreError(
                f"{file} has no column for {meaning}; it has {', '.join(names) or 'none'}; "
                f"name it with --column {meaning}=NAME"
            )
    return found


def _usual(file: Path, names: Sequence[str], meaning: str, aliases: Sequence[str]) -> tuple[str, ...]:
    """The columns that are called as usual: one, or ``observation_0`` and so on."""
    options: list[tuple[str, ...]] = [(alias,) for alias in aliases if alias in names]
    if meaning in _SEVERAL:
        for alias in aliases:
            numbered = {int(name[len(alias) + 1 :]) for name in names if re.fullmatch(rf"{alias}_\d+", name)}
            if numbered:
                options.append(tuple(f"{alias}_{number}" for number in range(max(numbered) + 1)))
    if len(options) > 1:
        told = " or ".join(columns[0] for columns in options)
        raise StoreError(f"{file}: {meaning} could be {told}; say which with --column {meaning}={options[0][0]}")
    return options[0] if options else ()
