"""Finding the tracking store and the experiment in it, with one clear line when that fails."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from filelock import FileLock

from harness.tracking.operations import MlflowClient, MlflowException
from harness.tracking.outbox import one_line, root
from spinrl.errors import UserError

T = TypeVar("T")

_REMOTE = ("http", "https", "databricks", "databricks-uc", "uc")


class TrackingError(UserError):
    """The tracking store cannot be used; the message is one line for the user."""


def default_uri(directory: Path = Path()) -> str:
    """``MLFLOW_TRACKING_URI``, or else the embedded store in `directory`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{directory / 'mlflow.db'}"


def redacted(uri: str) -> str:
    """`uri` without the password that it may carry."""
    parts = urlsplit(uri)
    if not parts.password:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")))


def is_remote(uri: str) -> bool:
    """Whether a server is asked, rather than a file or database opened from here."""
    return urlsplit(uri).scheme in _REMOTE


def connect(uri: str, experiment: str, directory: Path, probe_seconds: float) -> tuple[MlflowClient, str]:
    """A client of the store at `uri` and the id of the experiment, created when it is not there.

    Raises:
        TrackingError: as `ask`, and when the experiment has been deleted.
    """
    artifacts = None if is_remote(uri) else directory / "mlruns"
    return ask(uri, lambda client: (client, _experiment_id(client, experiment, artifacts)), directory, probe_seconds)


def ask(uri: str, question: Callable[[MlflowClient], T], directory: Path, probe_seconds: float = 10.0) -> T:
    """What `question` answers, given a new client of the store at `uri`.

    Args:
        uri: of the store.
        question: the first use of the client.
        directory: where the lock lies that guards the creation of a local store that is no file.
        probe_seconds: how long a server may take; a local store has no limit, as creating it takes its time.

    Raises:
        TrackingError: in one line, when the store cannot be reached or used.
    """
    outcome: list[T | Exception] = []
    remote = is_remote(uri)
    local = sqlite_path(uri)
    lock = (local.parent if local and local.parent.is_dir() else directory) / "mlflow.db.lock"

    def work() -> None:
        try:
            # Two processes that create a fresh sqlite store at once would break each other.
            with contextlib.nullcontext() if remote else FileLock(lock, timeout=60):
                if local:
                    _create_sqlite(local)
                    _check_sqlite(local)
                outcome.append(question(MlflowClient(uri)))
        except Exception as error:
            outcome.append(error)

    impatient = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{math.ceil(probe_seconds / 2)}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    before = {name: os.environ.get(name) for name in impatient}
    os.environ.update(impatient)
    try:
        # In a thread, as neither a name look-up nor a server that answers drop by drop has a time limit.
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(probe_seconds if remote else None)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    if not outcome:
        raise TrackingError(f"cannot reach the MLflow store at {redacted(uri)}: no answer in {probe_seconds:g} s")
    answer = outcome[0]
    if isinstance(answer, TrackingError):
        raise answer
    if isinstance(answer, Exception):
        raise TrackingError(f"cannot use the MLflow store at {redacted(uri)}: {one_line(root(answer))}") from answer
    return answer


def _create_sqlite(path: Path) -> None:
    """Have MLflow make its tables in a file beside, unless there is one: a kill on the way would leave a store that it
    neither completes nor opens."""
    if path.exists() and path.stat().st_size:
        return
    for left_over in path.parent.glob(f".{path.name}.*.new"):
        left_over.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")  # MLflow takes a name for the same store
    MlflowClient(f"sqlite:///{beside}").search_experiments(max_results=1)
    os.replace(beside, path)


def _check_sqlite(path: Path) -> None:
    """Open the file at once: MLflow would try for minutes to make sense of one that is no database."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA schema_version")


def sqlite_path(uri: str) -> Path | None:
    """The file of an sqlite store, None for any other."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix).partition("?")[0]) if uri.startswith(prefix) else None


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
        raise TrackingError(
            f"experiment {name!r} is deleted; bring it back (mlflow experiments restore "
            f"--experiment-id {found.experiment_id}) or take another name"
        )
    return found.experiment_id
