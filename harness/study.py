"""One run of a study: checks, plan, cells under the tracker, and report."""

from __future__ import annotations

import contextlib
import math
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pandas as pd
from filelock import FileLock
from rich.console import Console

from harness.cells.identity import study_key
from harness.command_line import both_signals_stop, git_commit, versions
from harness.commands import typed
from harness.experiment import Cell, Experiment
from harness.launching.dispatch import run_cells, share, slots, together
from harness.launching.outcome import CellOutcome, LaunchError, Work, failure_text
from harness.planning.cost import Cost, estimate_cost
from harness.planning.preflight import check, one_of_each_dataset
from harness.report import console_report, write_report
from harness.reporting.returns import Invocation, Reference, ReportMeta, to_frame, to_the_minute
from harness.terminal.observer import RunObserver
from harness.terminal.progress import ProgressLine, duration
from harness.tracking.outbox import one_line
from harness.tracking.resume import HOST_TAG, STUDY_TAG, Interrupted, changes_since, find_interrupted, hold
from harness.tracking.returns_file import study_folder
from harness.tracking.runs import ParentRun, TrackedRun
from harness.tracking.tracker import Tracker
from spinrl.config import Resolved, flatten
from spinrl.machine import ResolvedMachine
from spinrl.tasks import TASKS, get_task

Command = Callable[..., str]  # gives the command that repeats the run, for all cells or for given labels


@attrs.frozen(kw_only=True)
class Plan:
    """The checked plan of a run.

    Attributes:
        experiment: experiment that the cells belong to.
        resolved: configuration as text.
        cells: cells to run.
        machine: share of the machine that each cell gets.
        jobs: cells at a time.
        beside: cells at a time in one process.
        cost: expected time, memory and disk.
    """

    experiment: Experiment
    resolved: Resolved[Experiment]
    cells: Sequence[Cell]
    machine: ResolvedMachine
    jobs: int
    beside: int
    cost: Cost


def make_plan(resolved: Resolved[Experiment], experiment: Experiment, cells: Sequence[Cell], console: Console) -> Plan:
    """Check that all data can be made and all cells can run, and time a few steps of them.

    Raises:
        UserError, ValueError: if a check fails; the message is one line.
    """
    whole = experiment.machine.resolve()
    for notice in check(experiment, cells):
        console.print(notice, style="yellow", markup=False, soft_wrap=True)
    jobs = slots(experiment.launcher, experiment, cells, whole)
    machine = share(experiment.launcher, whole, jobs)
    machine.apply()
    console.print(f"[dim]timing a few steps of {len(cells)} cells on this machine …[/dim]")
    beside = together(experiment.launcher, machine, jobs)
    cost = estimate_cost(experiment, cells, machine, beside)
    return Plan(
        experiment=experiment, resolved=resolved, cells=cells, machine=machine, jobs=jobs, beside=beside, cost=cost
    )


def run_study(plan: Plan, tracker: Tracker, console: Console, command: Command, *, fresh: bool = False) -> int:
    """Run the cells of a plan under an open tracker; returns the exit code.

    Unless `fresh`, an interrupted run of the same configuration is resumed.
    """
    experiment, machine, jobs = plan.experiment, plan.machine, plan.jobs
    started = time.monotonic()
    study = study_key(experiment, plan.cells)
    interrupted, lock = (None, None) if fresh else _interrupted_study(tracker, study, plan.resolved.resolved, console)
    kept = interrupted.finished if interrupted else {}
    todo = [cell for cell in plan.cells if cell.key not in kept]
    cost = plan.cost.of(cell.key.label() for cell in todo)
    console.print(
        f"{len(todo)} cells, {jobs} at a time, about {duration(cost.elapsed(jobs))} with {machine.threads} threads "
        f"each on {machine.device} ({machine.precision}); metrics: [bold]{tracker.ui_line()}[/bold]"
    )
    name = f"{experiment.name} {', '.join(dict.fromkeys(cell.key.policy for cell in plan.cells))}"
    began, meta = to_the_minute(time.time()), _report_meta(experiment, plan.cells)
    tags = {
        "command": command(),
        STUDY_TAG: study,
        HOST_TAG: socket.gethostname(),
        **common_tags(experiment, machine),
    }
    parent = tracker.start_parent(
        name,
        params=flatten(experiment),
        tags=tags,
        given_text=plan.resolved.given,
        resolved_text=plan.resolved.resolved,
        cells=[cell.key for cell in plan.cells],
        interrupted=interrupted,
    )
    with contextlib.ExitStack() as held:
        if lock := lock or hold(parent.key):
            held.callback(lock.release)
        stages = [(stage.cell, stage.stage, stage.seconds) for stage in cost.stages]
        progress = ProgressLine(len(todo), console, plan=stages, parallel=jobs)
        observer = RunObserver(experiment, parent, progress, console, meta, command, kept)
        folder = study_folder(parent.key) / str(parent.session)
        work = Work(experiment=experiment, cells=todo, machine=machine, jobs=jobs, folder=folder, fresh=fresh)
        outcomes: list[CellOutcome] = []
        with ending(parent, tracker, console, LaunchError) as end, both_signals_stop(), progress:
            outcomes = run_cells(experiment.launcher, work, observer)
        if any(outcome.failure for outcome in outcomes):
            end.fail()
        if end.status == "KILLED":
            console.print("\nstopped; what is done is kept, and the same command goes on with the interrupted cell")
        table = to_frame(observer.results, preset=experiment.preset)
        parent.publish(table, meta)
        _report(parent, table, meta, invocation(name, began, end.status, tags, plan.resolved), console)
        parent.metrics({"time/total_seconds": time.monotonic() - started}, parent.session)
        parent.finish(end.status)
        console.print(console_report(table, meta))
        for outcome in outcomes:
            if outcome.failure:
                console.print(f"failed: {outcome.cell.key.label()}: {outcome.failure}", style="red", markup=False)
        close(tracker, console)
    console.print(f"took {duration(time.monotonic() - started)}; to compare runs: [bold]{tracker.ui_line()}[/bold]")
    return end.code


@attrs.define
class Ending:
    """The outcome of a run: its status in MLflow, and the exit code."""

    status: str = "FINISHED"
    code: int = 0

    def fail(self) -> None:
        """It failed."""
        self.status, self.code = "FAILED", 1


@contextlib.contextmanager
def ending(
    run: TrackedRun, tracker: Tracker, console: Console, *expected: type[Exception], label: str = ""
) -> Iterator[Ending]:
    """Context of a run's work. A stop by the user or an `expected` error is logged to the run and printed; any other
    error is raised after the run has been closed.

    Args:
        run: run that the work belongs to; the caller finishes it with the status of the yielded `Ending`.
        tracker: tracker of the run.
        console: console on which the reason is printed.
        expected: error classes whose message explains them.
        label: text before the reason.
    """
    end = Ending()
    try:
        yield end
    except KeyboardInterrupt:
        end.status, end.code = "KILLED", 130
        run.tags({"stopped": "by the user"})
    except expected as error:
        end.fail()
        run.tags({"failed": failure_text(error)})
        console.print(f"{label}{failure_text(error)}", style="red", markup=False, soft_wrap=True)
    except BaseException as error:
        run.tags({"failed": str(error)[:200]})
        run.finish("FAILED")
        tracker.close()
        raise


def close(tracker: Tracker, console: Console) -> None:
    """Send the rest of the queue, and print how much could not be sent."""
    if unsent := tracker.close():
        console.print(unsent, style="yellow", markup=False)


def common_tags(experiment: Experiment, machine: ResolvedMachine) -> dict[str, Any]:
    """Tags of every parent run: machine and versions."""
    taken = {f"machine.{name}": value for name, value in attrs.asdict(machine).items()}
    return {"preset": experiment.preset, "git_commit": git_commit(), **versions(), **taken}


def invocation(
    name: str, started: str, status: str, settings: Mapping[str, Any], resolved: Resolved[Experiment]
) -> Invocation:
    """The `Invocation` of a run that logs its own page."""
    tags = {name: str(value) for name, value in settings.items()}
    return Invocation(
        name=name, started=started, status=status, tags=tags, given=resolved.given, resolved=resolved.resolved
    )


def log_report(
    run: TrackedRun, table: pd.DataFrame, meta: ReportMeta, itself: Invocation, probes: pd.DataFrame | None = None
) -> None:
    """Log the report of one run's own results; arguments are those of `harness.report.write_report`."""
    with tempfile.TemporaryDirectory() as made:
        for path in write_report(table, meta, Path(made), [itself], probes):
            run.hand_over(path, "report")


def print_dry_run(console: Console, plan: Plan) -> None:
    """Print everything that a run would do, without doing it."""
    print_configuration(console, plan.resolved, plan.machine)
    seconds: dict[str, list[str]] = {}
    for stage in plan.cost.stages:
        seconds.setdefault(stage.cell, []).append(f"{stage.stage} {duration(stage.seconds)}")
    for number, cell in enumerate(plan.cells, 1):
        label = cell.key.label()
        console.print(
            f"cell {number}: {label}: {', '.join(seconds[label])}", markup=False, highlight=False, soft_wrap=True
        )
    console.print(
        f"\nestimated: {duration(plan.cost.elapsed(plan.jobs))} for {plan.jobs} at a time{_sharing(plan)} (0:00 is in "
        f"the cache already), {math.ceil(plan.jobs / plan.beside) * plan.cost.memory_bytes / 2**30:.1f} GiB of memory, "
        f"{plan.cost.disk_bytes / 2**20:.0f} MiB of disk; nothing was trained",
        highlight=False,
        soft_wrap=True,
    )


def _sharing(plan: Plan) -> str:
    """What the estimate knows of captured steps and of processes that cells share, in words."""
    shared = f", {plan.beside} in a process" if plan.beside > 1 else ""
    return f"{shared}, steps captured" if plan.machine.capture else shared


def print_configuration(console: Console, resolved: Resolved[Experiment], machine: ResolvedMachine) -> None:
    """Print every value of a configuration, and the resolved machine."""
    for text in (resolved.resolved, f"# machine: {attrs.asdict(machine)}\n"):
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _interrupted_study(
    tracker: Tracker, study: str, resolved_text: str, console: Console
) -> tuple[Interrupted | None, FileLock | None]:
    """The interrupted study to resume and its lock, or None; prints which, and how the configuration has changed."""
    client, experiment_id = tracker.sink.client, tracker.sink.experiment_id
    found = find_interrupted(client, experiment_id, study)
    if found:
        interrupted, lock = found
        console.print(
            f"going on with an interrupted run: {len(interrupted.finished)} cells are finished, "
            f"{len(interrupted.cells)} were begun (--fresh starts over)",
            highlight=False,
        )
        return interrupted, lock
    changed = changes_since(client, experiment_id, study, resolved_text)
    if changed:
        console.print("the last run was interrupted; this one starts anew, since it is configured otherwise:")
        console.print("\n".join(f"  {line}" for line in changed), markup=False, highlight=False, soft_wrap=True)
    return None, None


def _report_meta(experiment: Experiment, cells: Sequence[Cell]) -> ReportMeta:
    """Data that a report needs besides the returns: reference returns, and lengths of ASM pre-training if known."""
    references = {
        (task, bins): Reference(get_task(task).random_return(bins), get_task(task).expert_return(bins))
        for task in experiment.tasks
        for bins in experiment.bins
        if task in TASKS and bins  # the user's own data has no reference returns
    }
    epochs = {}
    for cell in one_of_each_dataset(cells):
        plan = experiment.dataset(cell)
        trained_on = round((1 - plan.held_out_share) * plan.transitions)
        passes = experiment.pretraining.passes(trained_on)
        if passes is not None:
            epochs[experiment.preset, cell.key.task, cell.key.bins, cell.key.tier] = passes
    return ReportMeta(experiment=experiment.name, references=references, asm_epochs=epochs)


def _report(parent: ParentRun, table: pd.DataFrame, meta: ReportMeta, itself: Invocation, console: Console) -> None:
    try:
        log_report(parent, table, meta, itself)
    except Exception as error:  # a report that fails must not end the run: the returns are stored
        again = f"{typed('harness.report')} --experiment {meta.experiment}"
        console.print(f"no report could be made ({one_line(error)}); {again} tries again", style="red", markup=False)
