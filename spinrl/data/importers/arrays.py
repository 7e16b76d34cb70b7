"""The checked transitions of one file of columns, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from spinrl.data.importers import tables
from spinrl.data.importers.files import open_table
from spinrl.data.importers.meanings import Names, find_columns
from spinrl.data.importers.padded import PADDING, PaddedTable, is_padded
from spinrl.data.importers.tables import Block
from spinrl.data.importers.values import Missing, Values
from spinrl.data.store.metadata import StoreError


@attrs.frozen(eq=False, kw_only=True)
class Columns:
    """B consecutive transitions of a file.

    Attributes:
        first_row: row of the file at which they begin.
        observations: (B, S) float32.
        actions: (B, N) int64, as in the file.
        rewards: (B,) float32.
        next_observations: (B, S) float32, or None.
        terminals: (B,) bool, ended by the task, or None.
        timeouts: (B,) bool, ended by a time limit, or None.
        dones: (B,) bool, ended by either, or None.
        episode: (B,) integers or text, the same throughout an episode, or None.
        step: (B, n) float64, n counts that rise within an episode, or None.
        split: (B,) text, the split of the data to which the episode belongs, such as train or test, or None.
        allowed: (B, n) bool, the allowed choices, as in the file, or None.
        next_allowed: (B, n) bool, the allowed choices at the next observation, or None.
        propensities: (B, 1) or (B, N) float32, the behaviour's probability of its action or sub-actions, or None.
        missing: (B,) bool, rows that lack a number and are to be dropped, or None.
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
    step: np.ndarray | None = None
    split: np.ndarray | None = None
    allowed: np.ndarray | None = None
    next_allowed: np.ndarray | None = None
    propensities: np.ndarray | None = None
    missing: np.ndarray | None = None

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
        """The arrays that are not None."""
        values = {field.name: getattr(self, field.name) for field in attrs.fields(Columns)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


class Arrays:
    """The transitions of a file.

    Args:
        file: file that `open_table` reads, or a folder of parts.
        given: column names by meaning in place of the usual names; an empty one ignores that meaning.
        missing: treatment of missing numbers in observations; None refuses them.
        one_hot: number of choices of each sub-action, if actions are one-hot vectors.

    Attributes:
        columns: column names by meaning, for every meaning that the file has.
        unused: names of the other columns.
        flags: names of unused columns that hold booleans.
        values: converter of the columns, with its counts.
        order: order of the rows if they are sorted, else None.

    Raises:
        StoreError: when the file cannot be read, a column is missing, or several could be meant.
    """

    def __init__(self, file: Path, given: Names, missing: Missing | None = None, one_hot: Sequence[int] = ()) -> None:
        self.file = file
        self.order: np.ndarray | None = None
        self._table = open_table(file)
        columns = find_columns(self._table, given)
        names = self._table.names
        if is_padded(self._table, columns):
            for meaning, aliases in PADDING.items():
                if meaning not in columns and (found := [alias for alias in aliases if alias in names]):
                    columns[meaning] = (found[0],)
            padding = [name for meaning in PADDING for name in columns.get(meaning, ())]
            padded = PaddedTable(self._table, columns)  # type: ignore[arg-type]
            self._table, columns = padded, padded.columns
            names = tuple(name for name in names if name not in padding)
        elif given_in_vain := [meaning for meaning in PADDING if columns.pop(meaning, None) is not None]:
            raise StoreError(
                f"{file} has a row a step, so --column {given_in_vain[0]} does not go with it; leave it out"
            )
        self.columns = columns
        used = {name for each in columns.values() for name in each}
        self.unused = [name for name in names if name not in used]
        self.flags = [name for name in self.unused if name in self._table.flags]
        self.values = Values(file, columns, missing, one_hot)

    @property
    def notes(self) -> list[str]:
        """Lines on how the file was read."""
        return self._table.notes

    def raw(self, *names: str) -> Iterator[Block]:
        """Columns as they are in the file.

        Raises:
            StoreError: for values that are not plain.
        """
        rows = 0
        for block in self._table.read(names, text=self.columns.get("episode", ())):
            rows += len(next(iter(block.values())))
            yield block
        if not rows:
            raise StoreError(f"{self.file} holds no transitions")

    def blocks(self, *meanings: str) -> Iterator[Block]:
        """Some columns block by block: (B, ...) each, those of one meaning side by side, in the order of the file.

        Raises:
            StoreError: for values that are not plain, or no finite numbers.
        """
        row = 0
        for block in self.raw(*(name for meaning in meanings for name in self.columns[meaning])):
            yield self.values.of(meanings, block, row)
            row += len(next(iter(block.values())))

    def transitions(self) -> Iterator[Columns]:
        """All transitions.

        Raises:
            StoreError: for values that are not plain, or no finite numbers.
        """
        row, size = 0, 0
        for block in self._ordered(self.blocks(*self.columns)):
            columns = Columns(first_row=row, **block)
            size = size or columns.observations.shape[1]
            for name in ("observations", "next_observations"):
                values = getattr(columns, name)
                if values is not None and values.shape[1] != size:
                    sizes = f"{values.shape[1]} entries in row {row}, the first observation has {size}"
                    raise StoreError(f"{self.file}: {name} have {sizes}")
            yield columns
            row += len(columns)

    def _ordered(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """The blocks in order; sorted rows are one block, which has to fit into memory."""
        if self.order is None:
            yield from blocks
            return
        found = list(blocks)
        shapes = {name: {block[name].shape[1:] for block in found} for name in found[0]}
        if uneven := [name for name, each in shapes.items() if len(each) > 1]:
            raise StoreError(f"{self.file}: {uneven[0]} have different numbers of entries in different rows")
        whole = {name: np.concatenate([block[name] for block in found])[self.order] for name in found[0]}
        for at in range(0, len(self.order), tables.BLOCK):
            yield {name: values[at : at + tables.BLOCK] for name, values in whole.items()}
