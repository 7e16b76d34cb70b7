"""A study that was interrupted, found again in the tracking store, so that the same command goes on with it.

A study is all that one configuration asks for. Its parent run carries the fingerprint of that configuration; while it
runs a file lock is held, so that a second run of the same command at the same time starts a study of its own, and one
that was killed, which leaves its run marked as running, is known for what it is.
"""

from __future__ import annotations

import difflib
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from filelock import FileLock, Timeout
from mlflow.entities import Run

from harness.records import CELL_COLUMNS, CellKey, Evaluation
from harness.reporting.returns import from_frame, read_csv
from harness.tracking.operations import MOST_RUNS, RUN_KEY_TAG, MlflowClient, MlflowException
from harness.tracking.read_back import read_artifact
from harness.tracking.returns_file import ReturnsFile
from harness.tracking.runs import RETURNS_FILE, ROLE_TAG, EarlierRun
from spinrl.cache import file_lock, home

STUDY_TAG = "spinrl.study"
HOST_TAG = "spinrl.host"
SESSION_TAG = "spinrl.session"
RESOLVED_FILE = "config/resolved.gin"
_PARENT_TAG = "mlflow.parentRunId"
_CHANGES = 20  # lines shown of what differs
_PLACES = ("Machine.", "Local.", "Ray.", "Slurm.", "Experiment.machine", "Experiment.launcher")  # no study differs by


@attrs.frozen(kw_only=True)
class Interrupted:
    """A study to go on with.

    Attributes:
        parent: its run.
        session: how many invocations have worked on it.
        finished: the evaluations of every cell that needs nothing more.
        cells: the runs of the other cells that were begun.
    """

    parent: EarlierRun
    session: int
    finished: Mapping[CellKey, Sequence[Evaluation]]
    cells: Mapping[CellKey, EarlierRun]


def hold(run_key: str) -> FileLock | None:
    """The lock of a study that is being worked on; the system frees it when the process dies. None if it is taken."""
    lock = file_lock(home() / "studies" / f"{run_key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def find_interrupted(client: MlflowClient, experiment_id: str, study: str) -> tuple[Interrupted, FileLock] | None:
    """The latest study of this configuration, unless it is finished, or being worked on; its lock is held then.

    Args:
        client: of the tracking store.
        experiment_id: of the experiment.
        study: of `study_key`.
    """
    runs = _parents(client, experiment_id, f"tags.`{STUDY_TAG}` = '{study}'")
    if not runs or runs[0].info.status == "FINISHED":
        return None
    run = runs[0]
    # Whether a run of another machine is still at work cannot be told from here.
    if run.info.status == "RUNNING" and run.data.tags.get(HOST_TAG) != socket.gethostname():
        return None
    lock = hold(run.data.tags[RUN_KEY_TAG])
    if lock is None:
        return None
    children = client.search_runs([experiment_id], f"tags.`{_PARENT_TAG}` = '{run.info.run_id}'", max_results=MOST_RUNS)
    evaluations = ReturnsFile.of(run.data.tags[RUN_KEY_TAG]).read() or _published(client, run)
    finished, begun = {}, {}
    for child in children:
        key = _cell_key(child)
        if child.info.status == "FINISHED" and any(each.fraction >= 1 for each in evaluations.get(key, ())):
            finished[key] = evaluations[key]
        else:
            begun[key] = _earlier(child)
    session = int(run.data.tags.get(SESSION_TAG, 1))
    return Interrupted(parent=_earlier(run), session=session, finished=finished, cells=begun), lock


def changes_since(client: MlflowClient, experiment_id: str, study: str, resolved_text: str) -> list[str]:
    """How the configuration differs from that of the latest run of the experiment, where that was interrupted.

    Returns:
        Lines as of a diff without context; none where the latest run finished, or is of this very study.
    """
    runs = _parents(client, experiment_id, "")
    if not runs or runs[0].info.status == "FINISHED" or runs[0].data.tags.get(STUDY_TAG, study) == study:
        return []
    try:
        before = read_artifact(client, runs[0], RESOLVED_FILE)
    except (MlflowException, OSError):  # stopped before it was logged
        return []
    lines = difflib.unified_diff(before.splitlines(), resolved_text.splitlines(), lineterm="", n=0)
    changed = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---") and line[1:].strip()]
    changed = [line for line in changed if not line[1:].startswith(_PLACES)]
    return changed[:_CHANGES] + (["…"] if len(changed) > _CHANGES else [])


def _parents(client: MlflowClient, experiment_id: str, condition: str) -> list[Run]:
    conditions = " and ".join(each for each in (f"tags.`{ROLE_TAG}` = 'experiment'", condition) if each)
    newest = ["attributes.start_time DESC"]
    return client.search_runs([experiment_id], filter_string=conditions, max_results=1, order_by=newest)


def _earlier(run: Run) -> EarlierRun:
    # The latest value of each metric comes with the run; its step is the highest.
    steps = {metric.key: metric.step for metric in run.to_proto().data.metrics}
    return EarlierRun(run.data.tags[RUN_KEY_TAG], run.info.run_id, steps)


def _cell_key(run: Run) -> CellKey:
    fields: dict[str, Any] = {name: run.data.tags[name] for name in CELL_COLUMNS}
    return CellKey(**fields | {name: int(fields[name]) for name in ("bins", "seed")})


def _published(client: MlflowClient, run: Run) -> dict[CellKey, list[Evaluation]]:
    """What MLflow shows of the returns, for a study whose own file is on another machine or was deleted."""
    stored: dict[CellKey, list[Evaluation]] = {}
    try:
        text = read_artifact(client, run, RETURNS_FILE)
    except (MlflowException, OSError):  # stopped before anything was evaluated
        return stored
    for key, evaluation in from_frame(read_csv(text)):
        stored.setdefault(key, []).append(evaluation)
    return stored
