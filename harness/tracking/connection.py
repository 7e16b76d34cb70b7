"""Finds the tracking store and the experiment in it; errors are one line."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit, urlunsplit

from filelock import Timeout

from harness.tracking.moved import ARTIFACTS, follow_artifacts
from harness.tracking.operations import MlflowClient, MlflowException
from harness.tracking.outbox import one_line, root
from spinrl.cache import CacheError, file_lock, require_writable
from spinrl.errors import UserError

if TYPE_CHECKING:
    from mlflow.entities import Experiment

T = TypeVar("T")

_REMOTE = ("http", "https", "databricks", "databricks-uc", "uc")
_SQLITE = "sqlite:///"
_ELSEWHERE = "give --tracking-uri the address of another store, such as sqlite:////a/folder/mlflow.db"


class TrackingError(UserError):
    """The tracking store cannot be used; the message is one line for the user."""


def default_uri(directory: Path = Path()) -> str:
    """``MLFLOW_TRACKING_URI``, or else the embedded store in `directory`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{directory / 'mlflow.db'}"


def store_uri(given: str | None, directory: Path = Path()) -> str:
    """The address of the store: `given` or else `default_uri`, with ``~`` for the home folder.

    Raises:
        TrackingError: when MLflow takes no such address; the message gives the one that was probably meant.
    """
    uri = given or default_uri(directory)
    try:
        if uri.startswith(f"{_SQLITE}~"):  # SQLite would make a folder called ~
            uri = f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).expanduser()}"
    except RuntimeError:
        raise TrackingError(f"this user has no home folder for {uri}; {_ELSEWHERE}") from None
    parts = urlsplit(uri)
    if parts.scheme in ("", "file") and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("true", "1"):
        database = Path(parts.path) if Path(parts.path).suffix == ".db" else Path(parts.path).parent / "mlflow.db"
        raise TrackingError(
            f"MLflow keeps no store in a folder any more, as {uri} would be; give --tracking-uri {_SQLITE}{database} "
            "(or set MLFLOW_ALLOW_FILE_STORE=true to use the folder all the same)"
        )
    return uri


def check_address(given: str | None, directory: Path = Path()) -> None:
    """Check a store's address before anything is trained, without opening or creating the store.

    Raises:
        TrackingError: when no store can be at the address, or its folder cannot be written.
    """
    uri = store_uri(given, directory)
    local = sqlite_path(uri)
    if not local or local.parent.is_dir():
        _require_writable(uri, local, directory)


def redacted(uri: str) -> str:
    """`uri` without the password that it may carry."""
    parts = urlsplit(uri)
    if not parts.password:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")))


def is_remote(uri: str) -> bool:
    """Whether the store is a server, rather than a file or database that this process opens."""
    return urlsplit(uri).scheme in _REMOTE


def connect(uri: str, experiment: str, directory: Path, probe_seconds: float) -> tuple[MlflowClient, str]:
    """A client of the store at `uri` and the id of the experiment, which is created if missing.

    Raises:
        TrackingError: as `ask`, and when the experiment has been deleted.
    """
    artifacts = None if is_remote(uri) else directory / ARTIFACTS
    _require_writable(uri, sqlite_path(uri), directory)
    return ask(uri, lambda client: (client, _experiment_id(client, experiment, artifacts)), directory, probe_seconds)


def _require_writable(uri: str, local: Path | None, directory: Path) -> None:
    try:
        if local:
            require_writable(local.parent, _ELSEWHERE)
        else:  # the journal is kept there
            require_writable(directory, "go to a folder of your own")
    except CacheError as error:
        raise TrackingError(f"cannot use the MLflow store at {redacted(uri)}: {error}") from error
    if local and local.exists() and not os.access(local, os.W_OK):
        raise TrackingError(f"the MLflow store at {uri} cannot be written; {_ELSEWHERE}")


def ask(uri: str, question: Callable[[MlflowClient], T], directory: Path, probe_seconds: float = 10.0) -> T:
    """The result of `question`, called with a new client of the store at `uri`.

    Args:
        uri: address of the store.
        question: function of the client; its first use.
        directory: folder of the lock that guards the creation of a local store without a file of its own.
        probe_seconds: time limit of a server in seconds; a local store has none, since creating it takes a while.

    Raises:
        TrackingError: when the store cannot be reached or used; the message is one line.
    """
    outcome: list[T | Exception] = []
    remote = is_remote(uri)
    local = sqlite_path(uri)
    # MLflow keeps the stores that it has opened by their address, which means another file in another folder.
    address = f"{_SQLITE}{local.absolute()}{''.join(uri.partition('?')[1:])}" if local else uri
    folder = local.parent if local and local.parent.is_dir() else directory
    unguarded = remote or (local is not None and local.exists() and not os.access(folder, os.W_OK))  # it can be read

    def work() -> None:
        try:
            # Two processes that create a fresh sqlite store at once would break each other.
            with contextlib.nullcontext() if unguarded else _guard(folder):
                if local:
                    _create_sqlite(local)
                    _check_sqlite(local)
                    for line in [] if unguarded else follow_artifacts(local):
                        print(line, file=sys.stderr)
                outcome.append(question(MlflowClient(address)))
        except Exception as error:
            outcome.append(error)

    impatient = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{math.ceil(probe_seconds / 2)}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    before = {name: os.environ.get(name) for name in impatient}
    os.environ.update(impatient)
    try:
        # In a thread, since a name look-up and a slow stream of bytes have no time limit of their own.
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(probe_seconds if remote else None)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    if not outcome:
        raise TrackingError(f"cannot reach the MLflow store at {redacted(uri)}: no answer in {probe_seconds:g} s")
    answer = outcome[0]
    if isinstance(answer, (TrackingError, CacheError)):
        raise TrackingError(str(answer)) from answer.__cause__
    if isinstance(answer, Exception):
        if local and "database schema" in str(answer):
            raise TrackingError(f"the MLflow store at {uri} {_age(local, uri)}") from answer
        raise TrackingError(f"cannot use the MLflow store at {redacted(uri)}: {one_line(root(answer))}") from answer
    return answer


@contextlib.contextmanager
def _guard(folder: Path) -> Iterator[None]:
    file = folder / "mlflow.db.lock"
    try:
        lock = file_lock(file, _ELSEWHERE)
        lock.acquire(timeout=60)
    except Timeout:
        raise TrackingError(f"another process holds {file} for a minute now; end it, or {_ELSEWHERE}") from None
    try:
        yield
    finally:
        lock.release()


def _create_sqlite(path: Path) -> None:
    """Have MLflow make its tables in a temporary file, then rename it: MLflow can neither complete nor open a store
    that a kill left half-made."""
    if path.exists() and path.stat().st_size:
        return
    for left_over in path.parent.glob(f".{path.name}.*.new"):
        left_over.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")  # MLflow takes a name for the same store
    MlflowClient(f"sqlite:///{beside}").search_experiments(max_results=1)
    os.replace(beside, path)


def _check_sqlite(path: Path) -> None:
    """Open the file: MLflow itself would retry for minutes with a file that is no database."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA schema_version")


def _age(path: Path, uri: str) -> str:
    """Text for an SQLite store whose schema MLflow refuses: the MLflow that made it, and what to do."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    migrations = resources.files("mlflow.store.db_migrations") / "versions"
    if any(file.name.startswith(found) for file in migrations.iterdir()):
        return f"is of an older MLflow than {version('mlflow')}; copy it to be safe, then: mlflow db upgrade {uri}"
    return (
        f"is of a newer MLflow than {version('mlflow')} (schema {found}); pip install --upgrade mlflow, or {_ELSEWHERE}"
    )


def sqlite_path(uri: str) -> Path | None:
    """The file of an sqlite store, None for any other."""
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]) if uri.startswith(_SQLITE) else None


def _experiment_id(client: MlflowClient, name: str, artifacts: Path | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts.resolve().as_uri() if artifacts else None)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another invocation may have been quicker
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise TrackingError(f"{deleted(found, client.tracking_uri)}, or take another name")
    return found.experiment_id


def deleted(experiment: Experiment, uri: str) -> str:
    """What to say of a deleted experiment of this store, with the command that brings it back."""
    return (
        f"experiment {experiment.name!r} is deleted; bring it back with MLFLOW_TRACKING_URI={quote(redacted(uri))} "
        f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
    )
