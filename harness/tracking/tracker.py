"""An experiment's runs in MLflow: a parent run for each invocation and a child run for each cell.

Only one process writes, the parent of all cells, and it never waits for the store: see `harness.tracking.outbox`.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from harness.commands import typed
from harness.records import CellKey
from harness.tracking.connection import TrackingError, connect, redacted, sqlite_path, store_uri
from harness.tracking.deliver import SyncError, deliver, left_over
from harness.tracking.journal import FOLDER, Journal
from harness.tracking.operations import MlflowSink
from harness.tracking.outbox import Outbox
from harness.tracking.resume import SESSION_TAG, Interrupted
from harness.tracking.runs import ROLE_TAG, CellRun, ParentRun
from spinrl.cache import made_alone

__all__ = ["CellRun", "ParentRun", "Tracker", "TrackingError"]


class Tracker:
    """An open experiment of a tracking store. Make one with `Tracker.open`."""

    def __init__(self, sink: MlflowSink, uri: str, experiment: str, directory: Path, outbox: Outbox) -> None:
        self.sink = sink
        self.uri = uri
        self.experiment = experiment
        self.directory = directory
        self.outbox = outbox

    @classmethod
    def open(
        cls,
        tracking_uri: str | None,
        experiment: str,
        *,
        directory: Path = Path(),
        probe_seconds: float = 10.0,
        period: float = 2.0,
        warn: Callable[[str], None] = print,
    ) -> Tracker:
        """Open an experiment; create it if missing.

        Args:
            tracking_uri: address of the store; None for `harness.tracking.connection.default_uri`.
            experiment: name of the experiment.
            directory: working directory, which holds the embedded store, its artifacts and the journal; for another
                SQLite store they are beside its file.
            probe_seconds: seconds without an answer after which a server counts as unreachable.
            period: seconds between two sendings.
            warn: callback with one line when the store becomes unreachable, is back, or refuses an operation.

        Raises:
            TrackingError: when the store cannot be reached or used.
        """
        uri = store_uri(tracking_uri, directory)
        if local := sqlite_path(uri):  # artifacts and journal lie beside a database on disk
            directory = local.parent
        client, experiment_id = connect(uri, experiment, directory, probe_seconds)
        # MLflow's own retries would block the queue for minutes; the outbox retries instead.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        sink = MlflowSink(client, experiment_id)
        path = directory / FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}.jsonl"
        process = {"host": socket.gethostname(), "pid": os.getpid(), "process_started": psutil.Process().create_time()}
        journal = Journal(path, {"tracking_uri": redacted(uri), "experiment": experiment, **process})
        outbox = Outbox(sink, journal, period=period, warn=warn).start()
        return cls(sink, uri, experiment, directory, outbox)

    def send_left_over(self) -> int:
        """Send journals that ended runs of this experiment left behind; returns the number of operations.

        Raises:
            TrackingError: when the store becomes unreachable.
        """
        folder, sent = self.directory / FOLDER, 0
        if not folder.exists():
            return 0
        try:
            with made_alone(folder):
                for journal in left_over(folder):
                    meant_for = journal.header["experiment"], journal.header["tracking_uri"]
                    if meant_for == (self.experiment, redacted(self.uri)):
                        waiting = len(journal.waiting)
                        sent += waiting - deliver(journal, self.sink)
        except (ValueError, SyncError) as error:
            raise TrackingError(f"{error}; {typed('harness.sync')} tells more") from error
        return sent

    def start_parent(
        self,
        name: str,
        *,
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
        given_text: str,
        resolved_text: str,
        cells: Sequence[CellKey] = (),
        interrupted: Interrupted | None = None,
    ) -> ParentRun:
        """Start the parent run of a study and log its configuration, or resume an interrupted one.

        Args:
            name: name shown in the UI.
            params: flat configuration values.
            tags: tags such as preset and git_commit.
            given_text: gin files and bindings as given, logged as ``config/given.gin``.
            resolved_text: every value, logged as ``config/resolved.gin``.
            cells: all cells of the study; their returns are shown on the parent too.
            interrupted: study of the same configuration to resume, or None.
        """
        run = ParentRun(sink=self.sink, outbox=self.outbox, key=uuid.uuid4().hex, name=name, planned=tuple(cells))
        if interrupted:
            run.earlier, run.session = interrupted.cells, interrupted.session + 1
            run.go_on(interrupted.parent)
            run.tags({**tags, SESSION_TAG: run.session})
        else:
            run.create({ROLE_TAG: "experiment", **tags}, params, parent=None)
            run.text("config/given.gin", given_text)
            run.text("config/resolved.gin", resolved_text)
        self.outbox.flush(10.0)
        return run

    def ui_line(self) -> str:
        """The command or address that shows the results."""
        if urlsplit(self.uri).scheme in ("http", "https"):
            return f"open {redacted(self.uri)}/#/experiments/{self.sink.experiment_id}"
        return f"mlflow ui --backend-store-uri '{redacted(self.uri)}'"

    def close(self, timeout: float = 15.0) -> str | None:
        """Send the rest of the queue; give up when nothing could be sent for `timeout` seconds.

        Returns:
            None when all was sent, else one line with the number of unsent operations and the file that keeps them.
        """
        journal = self.outbox.journal
        place = f"kept in {journal.path}; {typed('harness.sync')} sends them"
        try:
            left = self.outbox.close(timeout)
        except OSError as error:
            left, place = len(journal.left), f"lost, as {journal.path} cannot be written: {error}"
        return f"{left} tracking operations did not reach {redacted(self.uri)}: {place}" if left else None
