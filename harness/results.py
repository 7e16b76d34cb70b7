"""Reading the stored returns of an experiment back from MLflow."""

from __future__ import annotations

import difflib
import tempfile
from pathlib import Path

import pandas as pd

from harness.connection import TrackingError, ask, default_uri, redacted, sqlite_path
from harness.mlflow_store import MlflowClient
from harness.records import Reference, ReportMeta, merge, read_csv
from harness.runs import META_FILE, RETURNS_FILE, ROLE_TAG


class ResultsError(Exception):
    """There is nothing to report; the message is one line for the user."""


def load_results(
    tracking_uri: str | None, experiment: str, directory: Path = Path()
) -> tuple[pd.DataFrame, ReportMeta]:
    """The merged table of all invocations of an experiment, and what goes with it.

    Args:
        tracking_uri: as for `harness.tracking.Tracker.open`.
        experiment: its name.
        directory: where the embedded store is looked for.

    Raises:
        ResultsError: when the store cannot be used, or there is no such experiment, or it holds no returns.
    """
    uri = tracking_uri or default_uri(directory)
    local = sqlite_path(uri)
    if local is not None and not local.exists():  # opening it would create an empty one
        raise ResultsError(f"there is no MLflow store at {uri}; go to the folder of the run or give --tracking-uri")
    try:
        client, found = ask(uri, lambda client: (client, client.search_experiments()), directory)
    except TrackingError as error:
        raise ResultsError(str(error)) from error
    names = {entry.name: entry.experiment_id for entry in found}
    if experiment not in names:
        near = difflib.get_close_matches(experiment, names, n=1, cutoff=0.0)
        hint = f"did you mean {near[0]!r}?" if near else "it holds none"
        raise ResultsError(f"no experiment is called {experiment!r} in {redacted(uri)}; {hint}")
    return _merged(client, names[experiment], experiment)


def _merged(client: MlflowClient, experiment_id: str, experiment: str) -> tuple[pd.DataFrame, ReportMeta]:
    runs = client.search_runs(
        [experiment_id], filter_string=f"tags.`{ROLE_TAG}` = 'experiment'", order_by=["attributes.start_time ASC"]
    )
    frames: list[pd.DataFrame] = []
    references: dict[tuple[str, int], Reference] = {}
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            stored = {file.path for file in client.list_artifacts(run.info.run_id)}
            if not {RETURNS_FILE, META_FILE} <= stored:  # stopped before its first evaluation
                continue
            returns, meta = (
                Path(client.download_artifacts(run.info.run_id, name, folder)) for name in (RETURNS_FILE, META_FILE)
            )
            try:
                frames.append(read_csv(returns))
                references.update(ReportMeta.from_json(meta.read_text()).references)
            except (ValueError, KeyError, TypeError) as error:
                raise ResultsError(f"the returns of run {run.info.run_name} cannot be read: {error}") from error
    if not frames:
        raise ResultsError(f"experiment {experiment!r} has no stored returns yet")
    return merge(frames), ReportMeta(experiment=experiment, references=references)
