"""Files of named columns, read in blocks of rows: npz, HDF5 and Parquet. Nothing in them is ever unpickled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from spinrl.data.importers.result import require
from spinrl.data.store.metadata import StoreError

BLOCK = 1 << 15  # rows read at once
_PLAIN = "biufSU"  # booleans, numbers and text; no objects, records or dates

Block = dict[str, np.ndarray]


class Table(ABC):
    """The columns of one file.

    Args:
        file: what is read.

    Attributes:
        names: of the columns.

    Raises:
        StoreError: when the file is not what its ending says, or a package is missing.
    """

    names: tuple[str, ...]

    def __init__(self, file: Path) -> None:
        self.file = file

    @abstractmethod
    def read(self, names: Sequence[str]) -> tuple[int, Iterator[Block]]:
        """The number of rows, and some columns of them, block after block.

        Raises:
            StoreError: for columns that are no plain numbers or differ in length, and files that are damaged.
        """

    def _check(self, name: str, dtype: np.dtype) -> None:
        if dtype.kind not in _PLAIN:
            raise StoreError(f"{self.file}: column {name} holds {dtype}, not plain numbers")

    def _rows(self, lengths: Mapping[str, int]) -> int:
        """The one length of all columns."""
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {rows}" for name, rows in lengths.items())
            raise StoreError(f"{self.file}: columns differ in length: {told}")
        return next(iter(lengths.values()))


class NpzTable(Table):
    """What ``numpy.savez`` writes. Compressed members cannot be read in pieces: the columns asked for are in memory."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        with in_one_line(file), self._open() as archive:
            self.names = tuple(archive.files)

    def _open(self) -> Any:
        archive = np.load(self.file, allow_pickle=False)
        if not hasattr(archive, "files"):
            raise StoreError(f"{self.file} holds a single array without a name; write it with numpy.savez")
        return archive

    def read(self, names: Sequence[str]) -> tuple[int, Iterator[Block]]:
        arrays: Block = {}
        with in_one_line(self.file), self._open() as archive:
            for name in names:
                try:
                    arrays[name] = archive[name]
                except ValueError as error:  # of numpy, for what only a pickle could hold
                    raise StoreError(f"{self.file}: column {name} holds objects, not plain numbers") from error
                self._check(name, arrays[name].dtype)
                if arrays[name].ndim == 0:
                    raise StoreError(f"{self.file}: column {name} is a single number")
        rows = self._rows({name: len(array) for name, array in arrays.items()})
        starts = range(0, rows, BLOCK)
        return rows, ({name: array[at : at + BLOCK] for name, array in arrays.items()} for at in starts)


class HDF5Table(Table):
    """The datasets at the top of an HDF5 file; groups are ignored, and so are links that lead out of the file."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._h5py = require("h5py", "HDF5")
        with in_one_line(file), self._h5py.File(file, "r") as opened:
            self.names = tuple(name for name in opened if self._is_column(opened, name))

    def _is_column(self, opened: Any, name: str) -> bool:
        if not isinstance(opened.get(name, getlink=True), self._h5py.HardLink):
            return False
        entry = opened[name]
        return isinstance(entry, self._h5py.Dataset) and bool(entry.shape) and not (entry.external or entry.is_virtual)

    def read(self, names: Sequence[str]) -> tuple[int, Iterator[Block]]:
        with in_one_line(self.file), self._h5py.File(self.file, "r") as opened:
            for name in names:
                if not self._is_text(opened[name]):
                    self._check(name, opened[name].dtype)
            rows = self._rows({name: opened[name].shape[0] for name in names})
        return rows, self._blocks(names, rows)

    def _blocks(self, names: Sequence[str], rows: int) -> Iterator[Block]:
        with in_one_line(self.file), self._h5py.File(self.file, "r") as opened:
            for at in range(0, rows, BLOCK):
                yield {name: self._block(opened[name], slice(at, at + BLOCK)) for name in names}

    def _is_text(self, column: Any) -> bool:
        return self._h5py.check_string_dtype(column.dtype) is not None

    def _block(self, column: Any, rows: slice) -> np.ndarray:
        return np.asarray(column.asstr()[rows], dtype=str) if self._is_text(column) else column[rows]


class ParquetTable(Table):
    """Columns of numbers, or of lists that are all of one length."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._parquet = require("pyarrow.parquet", "Parquet")
        with in_one_line(file), self._parquet.ParquetFile(file) as opened:
            self.names = tuple(opened.schema_arrow.names)

    def read(self, names: Sequence[str]) -> tuple[int, Iterator[Block]]:
        with in_one_line(self.file), self._parquet.ParquetFile(self.file) as opened:
            return opened.metadata.num_rows, self._blocks(names)

    def _blocks(self, names: Sequence[str]) -> Iterator[Block]:
        with in_one_line(self.file), self._parquet.ParquetFile(self.file) as opened:
            for batch in opened.iter_batches(batch_size=BLOCK, columns=list(dict.fromkeys(names))):
                if batch.num_rows:  # row groups may be empty
                    yield {name: self._column(name, batch.column(name)) for name in names}

    def _column(self, name: str, values: Any) -> np.ndarray:
        types = require("pyarrow.types", "Parquet")
        if values.null_count:
            raise StoreError(f"{self.file}: column {name} has rows without a value")
        if types.is_list(values.type) or types.is_large_list(values.type) or types.is_fixed_size_list(values.type):
            lengths = np.unique(values.value_lengths().to_numpy(zero_copy_only=False))
            if len(lengths) > 1:
                raise StoreError(f"{self.file}: column {name} holds lists of {lengths[0]} to {lengths[-1]} entries")
            return self._column(name, values.flatten()).reshape(len(values), -1)
        if types.is_dictionary(values.type):  # categories of pandas
            return self._column(name, values.dictionary_decode())
        if types.is_string(values.type) or types.is_large_string(values.type):
            return np.array(values.to_pylist(), dtype=str)
        array = values.to_numpy(zero_copy_only=False)
        self._check(name, array.dtype)
        return array


FORMATS: dict[str, type[Table]] = {
    ".npz": NpzTable,
    ".h5": HDF5Table,
    ".hdf5": HDF5Table,
    ".parquet": ParquetTable,
}


def open_table(file: Path) -> Table:
    """Open a file by its ending.

    Raises:
        StoreError: when there is none of that name, it is of another kind, damaged, or a package is missing.
    """
    if file.suffix.lower() not in FORMATS:
        raise StoreError(f"{file} is none of {', '.join(FORMATS)}")
    if not file.is_file():
        raise StoreError(f"there is no file {file}")
    return FORMATS[file.suffix.lower()](file)


@contextmanager
def in_one_line(what: Path | str, done: str = "read") -> Iterator[None]:
    """Say in one line what could not be done.

    Raises:
        StoreError: for every other exception within.
    """
    try:
        yield
    except StoreError:
        raise
    except MemoryError:
        raise StoreError(f"{what} does not fit into memory; HDF5 and Parquet are read in pieces") from None
    except Exception as error:  # a damaged file fails in whatever way its library happens to
        lines = str(error).splitlines() or [""]
        raise StoreError(f"{what} could not be {done}: {lines[0] or type(error).__name__}") from error
