"""A finished cell's policy, from its MLflow run or its checkpoint file, and its returns in the simulator."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import attrs

from harness.records import RETURN, CellKey, Evaluation
from harness.tracking.connection import TrackingError, ask, sqlite_path, store_uri
from harness.tracking.operations import MOST_RUNS, MlflowClient
from harness.tracking.runs import ROLE_TAG
from spinrl import checkpoint
from spinrl.algorithms import AlgorithmConfig, rebuilt
from spinrl.asm import ASMEncoder
from spinrl.checkpoint import CheckpointError
from spinrl.config import ConfigError, from_plain
from spinrl.errors import UserError
from spinrl.evaluation import ActionChoice, episode_seeds, evaluate
from spinrl.machine import available_cores
from spinrl.policies import Policy, PolicyConfig
from spinrl.specs import ActionSpec
from spinrl.tasks import TASKS, ParallelEnvironment
from spinrl.training import CHECKPOINT_VERSION

CHECKPOINT_FILE = "checkpoint.pt"


@attrs.frozen(eq=False)
class FinishedCell:
    """A trained policy and its provenance.

    Attributes:
        key: key of the cell: task, tier, policy and so on.
        policy: trained policy.
        final: evaluation at the end of the budget.
        dataset_fingerprint: fingerprint of the training data, None if unknown.
        asm_fingerprint: fingerprint of its ASM, None without one.
        action: choice of actions in evaluation: sample or mode.
        episode_steps: most steps of an evaluation episode.
        gradient_steps: length of the training, None if unknown.
        run_id: id of its MLflow run, None for a policy from a file.
        source: origin in words.
        action_start: number of each sub-action's first choice in the log; empty if all are 0.
    """

    key: CellKey
    policy: Policy
    final: Evaluation
    dataset_fingerprint: str | None
    asm_fingerprint: str | None
    action: ActionChoice
    episode_steps: int
    gradient_steps: int | None
    run_id: str | None
    source: str
    action_start: tuple[int, ...] = ()


def finished_cell(source: str, tracking_uri: str | None = None) -> FinishedCell:
    """The policy of a finished cell.

    Args:
        source: an MLflow run id or ``runs:/<id>``, a checkpoint file, or the folder that holds one.
        tracking_uri: as for `harness.tracking.tracker.Tracker.open`.

    Raises:
        UserError: when there is none, or it is unfinished, damaged or of another format; the message is one line.
    """
    path = Path(source)
    if path.is_dir():
        path = path / CHECKPOINT_FILE
    if path.exists() or path.suffix:
        return _from_file(path, None, source)
    run_id = source.removeprefix("runs:/").strip("/")
    with tempfile.TemporaryDirectory() as folder:
        return _from_file(_downloaded(run_id, tracking_uri, Path(folder)), run_id, f"run {run_id}")


def _downloaded(run_id: str, tracking_uri: str | None, folder: Path) -> Path:
    uri = store_uri(tracking_uri)
    local = sqlite_path(uri)
    if local is not None and not local.exists():  # opening it would create an empty one
        raise UserError(
            f"{run_id} is no checkpoint file or folder, and there is no MLflow store at {uri}; "
            "go to the folder of the run or give --tracking-uri"
        )
    try:
        return ask(uri, lambda client: _checkpoint_of(client, run_id, folder), Path(), probe_seconds=120.0)
    except TrackingError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{run_id} is no checkpoint file or folder, and no run: {error}") from error


def _checkpoint_of(client: MlflowClient, run_id: str, folder: Path) -> Path:
    """Download a cell's checkpoint into `folder`."""
    run = client.get_run(run_id)
    role, name = run.data.tags.get(ROLE_TAG), run.info.run_name
    if role == "experiment":
        cells = client.search_runs(
            [run.info.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'", max_results=MOST_RUNS
        )
        ids = ", ".join(f"{cell.info.run_id} ({cell.info.run_name})" for cell in cells)
        raise UserError(f"run {run_id} ({name}) is a whole experiment; give one of its cells: {ids or 'none'}")
    if run.info.status != "FINISHED":
        raise UserError(f"run {run_id} ({name}) is {run.info.status}; only a FINISHED run can be exported")
    stored = {file.path for file in client.list_artifacts(run_id, "checkpoint")}
    if f"checkpoint/{CHECKPOINT_FILE}" not in stored:
        raise UserError(f"run {run_id} ({name}) holds no checkpoint/{CHECKPOINT_FILE}")
    return Path(client.download_artifacts(run_id, f"checkpoint/{CHECKPOINT_FILE}", str(folder)))


def _from_file(path: Path, run_id: str | None, source: str) -> FinishedCell:
    try:
        state = checkpoint.load(path)
    except CheckpointError as error:
        raise UserError(str(error)) from error
    version = state.get("format_version") if isinstance(state, dict) else None
    if version != CHECKPOINT_VERSION:
        raise UserError(
            f"{source}: the checkpoint has format {version}, and this version exports format {CHECKPOINT_VERSION}; "
            "export with the version that trained it, or train again"
        )
    try:
        return _rebuilt(state, run_id, source)
    except (KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{source}: the checkpoint does not fit together: {reason[:400]}") from error


def _rebuilt(state: dict[str, Any], run_id: str | None, source: str) -> FinishedCell:
    cell = dict(state["cell"])
    evaluations = [Evaluation.from_plain(each) for each in state["evaluations"]]
    steps = int(cell["gradient_steps"])
    # Training may have ended early, by Training.patience: its last evaluation says so.
    if not evaluations or evaluations[-1].fraction < 1 or state["step"] < evaluations[-1].gradient_step:
        raise UserError(
            f"{source}: the training has stopped at {state['step']:,} of {steps:,} gradient steps; run its command "
            "again to finish it"
        )
    key = CellKey(**{field.name: cell[field.name] for field in attrs.fields(CellKey)})
    spec, size = ActionSpec(cell["nvec"]), int(cell["observation_size"])
    if (task := TASKS.get(key.task)) and (spec, size) != (task.action_spec(spec.max_choices), task.observation_size):
        raise ValueError(f"sub-actions {spec.nvec} and observations of size {size} are not those of {key.task}")
    policy_config, algorithm_config = from_plain(cell["policy_config"]), from_plain(cell["algorithm_config"])
    encoder = from_plain(cell["encoder_config"])
    if not (
        isinstance(policy_config, PolicyConfig)
        and isinstance(algorithm_config, AlgorithmConfig)
        and isinstance(encoder, ASMEncoder)
    ):
        raise ValueError("policy, algorithm and encoder are of other kinds")
    fingerprint = cell["asm_fingerprint"]
    algorithm = rebuilt(policy_config, algorithm_config, encoder, size, spec, fingerprint, key.seed, state["algorithm"])
    return FinishedCell(
        key=key,
        policy=algorithm.acting_policy().eval(),
        final=next((each for each in reversed(evaluations) if each.metric == RETURN), evaluations[-1]),
        dataset_fingerprint=cell["dataset_fingerprint"],
        asm_fingerprint=fingerprint,
        action=cell["action"],
        episode_steps=int(cell["episode_steps"]),
        gradient_steps=steps,
        run_id=run_id,
        source=source,
        action_start=tuple(cell.get("action_start", ())),
    )


def simulated(policy: Policy, key: CellKey, episodes: int, *, action: ActionChoice, steps: int) -> list[float]:
    """Returns of episodes of a benchmark task, with the same start states and noise as the cell's evaluations.

    Args:
        policy: policy for the task's observation and action sizes.
        key: key of the cell.
        episodes: number of episodes; episode k is the same whatever the number.
        action: choice of actions: sample or mode.
        steps: most steps of an episode.
    """
    choices = policy.action_spec.max_choices
    environment = ParallelEnvironment(TASKS[key.task], choices, episodes, available_cores())
    try:
        return evaluate(policy, environment, episode_seeds(key.seed, episodes), action=action, steps=steps)
    finally:
        environment.close()
