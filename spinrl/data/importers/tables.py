"""Files of named columns with a row per step, read in blocks of rows. Nothing in them is ever unpickled."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from spinrl.data.store.metadata import StoreError

BLOCK = 1 << 15  # rows read at once
PACKED = (".gz", ".bz2", ".xz")  # endings of compressed text
_PLAIN = "biufSUMm"  # booleans, numbers, text and dates; no objects or records

Block = dict[str, np.ndarray]


class Table(ABC):
    """The columns of one file.

    Args:
        file: file to read.

    Attributes:
        names: names of the columns, in the order of the file.
        flags: names of the columns of booleans.
        notes: lines on how the file was read, if that is not obvious.
        beside: other content of the file, for messages; empty if there is none.

    Raises:
        StoreError: when the file is not of the kind of its ending, or a package is missing.
    """

    names: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()

    def __init__(self, file: Path) -> None:
        self.file = file
        self.notes: list[str] = []
        self.beside = ""

    @abstractmethod
    def read(self, names: Sequence[str], text: Collection[str] = ()) -> Iterator[Block]:
        """Some columns, block after block: (B, ...) each.

        Args:
            names: names of the columns to read.
            text: names of those columns that hold text, such as names of episodes; formats without types do not
                convert these to numbers.

        Raises:
            StoreError: for columns that are no plain values or differ in length, and files that are damaged.
        """

    def _check(self, name: str, dtype: np.dtype) -> None:
        if dtype.kind not in _PLAIN:
            raise StoreError(f"{self.file}: column {name} holds {dtype}, not plain numbers")

    def _check_lengths(self, lengths: Mapping[str, int]) -> None:
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {rows}" for name, rows in lengths.items())
            raise StoreError(f"{self.file}: columns differ in length: {told}")


class Parts(Table):
    """A folder of files with the same columns that form one table, as Spark, Dask and RLlib write it.

    Args:
        folder: folder of the files.
        parts: opened files, in order.
    """

    def __init__(self, folder: Path, parts: Sequence[Table]) -> None:
        super().__init__(folder)
        self._parts = parts
        self.names, self.flags = parts[0].names, parts[0].flags
        for part in parts:
            if set(part.names) != set(self.names):
                odd = sorted(set(part.names) ^ set(self.names))
                raise StoreError(f"{part.file} and {parts[0].file} have different columns: {', '.join(odd)}")
        self.notes = [f"{len(parts)} parts, from {parts[0].file.name} to {parts[-1].file.name}, read as one table"]

    def read(self, names: Sequence[str], text: Collection[str] = ()) -> Iterator[Block]:
        for part in self._parts:
            yield from part.read(names, text)


def part_files(folder: Path, endings: Collection[str]) -> list[Path]:
    """The files of a folder that are parts of a table, in the order of the numbers in their names.

    Raises:
        StoreError: when there are no parts, several kinds of files, or subfolders for the values of a column.
    """
    if (folder / "data").is_dir() and (folder / "meta").is_dir():  # LeRobot: descriptions lie beside the table
        folder = folder / "data"
    found = [path for path in folder.rglob("*") if path.is_file() and ending(path) in endings]
    inside = [(path, path.relative_to(folder).parts) for path in found]
    inside = [(path, names) for path, names in inside if not any(name.startswith(("_", ".")) for name in names)]
    if not inside:
        raise StoreError(f"{folder} is a folder without parts of a table ({', '.join(sorted(endings))})")
    if kinds := {ending(path) for path, _ in inside} - {ending(inside[0][0])}:
        raise StoreError(f"{folder} holds files of several kinds, {ending(inside[0][0])} and {kinds.pop()}; name them")
    if values := [name for _, names in inside for name in names[:-1] if "=" in name]:
        column = values[0].partition("=")[0]
        raise StoreError(
            f"{folder} has a folder for each {column} ({values[0]}); write it as one file: "
            "python -c \"import pandas; pandas.read_parquet('FOLDER').to_parquet('FILE.parquet')\""
        )
    return [path for path, names in sorted(inside, key=lambda each: [_natural(name) for name in each[1]])]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def ending(file: Path) -> str:
    """The ending that tells the kind of a file, without an ending for compression."""
    name = file.name.lower()
    for packed in PACKED:
        if name.endswith((f".csv{packed}", f".tsv{packed}")):
            name = name.removesuffix(packed)
    return Path(name).suffix


@contextmanager
def in_one_line(what: Path | str, done: str = "read") -> Iterator[None]:
    """Turn every exception into an error of one line.

    Raises:
        StoreError: for every other exception within.
    """
    try:
        yield
    except StoreError:
        raise
    except MemoryError:
        raise StoreError(f"{what} does not fit into memory; Parquet, HDF5 and CSV are read in pieces") from None
    except Exception as error:  # a damaged file can make its library raise any exception
        lines = str(error).splitlines() or [""]
        raise StoreError(f"{what} could not be {done}: {lines[0][:300] or type(error).__name__}") from error
