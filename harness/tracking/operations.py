"""The operations of tracking, applied to MLflow so that applying one twice changes nothing.

An operation is a JSON-able dict with ``op`` and ``run``, the key that the harness gave the run. The key is also
a tag of the MLflow run, so that a run whose creation got no answer is found again, not created twice.
"""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path
from typing import Any

# Set before MLflow is imported, which reads these once: no telemetry, and no output between the harness's lines.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from harness.tracking.journal import Operation

MOST_RUNS = SEARCH_MAX_RESULTS_THRESHOLD  # asks for all runs; by default MLflow returns a thousand
RUN_KEY_TAG = "spinrl.run_key"
ENDED_TAGS = {"stopped", "failed"}  # reasons of an early end; removed when the run is resumed
_ALIVE_TAG = "spinrl.last_asked"  # tag of the experiment
_MAX_METRICS, _MAX_PARAMS, _MAX_TAGS = 1000, 100, 100  # of one log_batch
_MAX_PARAM, _MAX_TAG = 6000, 5000  # characters
_RETRY_STATUS = (408, 429)  # besides every 5xx

logging.getLogger("alembic").setLevel(logging.WARNING)  # a fresh sqlite store is announced table by table
# The outbox reports a failure once, in a line; these loggers would at every attempt, with tracebacks.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


class MlflowSink:
    """Applies operations to one experiment of one tracking store."""

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.run_ids: dict[str, str] = {}  # MLflow's id by the harness's key, as far as known

    def run_id(self, key: str) -> str | None:
        """MLflow's id of the run with the harness's key `key`, None if there is none yet."""
        if key not in self.run_ids:
            found = self.client.search_runs(
                [self.experiment_id], filter_string=f"tags.`{RUN_KEY_TAG}` = '{key}'", max_results=1
            )
            if found:
                self.run_ids[key] = found[0].info.run_id
        return self.run_ids.get(key)

    def is_transient(self, error: Exception) -> bool:
        """Whether the same operation may succeed later: the store is unreachable or busy, and did not refuse it."""
        if isinstance(error, MlflowException):
            status = error.get_http_status_code()
            return status >= 500 or status in _RETRY_STATUS
        return isinstance(error, OSError) and not isinstance(error, FileNotFoundError)

    def is_alive(self) -> bool:
        """Whether the store accepts a trivial write; one with a full disk still answers queries."""
        try:
            self.client.set_experiment_tag(self.experiment_id, _ALIVE_TAG, time.time())
        except Exception:
            return False
        return True

    def apply(self, operation: Operation) -> None:
        """Carry out one operation.

        Raises:
            LookupError: when its run was never created.
            Exception: whatever MLflow raises; `is_transient` tells whether trying again makes sense.
        """
        fields = {name: value for name, value in operation.items() if name not in ("op", "run", "refused")}
        if operation["op"] == "create":
            self._create(operation["run"], **fields)
            return
        run_id = self.run_id(operation["run"])
        if run_id is None:
            raise LookupError(f"run {operation['run']} was never created")
        getattr(self, f"_{operation['op']}")(run_id, **fields)

    def _create(self, key: str, *, name: str, start_time: int, tags: dict[str, str], parent: str | None) -> None:
        if self.run_id(key) is not None:
            return
        tags = {**tags, RUN_KEY_TAG: key}
        if parent is not None:
            parent_id = self.run_id(parent)
            if parent_id is None:
                raise LookupError(f"parent run {parent} was never created")
            tags[MLFLOW_PARENT_RUN_ID] = parent_id
        run = self.client.create_run(self.experiment_id, start_time=start_time, tags=tags, run_name=name)
        self.run_ids[key] = run.info.run_id

    def _batch(
        self,
        run_id: str,
        *,
        metrics: list[tuple[str, float | str, int, int]] = (),  # type: ignore[assignment]
        params: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        """Metrics are (name, value, milliseconds, step); MLflow ignores an exact repetition."""
        values = [Metric(name, float(value), time, step) for name, value, time, step in metrics]
        parameters = [Param(name, value[:_MAX_PARAM]) for name, value in (params or {}).items()]
        run_tags = [RunTag(name, value[:_MAX_TAG]) for name, value in (tags or {}).items()]
        chunks = max(
            math.ceil(len(values) / _MAX_METRICS),
            math.ceil(len(parameters) / _MAX_PARAMS),
            math.ceil(len(run_tags) / _MAX_TAGS),
        )
        for i in range(chunks):
            self.client.log_batch(
                run_id,
                metrics=values[i * _MAX_METRICS : (i + 1) * _MAX_METRICS],
                params=parameters[i * _MAX_PARAMS : (i + 1) * _MAX_PARAMS],
                tags=run_tags[i * _MAX_TAGS : (i + 1) * _MAX_TAGS],
            )

    def _text(self, run_id: str, *, text: str, artifact_file: str) -> None:
        self.client.log_text(run_id, text, artifact_file)

    def _artifact(self, run_id: str, *, path: str, artifact_directory: str | None, staged: bool) -> None:
        """Log a file. `staged` files were made for this operation; the journal deletes them once it is sent."""
        if not Path(path).exists():
            raise FileNotFoundError(f"{path} is gone")
        self.client.log_artifact(run_id, path, artifact_directory)

    def _dataset(self, run_id: str, *, fields: dict[str, Any], context: str) -> None:
        self.client.log_inputs(
            run_id, datasets=[DatasetInput(Dataset(**fields), [InputTag("mlflow.data.context", context)])]
        )

    def _reopen(self, run_id: str) -> None:
        for tag in ENDED_TAGS & set(self.client.get_run(run_id).data.tags):
            self.client.delete_tag(run_id, tag)
        self.client.update_run(run_id, status="RUNNING")

    def _finish(self, run_id: str, *, status: str, end_time: int) -> None:
        self.client.set_terminated(run_id, status=status, end_time=end_time)
