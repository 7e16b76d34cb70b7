"""Opening a file or a folder of parts as a table, by its ending."""

from __future__ import annotations

from pathlib import Path

from spinrl.data.importers.array_files import HDF5Table, NpzTable
from spinrl.data.importers.arrow_files import FeatherTable, ParquetTable
from spinrl.data.importers.csv_files import CsvTable
from spinrl.data.importers.episode_files import episode_layout
from spinrl.data.importers.tables import Parts, Table, ending, part_files
from spinrl.data.store.metadata import METADATA_FILE, StoreError

FORMATS: dict[str, type[Table]] = {
    ".csv": CsvTable,
    ".tsv": CsvTable,
    ".parquet": ParquetTable,
    ".pq": ParquetTable,
    ".feather": FeatherTable,
    ".arrow": FeatherTable,
    ".npz": NpzTable,
    ".h5": HDF5Table,
    ".hdf5": HDF5Table,
}


def open_table(file: Path) -> Table:
    """Open a file by its ending, or all parts of a folder.

    Raises:
        StoreError: when the file is missing, of another kind or damaged, or a package is missing.
    """
    if file.is_dir():
        if (file / METADATA_FILE).is_file():
            raise StoreError(f"{file} is a store already; train on it with Imported.store='{file}'")
        return Parts(file, [open_table(part) for part in part_files(file, FORMATS)])
    if ending(file) not in FORMATS:
        raise StoreError(f"{file}: expected a file of {', '.join(FORMATS)}")
    if not file.is_file():
        raise StoreError(f"there is no file {file}")
    kind = FORMATS[ending(file)]
    return (episode_layout(file) if kind is HDF5Table else None) or kind(file)
