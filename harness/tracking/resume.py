"""Finds an interrupted study in the tracking store, so that the same command resumes it.

A study is all cells of one configuration. Its parent run carries the fingerprint of the configuration. A file lock is
held while it runs: a second run of the same command at the same time starts a study of its own, and a killed run,
which MLflow still shows as running, is recognised.
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
_CHANGES = 20  # most lines of differences shown
_PLACES = ("Machine.", "Local.", "Ray.", "Slurm.", "Experiment.machine", "Experiment.launcher")  # not in the identity


@attrs.frozen(kw_only=True)
class Interrupted:
    """A study to resume.

    Attributes:
        parent: parent run of the study.
        session: number of invocations that have worked on it.
        finished: evaluations of every finished cell.
        cells: runs of cells that were begun and not finished.
    """

    parent: EarlierRun
    session: int
    finished: Mapping[CellKey, Sequence[Evaluation]]
    cells: Mapping[CellKey, EarlierRun]


def hold(run_key: str) -> FileLock | None:
    """Acquire the lock of a study; the system frees it when the process dies. None if another process holds it."""
    lock = file_lock(home() / "studies" / f"{run_key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def find_interrupted(client: MlflowClient, experiment_id: str, study: str) -> tuple[Interrupted, FileLock] | None:
    """The latest study of this configuration with its acquired lock; None if it is finished or running.

    Args:
        client: client of the tracking store.
        experiment_id: MLflow's id of the experiment.
        study: fingerprint from `study_key`.
    """
    runs = _parents(client, experiment_id, f"tags.`{STUDY_TAG}` = '{study}'")
    if not runs or runs[0].info.status == "FINISHED":
        return None
    run = runs[0]
    # Whether a run on another machine is still going cannot be known here.
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
    """Differences of the configuration to that of the experiment's latest run, if that was interrupted.

    Returns:
        Lines of a diff without context; none if the latest run finished, or belongs to this study.
    """
    runs = _parents(client, experiment_id, "")
    if not runs or runs[0].info.status == "FINISHED" or runs[0].data.tags.get(STUDY_TAG, study) == study:
        return []
    try:
        before = read_artifact(client, runs[0], RESOLVED_FILE)
    except (MlflowException, OSError):  # the run ended before it was logged
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
    """The returns as MLflow has them, for a study whose returns file is on another machine or was deleted."""
    stored: dict[CellKey, list[Evaluation]] = {}
    try:
        text = read_artifact(client, run, RETURNS_FILE)
    except (MlflowException, OSError):  # the run ended before its first evaluation
        return stored
    for key, evaluation in from_frame(read_csv(text)):
        stored.setdefault(key, []).append(evaluation)
    return stored
