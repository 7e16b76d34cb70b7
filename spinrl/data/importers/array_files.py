"""npz and HDF5 files as tables."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spinrl.data.importers import tables
from spinrl.data.importers.result import require
from spinrl.data.importers.tables import Block, Table, in_one_line
from spinrl.data.store.metadata import StoreError


class NpzTable(Table):
    """An npz file. The columns that are read are in memory, since compressed members cannot be read in pieces.

    Attributes:
        shapes: shape of each column.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.shapes: dict[str, tuple[int, ...]] = {}
        flags = []
        with in_one_line(file):
            if not zipfile.is_zipfile(file):
                np.load(file, allow_pickle=False)  # raises an explanation unless the file is a single array
                raise StoreError(f"{file} holds a single array without a name; write it with numpy.savez")
            with zipfile.ZipFile(file) as archive:
                for member in archive.namelist():
                    if member.endswith(".npy"):
                        shape, dtype = _header(archive, member)
                        self.shapes[member.removesuffix(".npy")] = shape
                        if dtype == np.bool_:
                            flags.append(member.removesuffix(".npy"))
        self.names, self.flags = tuple(self.shapes), frozenset(flags)

    def arrays(self, names: Sequence[str]) -> Block:
        """Whole columns.

        Raises:
            StoreError: for objects, and single numbers.
        """
        arrays: Block = {}
        with in_one_line(self.file), np.load(self.file, allow_pickle=False) as archive:
            for name in names:
                try:
                    arrays[name] = archive[name]
                except ValueError as error:
                    if "pickle" not in str(error):
                        raise
                    raise StoreError(f"{self.file}: column {name} holds objects, not plain numbers") from error
                self._check(name, arrays[name].dtype)
                if arrays[name].ndim == 0:
                    raise StoreError(f"{self.file}: column {name} is a single number")
        return arrays

    def read(self, names: Sequence[str], text: Collection[str] = ()) -> Iterator[Block]:
        arrays = self.arrays(names)
        self._check_lengths({name: len(array) for name, array in arrays.items()})
        for at in range(0, len(arrays[names[0]]), tables.BLOCK):
            yield {name: array[at : at + tables.BLOCK] for name, array in arrays.items()}


def _header(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(member) as content:
        version = np.lib.format.read_magic(content)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(content)
    return shape, dtype


class HDF5Table(Table):
    """The datasets at the top of an HDF5 file; groups are ignored, and so are links that lead out of the file.

    Attributes:
        shapes: shape of each column.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._h5py = require("h5py", "HDF5")
        with in_one_line(file), self._h5py.File(file, "r") as opened:
            found = {name: opened[name] for name in opened if is_column(self._h5py, opened, name)}
            self.shapes = {name: column.shape for name, column in found.items() if column.shape}
            self.flags = frozenset(name for name in self.shapes if found[name].dtype == bool)
            groups = [name for name in opened if self._is_group(opened, name)]
        self.names = tuple(self.shapes)
        if groups:
            told = ", ".join(groups[:5]) + (", …" if len(groups) > 5 else "")
            self.beside = f"groups, which are not read: {told}"

    def _is_group(self, opened: Any, name: str) -> bool:
        hard = isinstance(opened.get(name, getlink=True), self._h5py.HardLink)
        return hard and isinstance(opened[name], self._h5py.Group)

    def arrays(self, names: Sequence[str]) -> Block:
        """Whole columns.

        Raises:
            StoreError: for what is no plain numbers.
        """
        with in_one_line(self.file), self._h5py.File(self.file, "r") as opened:
            for name in names:
                self._check_column(name, opened[name])
            return {name: values_of(self._h5py, opened[name]) for name in names}

    def read(self, names: Sequence[str], text: Collection[str] = ()) -> Iterator[Block]:
        with in_one_line(self.file), self._h5py.File(self.file, "r") as opened:
            for name in names:
                self._check_column(name, opened[name])
            self._check_lengths({name: opened[name].shape[0] for name in names})
            for at in range(0, opened[names[0]].shape[0], tables.BLOCK):
                rows = slice(at, at + tables.BLOCK)
                yield {name: values_of(self._h5py, opened[name], rows) for name in names}

    def _check_column(self, name: str, column: Any) -> None:
        if self._h5py.check_string_dtype(column.dtype) is None:
            self._check(name, column.dtype)
        if column.size and not column.id.get_storage_size():
            raise StoreError(f"{self.file}: column {name} has a shape but no values; it was never written")


def is_column(h5py: Any, group: Any, name: str) -> bool:
    """Whether an entry is a dataset whose values lie in the file itself."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return False
    entry = group[name]
    return isinstance(entry, h5py.Dataset) and not (entry.external or entry.is_virtual)


def values_of(h5py: Any, column: Any, rows: Any = ()) -> np.ndarray:
    """Rows of a dataset, text as text."""
    if h5py.check_string_dtype(column.dtype) is None:
        return np.asarray(column[rows])
    return np.asarray(column.asstr()[rows], dtype=str)
