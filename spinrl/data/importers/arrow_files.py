"""Parquet and Feather files as tables."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spinrl.data.importers import tables
from spinrl.data.importers.result import require
from spinrl.data.importers.tables import Block, Table, in_one_line
from spinrl.data.store.metadata import StoreError


class ArrowTable(Table):
    """Columns of numbers, text, dates, or lists of equal length; missing numbers are NaN."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._arrow = require("pyarrow", "Parquet and Feather")
        with in_one_line(file):
            schema = self._schema()
        self.names = tuple(schema.names)
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            raise StoreError(f"{file} has two columns called {twice[0]}")
        self.flags = frozenset(field.name for field in schema if self._arrow.types.is_boolean(field.type))

    @abstractmethod
    def _schema(self) -> Any: ...

    @abstractmethod
    def _batches(self, names: list[str]) -> Iterator[Any]: ...

    def read(self, names: Sequence[str], text: Collection[str] = ()) -> Iterator[Block]:
        with in_one_line(self.file):
            row = 0
            for batch in self._batches(list(dict.fromkeys(names))):
                if batch.num_rows:  # row groups may be empty
                    yield {name: self._column(name, batch.column(name), row) for name in names}
                    row += batch.num_rows

    def _column(self, name: str, values: Any, row: int) -> np.ndarray:
        types, kind = self._arrow.types, values.type
        if isinstance(values, self._arrow.ExtensionArray):
            return self._column(name, values.storage, row)
        if types.is_dictionary(kind):  # categories of pandas
            return self._column(name, values.dictionary_decode(), row)
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            self._refuse_nulls(name, values, row)
            lengths = np.unique(values.value_lengths().to_numpy(zero_copy_only=False))
            if len(lengths) > 1:
                raise StoreError(f"{self.file}: column {name} holds lists of {lengths[0]} to {lengths[-1]} entries")
            return self._column(name, values.flatten(), row).reshape(len(values), -1)
        if types.is_string(kind) or types.is_large_string(kind):
            self._refuse_nulls(name, values, row)
            return np.array(values.to_pylist(), dtype=str)
        if types.is_decimal(kind):
            values = values.cast(self._arrow.float64())
        if types.is_boolean(kind) and values.null_count:
            values = values.cast(self._arrow.int8())
        if types.is_null(kind):
            return np.full(len(values), np.nan)
        array = np.asarray(values.to_numpy(zero_copy_only=False))
        self._check(name, array.dtype)
        return array

    def _refuse_nulls(self, name: str, values: Any, row: int) -> None:
        if values.null_count:
            at = row + int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
            raise StoreError(f"{self.file}: column {name} has rows without a value, the first is row {at}")


class ParquetTable(ArrowTable):
    """A Parquet file, read in pieces."""

    def _schema(self) -> Any:
        with require("pyarrow.parquet", "Parquet").ParquetFile(self.file) as opened:
            return opened.schema_arrow

    def _batches(self, names: list[str]) -> Iterator[Any]:
        with require("pyarrow.parquet", "Parquet").ParquetFile(self.file) as opened:
            yield from opened.iter_batches(batch_size=tables.BLOCK, columns=names)


class FeatherTable(ArrowTable):
    """A Feather (Arrow IPC) file; the columns that are read are in memory."""

    def _schema(self) -> Any:
        return require("pyarrow.feather", "Feather").read_table(self.file).schema

    def _batches(self, names: list[str]) -> Iterator[Any]:
        table = require("pyarrow.feather", "Feather").read_table(self.file, columns=names)
        yield from table.combine_chunks().to_batches(max_chunksize=tables.BLOCK)
