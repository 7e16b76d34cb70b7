"""MLflow's local store in a project folder that was moved or copied.

MLflow stores the address of every artifact as an absolute path, and offers no way to change it. After a move, it would
find no artifacts of the old runs, and write those of new runs to the old place.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

ARTIFACTS = "mlruns"  # beside the database, as MLflow has it
_ADDRESSES = (  # (table, column) of MLflow's that hold addresses of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow_artifacts(database: Path) -> list[str]:
    """Point an SQLite store of MLflow to the artifacts beside it, if its addresses are outdated.

    They are outdated if the stored folder is gone, or if ``mlruns/`` beside the database holds runs that the database
    places elsewhere: a copied project has its own artifacts.

    Args:
        database: SQLite file that no other process has open.

    Returns:
        One line for each folder whose addresses were changed.

    Raises:
        sqlite3.OperationalError: when the database cannot be written.
    """
    beside = database.resolve().parent / ARTIFACTS
    new, said = beside.as_uri(), []
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"experiments", "runs"} <= tables:
            return []
        for (old,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall():
            folder = _folder(old)
            if folder is None or folder.name != ARTIFACTS or folder.resolve() == beside:
                continue
            runs = connection.execute("SELECT run_uuid FROM runs WHERE instr(artifact_uri, ?) = 1", (f"{old}/",))
            here, gone = any((beside / run).is_dir() for (run,) in runs), not folder.parent.is_dir()
            if not (here or gone):
                continue
            for table, column in _ADDRESSES:
                if table in tables:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR instr({column}, ?) = 1",
                        (new, len(old) + 1, old, f"{old}/"),
                    )
            if here:
                said.append(f"{database} was moved or copied: its artifacts are those in {beside}, not in {folder}")
            else:
                said.append(f"the artifacts of {database} were in {folder}, which is gone; put them into {beside}")
    return said


def _folder(address: str) -> Path | None:
    """The folder that an artifact address names, None if it is not a folder on this machine."""
    parts = urlsplit(address)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None
