"""Open MLflow runs: the parent of an invocation, and its cells."""

from __future__ import annotations

import getpass
import json
import math
import re
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pandas as pd

from harness.records import CELL_COLUMNS, CellKey, Evaluation
from harness.reporting.figures import save
from harness.reporting.returns import META_FILE, RETURNS_FILE, ReportMeta, to_csv
from harness.tracking.operations import MlflowSink
from harness.tracking.outbox import Outbox
from harness.tracking.returns_file import ReturnsFile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROLE_TAG = "spinrl.role"  # "experiment" on parent runs, "cell" on their children
PROBE_ROLE = "probe"  # on runs of the linear probe, which have no returns
STATUSES = ("FINISHED", "KILLED", "FAILED")


@attrs.frozen
class EarlierRun:
    """A run that exists already.

    Attributes:
        key: key that the harness gave it.
        run_id: MLflow's id.
        last_steps: highest logged step of each metric.
    """

    key: str
    run_id: str
    last_steps: Mapping[str, int]


@attrs.define(kw_only=True, eq=False)
class TrackedRun:
    """An open run. Every method returns at once; a background thread sends the operations."""

    sink: MlflowSink
    outbox: Outbox
    key: str
    name: str
    finished: bool = False
    last_steps: dict[str, int] = attrs.field(factory=dict)  # highest step of each metric, earlier invocations included

    @property
    def run_id(self) -> str | None:
        """MLflow's id, None until the store has answered."""
        return self.sink.run_ids.get(self.key)

    def create(self, tags: Mapping[str, Any], params: Mapping[str, Any], parent: str | None) -> None:
        """Queue the creation of the run."""
        all_tags = {
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": "harness.run",
            "mlflow.source.type": "LOCAL",
        }
        if "git_commit" in tags:
            all_tags["mlflow.source.git.commit"] = str(tags["git_commit"])
        all_tags.update({name: str(value) for name, value in tags.items()})
        self._put("create", name=self.name, start_time=_now(), tags=all_tags, parent=parent)
        self._put("batch", params={_allowed(name): str(value) for name, value in params.items()})

    def go_on(self, earlier: EarlierRun) -> None:
        """Continue an existing run; metrics that it has are not logged again."""
        self.key = earlier.key
        self.last_steps = dict(earlier.last_steps)
        self.sink.run_ids[earlier.key] = earlier.run_id
        self._put("reopen")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics at a gradient step, each once per step and in rising order, so that steps that a resumed training
        repeats are not logged again. NaN stays NaN; an infinite value, which MLflow lacks, becomes a tag.
        """
        time_ = _now()
        named = {_allowed(name): float(value) for name, value in values.items()}
        numbers = {name: value for name, value in named.items() if step > self.last_steps.get(name, -1)}
        self.last_steps.update(dict.fromkeys(numbers, step))
        self.outbox.put_metrics(
            self.key,
            # JSON has no NaN: it is sent as text.
            [(name, "nan" if math.isnan(x) else x, time_, step) for name, x in numbers.items() if not math.isinf(x)],
        )
        infinite = {f"nonfinite.{name}": f"{x} at step {step}" for name, x in numbers.items() if math.isinf(x)}
        if infinite:
            self.tags(infinite)

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags, e.g. ``{"stopped": "Ctrl-C"}``."""
        self._put("batch", tags={_allowed(name): str(value) for name, value in values.items()})

    def text(self, artifact_file: str, text: str) -> None:
        """Log text as an artifact."""
        self._put("text", text=text, artifact_file=artifact_file)

    def hand_over(self, path: Path, artifact_directory: str | None = None) -> None:
        """Log a file and take it over: it is moved now, and deleted after sending."""

        def move() -> Path:
            return Path(shutil.move(path, self.outbox.stage() / path.name))

        self._put_staged(self.outbox.patiently(move, path.name), artifact_directory)

    def figure(self, artifact_stem: str, figure: Figure) -> None:
        """Log a matplotlib figure as ``<stem>.png`` and ``<stem>.svg``, drawn now, and close it."""
        stem = Path(artifact_stem)
        folder = None if stem.parent == Path() else str(stem.parent)

        def draw() -> list[Path]:
            return save(figure, self.outbox.stage(), stem.name)

        for path in self.outbox.patiently(draw, stem.name):
            self._put_staged(path, folder)

    def picture(self, artifact_file: str, png: bytes) -> None:
        """Log a picture, given as its file's content."""
        artifact = Path(artifact_file)

        def write() -> Path:
            path = self.outbox.stage() / artifact.name
            path.write_bytes(png)
            return path

        self._put_staged(self.outbox.patiently(write, artifact.name), str(artifact.parent))

    def dataset(
        self,
        name: str,
        fingerprint: str,
        *,
        source: str,
        rows: int,
        schema: Mapping[str, str],
        context: str = "training",
    ) -> None:
        """Log the description of a dataset as an input.

        Args:
            name: name of the dataset, e.g. ``humanoid-stand-3-expert``.
            fingerprint: fingerprint of its contents.
            source: folder of the store.
            rows: number of transitions.
            schema: type of each field, e.g. ``{"observation": "float32 (67,)"}``.
            context: purpose, e.g. ``training``.
        """
        columns = [{"name": field, "type": kind, "required": True} for field, kind in schema.items()]
        fields = {
            "name": name,
            "digest": fingerprint[:36],  # the most that MLflow takes
            "source_type": "local",
            "source": json.dumps({"uri": source}),
            "schema": json.dumps({"mlflow_colspec": columns}),
            "profile": json.dumps({"num_rows": rows}),
        }
        self._put("dataset", fields=fields, context=context)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run as FINISHED, KILLED (stopped by the user) or FAILED. A second call does nothing.

        Raises:
            ValueError: for any other status.
        """
        if status not in STATUSES:
            raise ValueError(f"status has to be one of {', '.join(STATUSES)}, got {status!r}")
        if not self.finished:
            self.finished = True
            self._put("finish", status=status, end_time=_now())

    def _put_staged(self, path: Path, artifact_directory: str | None) -> None:
        self._put("artifact", path=str(path.resolve()), artifact_directory=artifact_directory, staged=True)

    def _put(self, op: str, **fields: Any) -> None:
        self.outbox.put({"op": op, "run": self.key, **fields})


@attrs.define(kw_only=True, eq=False)
class CellRun(TrackedRun):
    """The run of one cell."""

    cell: CellKey
    parent: ParentRun

    def evaluation(self, evaluation: Evaluation, normalized_score: float | None = None) -> None:
        """Log one evaluation at its gradient step; the score is None without a reference return."""
        returns, metric, mean = evaluation.returns, evaluation.metric, evaluation.mean
        if not evaluation.gradient_step:  # an ASM before the policy's training: steps are percents of pre-training
            values = {"pretraining/return_mean": mean, "pretraining/asm_seconds": evaluation.asm_seconds}
            self.metrics(values, round(100 * evaluation.asm_share))
            return
        values = {
            f"eval/{metric}_mean": mean,
            f"eval/{metric}_std": math.sqrt(math.fsum((value - mean) ** 2 for value in returns) / len(returns)),
            "eval/budget_fraction": evaluation.fraction,
            "time/asm_seconds": evaluation.asm_seconds,
            "time/train_seconds": evaluation.train_seconds,
            "time/evaluation_seconds": evaluation.evaluation_seconds,
        }
        if evaluation.start_seconds:
            values["time/start_seconds"] = evaluation.start_seconds
        if normalized_score is not None:
            values["eval/normalized_score"] = normalized_score
        self.metrics(values, evaluation.gradient_step)
        self.parent.overview(self.cell, evaluation)


@attrs.define(kw_only=True, eq=False)
class ParentRun(TrackedRun):
    """The run of one invocation.

    Attributes:
        planned: all cells of the study.
        cells: runs of the cells that have started.
        earlier: runs of cells that an earlier invocation began and did not finish.
        session: number of invocations that have worked on the study, this one included.
    """

    planned: Sequence[CellKey] = ()
    cells: list[CellRun] = attrs.field(factory=list)
    earlier: Mapping[CellKey, EarlierRun] = attrs.field(factory=dict)
    session: int = 1

    @property
    def returns_file(self) -> ReturnsFile:
        """The file that keeps the evaluations of the study until it is finished."""
        return ReturnsFile.of(self.key)

    def overview_name(self, cell: CellKey, metric: str = "return") -> str | None:
        """Name of this run's metric for a cell's return: ``return/`` with the tier and the other fields that vary.

        Invocations that differ in the policy thus share charts, one per tier. None for a cell that is not planned.
        """
        if cell not in self.planned:
            return None
        varying = [
            name for name in CELL_COLUMNS if name == "tier" or len({getattr(key, name) for key in self.planned}) > 1
        ]
        return f"{metric}/" + " ".join(str(getattr(cell, name)) for name in varying)

    def overview(self, cell: CellKey, evaluation: Evaluation) -> None:
        """Log an evaluation of a cell to this run too.

        The UI's first page hides child runs and charts parents only, and would show no returns without this.
        """
        name = self.overview_name(cell, evaluation.metric)
        if name is not None and evaluation.gradient_step:
            self.metrics({name: evaluation.mean}, evaluation.gradient_step)

    def start_cell(self, cell: CellKey, *, params: Mapping[str, Any], tags: Mapping[str, Any]) -> CellRun:
        """Start the child run of a cell; the cell's own fields become params and tags."""
        fields = attrs.asdict(cell)
        run = CellRun(
            sink=self.sink, outbox=self.outbox, key=uuid.uuid4().hex, name=cell.label(), cell=cell, parent=self
        )
        if cell in self.earlier:
            run.go_on(self.earlier[cell])
            run.tags(tags)
        else:
            run.create({ROLE_TAG: "cell", **fields, **tags}, {**fields, **params}, parent=self.key)
        self.cells.append(run)
        return run

    def publish(self, table: pd.DataFrame, meta: ReportMeta) -> None:
        """Log the raw returns so far, from which `harness.report` rebuilds all tables and figures."""
        self.text(RETURNS_FILE, to_csv(table))
        self.text(META_FILE, meta.to_json())

    def finish(self, status: str = "FINISHED") -> None:
        """End this run, and its open cells with the same status."""
        for cell in self.cells:
            cell.finish(status)
        if not self.finished:
            self.metrics({"time/logging_seconds": self.outbox.busy_seconds}, self.session)
        TrackedRun.finish(self, status)
        if status == "FINISHED":  # nothing is left to resume
            self.returns_file.delete()


def _allowed(name: str) -> str:
    """The name with characters that MLflow allows; it refuses e.g. the % of the policy spin-asm-20%."""
    return re.sub(r"[^\w./: -]", "_", name)


def _now() -> int:
    return int(time.time() * 1000)
