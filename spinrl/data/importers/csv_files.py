"""CSV files as tables, compressed or not; pandas reads them in pieces."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spinrl.data.importers import tables
from spinrl.data.importers.tables import Block, Table, in_one_line
from spinrl.data.store.metadata import StoreError

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_HEAD = 1000  # rows from which columns of booleans are recognised
_LONGEST = 1 << 20  # most characters of the line of names


class CsvTable(Table):
    """UTF-8 text with a line of names and a line per row, separated by commas, semicolons, tabs or bars."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        with in_one_line(file):
            line = self._lines(1)[0]
            self._separator = max(_SEPARATORS, key=lambda each: len(next(csv.reader([line], delimiter=each), [])))
            names = [name.strip() for name in next(csv.reader([line], delimiter=self._separator), [])]
            # Columns without a name are the row numbers that pandas writes.
            self.names = tuple(name or f"Unnamed: {number}" for number, name in enumerate(names))
            self._check_names()
            self._check_width()
            head = self._frames(nrows=_HEAD)
            self.flags = frozenset(name for name in self.names if pd.api.types.is_bool_dtype(head[name].dtype))
        if self._separator != ",":
            self.notes.append(f"its columns are separated by {_SEPARATORS[self._separator]}")

    def _lines(self, count: int) -> list[str]:
        opener: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(self.file.suffix.lower(), open)
        with opener(self.file, "rt", encoding="utf-8-sig", newline="") as opened:
            return [opened.readline(_LONGEST) for _ in range(count)]

    def _check_names(self) -> None:
        if not self.names:
            raise StoreError(f"{self.file} is empty; its first line should name the columns")
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            raise StoreError(f"{self.file} has two columns called {twice[0]}")
        if all(_is_number(name) for name in self.names):
            raise StoreError(f"{self.file} has numbers in its first line, which should name the columns; add the names")

    def _frames(self, **options: Any) -> Any:
        return pd.read_csv(
            self.file,
            sep=self._separator,
            header=0,
            names=list(self.names),
            index_col=False,
            encoding="utf-8-sig",
            low_memory=False,
            skipinitialspace=True,
            on_bad_lines="error",
            **options,
        )

    def read(self, names: Sequence[str], text: Collection[str] = ()) -> Iterator[Block]:
        columns = list(dict.fromkeys(names))
        with in_one_line(self.file):
            row = 0
            with self._frames(chunksize=tables.BLOCK, dtype=dict.fromkeys(text, str)) as frames:
                for frame in frames:
                    if len(frame):
                        yield {name: self._column(name, frame[name], row) for name in columns}
                        row += len(frame)

    def _check_width(self) -> None:
        """Refuse a first row that is longer than the line of names; pandas would drop its end."""
        lengths = [len(each) for each in csv.reader(self._lines(2), delimiter=self._separator)]
        if lengths[-1] > lengths[0]:
            raise StoreError(f"{self.file} names {lengths[0]} columns, and its first row has {lengths[1]} values")

    def _column(self, name: str, values: pd.Series, row: int) -> np.ndarray:
        if pd.api.types.is_numeric_dtype(values.dtype):
            return values.to_numpy()
        missing = values.isna().to_numpy()
        present = values[~missing]
        if missing.all():
            return np.full(len(values), np.nan)
        if all(isinstance(value, bool) for value in present):  # flags, some of which are missing
            return values.map(float, na_action="ignore").to_numpy(dtype=np.float64)
        if missing.any():
            at = row + int(np.argmax(missing))
            kind = "text" if all(isinstance(value, str) for value in present) else "values of several kinds"
            raise StoreError(f"{self.file}: column {name} holds {kind}, and row {at} has no value")
        return np.array(values.tolist(), dtype=str)


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
