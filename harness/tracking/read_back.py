"""Reading the stored returns of an experiment back from MLflow."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pandas as pd
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from harness.reporting.probe import RESULTS_FILE, SETTING
from harness.reporting.returns import Invocation, Reference, ReportMeta, merge, read_csv, to_the_minute
from harness.tracking.connection import TrackingError, ask, deleted, redacted, sqlite_path, store_uri
from harness.tracking.operations import MOST_RUNS, MlflowClient
from harness.tracking.runs import META_FILE, PROBE_ROLE, RETURNS_FILE, ROLE_TAG
from spinrl.errors import UserError

CONFIG_FILES = (
    "config/given.gin",
    "config/resolved.gin",
)  # as `Tracker.start_parent` stores them
MERGED_REPORT = "merged_report"  # artifact folder of reports over several runs; a run's own is in report/
_NOT_SETTINGS = ("mlflow.", "spinrl.")  # prefixes of tags that are no settings


class ResultsError(UserError):
    """The experiment has nothing to report; the message is one line for the user."""


class NoReturnsError(ResultsError):
    """The experiment exists, but has no returns."""


def load_results(
    tracking_uri: str | None, experiment: str, directory: Path = Path()
) -> tuple[pd.DataFrame, ReportMeta]:
    """The merged table of all invocations of an experiment, with its `ReportMeta`.

    Args:
        tracking_uri: address of the store, as for `harness.tracking.tracker.Tracker.open`.
        experiment: name of the experiment.
        directory: folder in which the embedded store is looked for.

    Raises:
        ResultsError: when the store cannot be used, or the experiment does not exist or holds no returns.
    """
    client, runs = _runs_with_returns(tracking_uri, experiment, directory)
    frames: list[pd.DataFrame] = []
    references: dict[tuple[str, int], Reference] = {}
    epochs: dict[tuple[str, str, int, str], set[float]] = {}
    for run in runs:
        try:
            frames.append(read_csv(read_artifact(client, run, RETURNS_FILE)))
            meta = ReportMeta.from_json(read_artifact(client, run, META_FILE))
            references.update(meta.references)
            for key, value in meta.asm_epochs.items():
                epochs.setdefault(key, set()).add(value)
        except (ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"the returns of run {run.info.run_name} cannot be read: {error}") from error
    agreed = {key: values.pop() for key, values in epochs.items() if len(values) == 1}  # else ambiguous
    return merge(frames), ReportMeta(experiment=experiment, references=references, asm_epochs=agreed)


def load_probes(
    tracking_uri: str | None, experiment: str, directory: Path = Path()
) -> tuple[pd.DataFrame | None, list[Invocation]]:
    """Results of an experiment's linear probe, and the invocations that made them.

    The table has a row for each ASM, input and seed, the latest of each; it is None if nothing was probed.

    Args and errors are those of `load_results`, except that missing returns are no error.
    """
    client, whole = _runs_with_probes(tracking_uri, experiment, directory)
    if not whole:
        return None, []
    table = pd.concat([pd.read_csv(StringIO(read_artifact(client, run, RESULTS_FILE))) for run in whole])
    latest = table.drop_duplicates([*SETTING, "seed", "asm", "input"], keep="last")
    return latest.sort_values([*SETTING, "seed"], kind="stable"), [_invocation(client, run) for run in whole]


def load_invocations(tracking_uri: str | None, experiment: str, directory: Path = Path()) -> list[Invocation]:
    """The invocations with stored returns, oldest first.

    Args and errors are those of `load_results`.
    """
    client, runs = _runs_with_returns(tracking_uri, experiment, directory)
    return [_invocation(client, run) for run in runs]


def log_merged_report(
    tracking_uri: str | None, experiment: str, paths: Sequence[Path], directory: Path = Path()
) -> str:
    """Log the files of a report under ``merged_report`` to the latest parent run with numbers.

    Args and errors are those of `load_results`.

    Returns:
        The run's name.
    """
    try:
        client, runs = _runs_with_returns(tracking_uri, experiment, directory)
    except NoReturnsError:
        client, runs = _runs_with_probes(tracking_uri, experiment, directory)
    if not runs:
        raise NoReturnsError(f"experiment {experiment!r} has no stored numbers yet")
    run = runs[-1]
    try:
        for path in paths:
            client.log_artifact(run.info.run_id, str(path), MERGED_REPORT)
    except (MlflowException, OSError) as error:
        raise ResultsError(f"the report could not be logged to run {run.info.run_name}: {error}") from error
    return str(run.info.run_name)


def _invocation(client: MlflowClient, run: Run) -> Invocation:
    stored = {file.path for file in client.list_artifacts(run.info.run_id, "config")}
    given, resolved = (read_artifact(client, run, name) if name in stored else "" for name in CONFIG_FILES)
    return Invocation(
        name=run.info.run_name,
        started=to_the_minute(run.info.start_time / 1000),
        status=run.info.status,
        tags={name: value for name, value in run.data.tags.items() if not name.startswith(_NOT_SETTINGS)},
        given=given,
        resolved=resolved,
    )


def _runs_with_returns(
    tracking_uri: str | None, experiment: str, directory: Path
) -> tuple[MlflowClient, Sequence[Run]]:
    client, runs = _runs(tracking_uri, experiment, directory, "experiment", {RETURNS_FILE, META_FILE})
    if not runs:
        raise NoReturnsError(f"experiment {experiment!r} has no stored returns yet")
    return client, runs


def _runs_with_probes(tracking_uri: str | None, experiment: str, directory: Path) -> tuple[MlflowClient, Sequence[Run]]:
    return _runs(tracking_uri, experiment, directory, PROBE_ROLE, {RESULTS_FILE})


def _runs(
    tracking_uri: str | None, experiment: str, directory: Path, role: str, files: set[str]
) -> tuple[MlflowClient, Sequence[Run]]:
    """The runs of a role that have stored these files, oldest first; others ended before they had numbers."""
    try:
        uri = store_uri(tracking_uri, directory)
        local = sqlite_path(uri)
        if local is not None and not local.exists():  # opening it would create an empty one
            raise ResultsError(f"there is no MLflow store at {uri}; go to the folder of the run or give --tracking-uri")
        client, found = ask(uri, lambda client: (client, client.search_experiments(ViewType.ALL)), directory)
    except TrackingError as error:
        raise ResultsError(str(error)) from error
    names = {entry.name: entry.experiment_id for entry in found if entry.lifecycle_stage != "deleted"}
    if experiment not in names:
        for entry in found:
            if entry.name == experiment:
                raise ResultsError(deleted(entry, uri))
        near = difflib.get_close_matches(experiment, names, n=1, cutoff=0.0)
        hint = f"did you mean {near[0]!r}?" if near else "it holds none"
        raise ResultsError(f"no experiment is called {experiment!r} in {redacted(uri)}; {hint}")
    runs = client.search_runs(
        [names[experiment]],
        filter_string=f"tags.`{ROLE_TAG}` = '{role}'",
        max_results=MOST_RUNS,
        order_by=["attributes.start_time ASC"],
    )
    return client, [run for run in runs if files <= {file.path for file in client.list_artifacts(run.info.run_id)}]


def read_artifact(client: MlflowClient, run: Run, name: str) -> str:
    """Text of an artifact.

    Raises:
        MlflowException, OSError: when the artifact does not exist.
    """
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run.info.run_id, name, folder)).read_text(encoding="utf-8")
