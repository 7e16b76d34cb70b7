"""The trainings of `tools.gpu_check`: all seeds of a policy at once, as far as the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import attrs

from harness.cells.events import Evaluated, Event
from harness.experiment import Cell, Experiment
from harness.launching.dispatch import run_cells, share
from harness.launching.outcome import CellOutcome, Observer, Work
from harness.records import CellKey, Evaluation
from spinrl.data import home
from spinrl.events import Fault, Metrics, Notice
from tools.gpu_table import Study


class Kept(Observer):
    """Keeps what trainings report, and stops them all when their time is over."""

    def __init__(self) -> None:
        self.until = float("inf")
        self.returns: list[tuple[CellKey, Evaluation]] = []
        self.curves: list[tuple[str, int, str, float]] = []

    def event(self, cell: Cell, event: Event) -> None:
        match event:
            case Evaluated(evaluation):
                self.returns.append((cell.key, evaluation))
            case Metrics(step, values):
                self.curves += [(cell.key.label(), step, name, value) for name, value in values.items()]
            case Fault(message) | Notice(message):
                print(f"{cell.key.label()}: {message}")
        if time.monotonic() > self.until:
            raise KeyboardInterrupt

    def cell_ended(self, outcome: CellOutcome) -> None:
        if outcome.failure:
            print(f"{outcome.cell.key.label()}: failed: {outcome.failure}")

    def episodes(self) -> Iterator[tuple[str, int, float, int, float]]:
        """Cell, gradient step, seconds of training until then, episode and return, of every evaluation episode."""
        for key, each in self.returns:
            for episode, value in enumerate(each.returns):
                yield key.label(), each.gradient_step, each.train_seconds, episode, value


def train(name: str, experiment: Experiment, seconds: float, kept: Kept, *, at_once: bool) -> Study:
    """Train all cells of an experiment.

    Args:
        name: of the policy.
        experiment: one policy on one dataset, with its seeds.
        seconds: after which it is stopped.
        kept: keeps returns and curves.
        at_once: in one process, all at once; if not, in this one, one after another.
    """
    seeds = len(experiment.seeds)
    jobs = seeds if at_once else 1
    launcher = attrs.evolve(experiment.launcher, jobs=jobs, together=jobs)  # type: ignore[call-arg]
    work = Work(
        experiment=experiment,
        cells=experiment.cells(),
        machine=share(launcher, experiment.machine.resolve(), jobs),
        jobs=jobs,
        folder=home() / "studies" / "gpu_check",
        fresh=True,
    )
    began, first, ended = time.monotonic(), len(kept.returns), True
    kept.until = began + seconds
    try:
        run_cells(launcher, work, kept)
    except KeyboardInterrupt:
        ended = False
    values: dict[int, list[float]] = {}
    for _, evaluation in kept.returns[first:]:
        values.setdefault(evaluation.gradient_step, []).extend(evaluation.returns)
    return Study(
        policy=name,
        seeds=seeds,
        gradient_steps=experiment.training.gradient_steps,
        seconds=time.monotonic() - began,
        evaluated=tuple(sorted(values)),
        returns=tuple(sum(values[step]) / len(values[step]) for step in sorted(values)),
        ended=ended,
    )
