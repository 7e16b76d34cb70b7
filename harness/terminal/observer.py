"""Turns the events of cells into progress on the terminal and runs in MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import attrs
from rich.console import Console

from harness.cells.events import (
    ASMReady,
    DatasetReady,
    Evaluated,
    Event,
    Fault,
    FeaturesReady,
    Metrics,
    Notice,
    Pictured,
    Restarted,
    Resumed,
    StartReady,
    Trained,
)
from harness.command_line import git_commit
from harness.experiment import Cell, Experiment
from harness.launching.outcome import CellOutcome, Observer
from harness.records import RETURN, CellKey, Evaluation, metric_name
from harness.reporting.dataset_figures import overview
from harness.reporting.returns import ReportMeta, to_frame
from harness.reporting.statistics import normalized_score
from harness.terminal.progress import ProgressLine
from harness.terminal.stages import CellStages
from harness.tracking.runs import CellRun, ParentRun, TrackedRun
from spinrl.config import flatten
from spinrl.data import Store
from spinrl.data.description import action_statistics, episode_statistics
from spinrl.machine import ResolvedMachine

PUBLISH_SECONDS = 30.0  # between two uploads of the table of returns
FIGURE_SAMPLE = 50_000  # transitions in a dataset's figure: enough for its structure, few enough to be fast


@attrs.define
class _Open:
    """A running cell: its MLflow run and its stages on the terminal."""

    run: CellRun
    stages: CellStages


class RunObserver(Observer):
    """Logs a grid while it runs.

    Args:
        experiment: experiment that the cells belong to.
        parent: open MLflow run of this invocation.
        progress: live line.
        console: console for lines that stay.
        meta: reference returns, for normalised scores.
        command: gives the command that runs the cells with the given labels alone.
        finished: evaluations of cells that are not run again.

    Attributes:
        results: all evaluations so far.
    """

    def __init__(
        self,
        experiment: Experiment,
        parent: ParentRun,
        progress: ProgressLine,
        console: Console,
        meta: ReportMeta,
        command: Callable[[Sequence[str]], str],
        finished: Mapping[CellKey, Sequence[Evaluation]] | None = None,
    ) -> None:
        kept = finished or {}
        self.results: list[tuple[CellKey, Evaluation]] = [(key, each) for key in kept for each in kept[key]]
        self._evaluated = {(key, each.identity) for key, each in self.results}
        self._experiment = experiment
        self._parent = parent
        self._returns_file = parent.returns_file
        self._progress = progress
        self._console = console
        self._meta = meta
        self._command = command
        self._commit = git_commit()
        self._publish_next = 0.0
        self._open: dict[CellKey, _Open] = {}
        self._drawn: set[str] = set()  # fingerprints of datasets
        for key, each in self.results:  # a kill may have come between logging to a cell and to its parent
            parent.overview(key, each)

    def cell_started(self, cell: Cell, machine: ResolvedMachine, node: str) -> None:
        experiment = self._experiment
        parts = {
            "policy": cell.policy,
            "algorithm": cell.algorithm,
            "training": experiment.training,
            "evaluation": experiment.evaluation,
            "tier": cell.tier,
        }
        if cell.policy.needs_asm:
            parts["pretraining"] = cell.pretraining
        parts |= {start.kind: start for start in (cell.warm_start, cell.critic_start) if start is not None}
        params = {
            f"{part}.{name}": value for part, component in parts.items() for name, value in flatten(component).items()
        }
        params.update({f"machine.{name}": value for name, value in attrs.asdict(machine).items()})
        command = self._command([cell.key.label()])
        tags = {"preset": experiment.preset, "git_commit": self._commit, "node": node, "command": command}
        stages = CellStages(self._progress, self._console, cell.key.label())
        self._open[cell.key] = _Open(self._parent.start_cell(cell.key, params=params, tags=tags), stages)

    def event(self, cell: Cell, event: Event) -> None:
        this, label = self._open[cell.key], cell.key.label()
        run = this.run
        this.stages.event(event)
        match event:
            case DatasetReady():
                run.tags({"dataset_fingerprint": event.fingerprint})
                log_dataset(run, event, cell)
                self._draw_dataset(event, cell)
            case ASMReady(fingerprint, seconds, curve):
                for each in curve:  # losses that were logged while the ASM was trained are not logged again
                    run.metrics(each.values, each.step)
                run.tags({"asm_fingerprint": fingerprint})
                run.metrics({"time/asm_seconds": seconds}, 0)
            case StartReady(kind, seconds, curve):
                for each in curve:
                    run.metrics(each.values, each.step)
                run.metrics({f"time/{kind}_seconds": seconds}, 0)
            case FeaturesReady(seconds, num_bytes):
                run.metrics({"time/embedding_seconds": seconds}, 0)
                run.tags({"features_bytes": num_bytes})
            case Restarted(node, attempt):
                self._console.print(f"{label}: begins again on {node} (attempt {attempt + 1})", markup=False)
                run.tags({"node": node, "attempts": attempt + 1})
            case Fault(message):
                self._console.print(f"{label}: {message}", style="yellow", markup=False, soft_wrap=True)
                run.tags({"fault": message})
            case Notice(message):
                self._console.print(f"{label}: {message}", style="yellow", markup=False, soft_wrap=True)
                run.tags({"notice": message})
            case Resumed(step, evaluations, metrics):
                self._console.print(f"{label}: goes on from gradient step {step:,}", markup=False, highlight=False)
                run.tags({"resumed_from_step": step})
                for each in metrics:
                    run.metrics(each.values, each.step)
                for evaluation in evaluations:
                    self._log_evaluation(cell.key, evaluation)
            case Metrics(step, values):
                run.metrics(values, step)
            case Evaluated(evaluation):
                self._log_evaluation(cell.key, evaluation)
                self._publish()
                at = f"{evaluation.fraction:.0%} of the budget"
                if not evaluation.gradient_step:
                    at = f"{evaluation.asm_share:.0%} of the pre-training"
                mean = f"{evaluation.mean:.1f}" if evaluation.metric == RETURN else f"{evaluation.mean:.4g}"
                self._console.print(
                    f"{label}: {metric_name(evaluation.metric)} {mean} at {at} "
                    f"({evaluation.gradient_step:,} steps, {evaluation.seconds:.0f} s)",
                    markup=False,
                    highlight=False,
                )
            case Pictured(png):
                run.picture("pictures/last_evaluation.png", png)
            case Trained(path):
                run.hand_over(path, "checkpoint")

    def cell_ended(self, outcome: CellOutcome) -> None:
        run, label = self._open.pop(outcome.cell.key).run, outcome.cell.key.label()
        self._progress.settle(label)
        if outcome.failure:
            run.tags({"failed": outcome.failure})
            self._console.print(f"{label}: failed: {outcome.failure}", style="red", markup=False)
        run.finish("FAILED" if outcome.failure else "FINISHED")

    def _publish(self) -> None:
        """Log all returns so far to the parent run, not at every evaluation, since the table grows with the grid."""
        began = time.monotonic()
        if began > self._publish_next:
            self._parent.publish(to_frame(self.results, preset=self._experiment.preset), self._meta)
            now = time.monotonic()
            self._publish_next = now + max(PUBLISH_SECONDS, 20 * (now - began))

    def _log_evaluation(self, key: CellKey, evaluation: Evaluation) -> None:
        this = (key, evaluation.identity)
        if this in self._evaluated:  # logged before the cell was restarted
            return
        self._evaluated.add(this)
        self.results.append((key, evaluation))
        self._returns_file.add(key, evaluation)
        reference = self._meta.references.get((key.task, key.bins)) if evaluation.metric == RETURN else None
        self._open[key].run.evaluation(
            evaluation, normalized_score(evaluation.mean, reference.random, reference.expert) if reference else None
        )

    def _draw_dataset(self, dataset: DatasetReady, cell: Cell) -> None:
        """Log the dataset's figure to the parent, once for all cells that share it."""
        if dataset.fingerprint in self._drawn:
            return
        self._drawn.add(dataset.fingerprint)
        share, sources = self._experiment.held_out, self._experiment.held_out_sources
        part = (
            f", without the {100 * share:g}% of the {self._experiment.held_out_by} that are held out" if share else ""
        )
        if sources:
            part = f", without {' and '.join(sources)}, held out"
        try:
            log_dataset_figure(self._parent, dataset, _dataset_name(cell), part)
        except Exception as error:  # a figure that fails must not end the run
            said = f"{_dataset_name(cell)}: its figure could not be drawn: {error}"
            self._console.print(said, style="yellow", markup=False, soft_wrap=True)


def log_dataset_figure(run: TrackedRun, dataset: DatasetReady, name: str, part: str) -> None:
    """Log the dataset's figure as ``dataset/<name>.png`` and ``.svg``; its title names the part of the dataset."""
    store = Store.open(dataset.path)
    figure = overview(episode_statistics(store), action_statistics(store, FIGURE_SAMPLE), f"{name}{part}")
    run.figure(f"dataset/{name}", figure)


def log_dataset(run: CellRun, dataset: DatasetReady, cell: Cell) -> None:
    """Log the dataset's description as an input of the run."""
    run.dataset(
        _dataset_name(cell),
        dataset.fingerprint,
        source=str(dataset.path),
        rows=dataset.rows,
        schema={
            "observation": f"float32 ({dataset.observation_size},)",
            "action": f"int ({len(dataset.nvec)},) of {_choices(dataset.nvec)} choices",
            "reward": "float32",
        },
    )


def _choices(nvec: Sequence[int]) -> str:
    """The choices of each sub-action in words; a single number if all are equal."""
    *most, last = map(str, nvec)
    return last if len(set(nvec)) == 1 else f"{', '.join(most)} and {last}"


def _dataset_name(cell: Cell) -> str:
    """Name of a cell's dataset; it has no bins if they are the dataset's own."""
    bins = f"{cell.key.bins}bins" if cell.key.bins else ""
    return "-".join(part for part in (cell.key.task, bins, cell.key.tier) if part)
