"""Run an experiment: data, pre-training, training, evaluation, all of it logged to MLflow.

Examples:
  python -m harness.run --gin gin/spin_humanoid.gin
  python -m harness.run --gin gin/spin_humanoid.gin --gin gin/policies/saint.gin
  python -m harness.run --gin gin/spin_humanoid.gin --set 'IQL.expectile=0.7' --set "Experiment.tiers=['expert']"
  python -m harness.run --gin gin/spin_humanoid.gin --gin gin/scale/paper.gin --dry-run
  python -m harness.run --gin gin/spin_humanoid.gin --gin gin/policies/all.gin --jobs 2
  python -m harness.run --gin gin/experiments/tiers.gin --launcher ray --address 10.0.0.1:6379
  python -m harness.run --gin gin/experiments/tiers.gin --launcher slurm --set "Slurm.partition='gpu'"
  python -m harness.run --gin gin/spin_humanoid.gin --cell 'humanoid-stand/3 medium spin-iql s0' --fresh
  python -m harness.run --list

Later --gin files and --set override earlier ones. The same command again after any interruption goes on where it was:
finished cells are kept, the others go on from their checkpoints, in the same runs of MLflow; --fresh starts over.
Exit code: 0 when every cell finished, 1 when one failed, 2 when something given was wrong (nothing has been trained
then), 130 when stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pandas as pd
from filelock import FileLock
from rich.console import Console

from harness.cells.identity import study_key
from harness.command_line import (
    add_configuration_options,
    at_least_one,
    both_signals_stop,
    configuration_words,
    git_commit,
    use_packaged_configs,
    versions,
)
from harness.experiment import Cell, Experiment
from harness.launching.launch import run_cells, share, slots
from harness.launching.outcome import CellOutcome, LaunchError
from harness.planning.cost import Cost, estimate_cost
from harness.planning.preflight import PreflightError, check, one_of_each_dataset
from harness.report import console_report, write_report
from harness.reporting.returns import Invocation, Reference, ReportMeta, to_frame, to_the_minute
from harness.terminal.observer import RunObserver
from harness.terminal.progress import Progress, duration
from harness.tracking.outbox import one_line
from harness.tracking.resume import HOST_TAG, STUDY_TAG, Interrupted, changes_since, find_interrupted, hold
from harness.tracking.runs import TrackedRun
from harness.tracking.tracker import Tracker, TrackingError
from spinrl.config import ConfigError, Resolved, flatten, format_registry, load
from spinrl.config.registry import did_you_mean
from spinrl.data import home
from spinrl.machine import ResolvedMachine
from spinrl.tasks import TASKS, SimulatorError, get_task

LAUNCHERS = {"local": "Local", "ray": "Ray", "slurm": "Slurm"}  # components by what they are called on the command line


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m harness.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_experiment_options(made)
    made.add_argument("--list", action="store_true", help="print every component with its fields")
    made.add_argument(
        "--jobs",
        type=at_least_one,
        metavar="N",
        help="cells at a time (default: what cores, memory and GPUs carry)",
    )
    made.add_argument("--launcher", choices=LAUNCHERS, help="where cells run (default: as Experiment.launcher says)")
    made.add_argument("--address", help="of the Ray cluster, e.g. 10.0.0.1:6379; with --launcher ray")
    made.add_argument(
        "--cell",
        action="append",
        default=[],
        dest="only",
        metavar="LABEL",
        help="run this cell alone, as the run's output and its page call it; repeatable",
    )
    made.add_argument(
        "--fresh", action="store_true", help="start over, where an interrupted run of the same would be gone on with"
    )
    made.add_argument("--smoke", action="store_true", help="the same grid at sizes that take seconds a cell")
    return made


def command_line(options: argparse.Namespace, only: Sequence[str] | None = None) -> str:
    """The command that makes the same run again; where it is logged to is not part of it, and may hold a password.

    Args:
        options: as given.
        only: labels of the cells to run, in place of those that were given; none for all.
    """
    smoke = ["--smoke"] if options.smoke else []
    chosen = [part for label in (options.only if only is None else only) for part in ("--cell", label)]
    return shlex.join(["python", "-m", "harness.run", *configuration_words(options), *smoke, *chosen])


def launcher_bindings(options: argparse.Namespace) -> list[str]:
    """What --launcher and --address say, as bindings."""
    bindings = []
    if options.launcher:
        bindings.append(f"Experiment.launcher = @{LAUNCHERS[options.launcher]}()")
    if options.address:
        bindings.append(f"Ray.address = {options.address!r}")
    return bindings


def chosen_cells(experiment: Experiment, only: Sequence[str]) -> list[Cell]:
    """The cells of those labels, or all.

    Raises:
        ValueError: for a label that no cell has.
    """
    cells = {cell.key.label(): cell for cell in experiment.cells()}
    for label in only:
        if label not in cells:
            raise ValueError(f"no cell is called {label!r}{did_you_mean(label, cells)} (--dry-run lists them)")
    return [cell for label, cell in cells.items() if not only or label in only]


def add_experiment_options(made: argparse.ArgumentParser) -> None:
    """The options of every command that works on an experiment."""
    add_configuration_options(made)
    made.add_argument("--dry-run", action="store_true", help="check everything, and print what would be done")
    made.add_argument(
        "--tracking-uri", help="MLflow store (default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in this folder)"
    )


def load_experiment(options: argparse.Namespace, example: str, bindings: Sequence[str] = ()) -> Resolved[Experiment]:
    """The experiment that `add_experiment_options` and further `bindings` gave.

    Raises:
        ConfigError: with everything that is wrong; where no file was given, it names `example`.
    """
    if not options.gin:
        raise ConfigError([f"nothing to run: give --gin FILE, for example --gin {example}"])
    return load(Experiment, options.gin, [*options.bindings, *bindings])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    use_packaged_configs()
    if options.list:
        print(format_registry())
        return 0
    try:
        resolved = load_experiment(options, "gin/spin_humanoid.gin", launcher_bindings(options))
        experiment = resolved.value.smoke() if options.smoke else resolved.value
        if options.jobs:
            experiment = attrs.evolve(experiment, launcher=attrs.evolve(experiment.launcher, jobs=options.jobs))
        machine = experiment.machine.resolve()
        cells = chosen_cells(experiment, options.only)
        check(experiment, cells)
        jobs = slots(experiment.launcher, experiment, cells, machine)
    except (ConfigError, LaunchError, PreflightError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    console = Console()
    machine = share(experiment.launcher, machine, jobs)
    machine.apply()
    console.print(f"[dim]timing a few steps of {len(cells)} cells on this machine …[/dim]")
    try:
        cost = estimate_cost(experiment, cells, machine)
    except SimulatorError as error:
        print(error, file=sys.stderr)
        return 2
    if options.dry_run:
        print_dry_run(console, resolved, cells, machine, cost, jobs)
        return 0
    try:
        tracker = Tracker.open(
            options.tracking_uri, experiment.name, warn=lambda line: console.print(line, style="yellow")
        )
        if left := tracker.send_left_over():
            console.print(f"sent {left} tracking operations that an earlier run could not", highlight=False)
    except TrackingError as error:
        print(error, file=sys.stderr)
        return 2
    with contextlib.ExitStack() as held:
        command = partial(command_line, options)
        return run(
            experiment, cells, resolved, machine, cost, tracker, console, jobs, command, held, fresh=options.fresh
        )


def run(
    experiment: Experiment,
    cells: Sequence[Cell],
    resolved: Resolved[Experiment],
    machine: ResolvedMachine,
    cost: Cost,
    tracker: Tracker,
    console: Console,
    jobs: int,
    command: Callable[..., str],
    held: contextlib.ExitStack,
    *,
    fresh: bool = False,
) -> int:
    """Run cells of the grid under an open tracker, `jobs` at a time; returns the exit code.

    Unless `fresh`, an interrupted run of the same configuration is gone on with. Its lock is given back with `held`.
    """
    started = time.monotonic()
    study = study_key(experiment, cells)
    interrupted, lock = (None, None) if fresh else interrupted_study(tracker, study, resolved.resolved, console)
    kept = interrupted.finished if interrupted else {}
    todo = [cell for cell in cells if cell.key not in kept]
    meta = ReportMeta(
        experiment=experiment.name,
        references={
            (task, bins): Reference(get_task(task).random_return(bins), get_task(task).expert_return(bins))
            for task in experiment.tasks
            for bins in experiment.bins
            if task in TASKS and bins  # of the user's own data nothing is known
        },
        asm_epochs=asm_epochs(experiment, cells),
    )
    cost = cost.of(cell.key.label() for cell in todo)
    plan = [(stage.cell, stage.stage, stage.seconds) for stage in cost.stages]
    console.print(
        f"{len(todo)} cells, {jobs} at a time, about {duration(cost.elapsed(jobs))} with {machine.threads} threads "
        f"each on {machine.device} ({machine.precision}); metrics: [bold]{tracker.ui_line()}[/bold]"
    )
    name = f"{experiment.name} {', '.join(dict.fromkeys(cell.key.policy for cell in cells))}"
    began = to_the_minute(time.time())
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
        given_text=resolved.given,
        resolved_text=resolved.resolved,
        cells=[cell.key for cell in cells],
        interrupted=interrupted,
    )
    if lock := lock or hold(parent.key):
        held.callback(lock.release)
    outcomes: list[CellOutcome] = []
    status, code = "FINISHED", 0
    progress = Progress(len(todo), console, plan=plan, parallel=jobs)
    observer = RunObserver(experiment, parent, progress, console, meta, command, kept)
    folder = home() / "studies" / parent.key / str(parent.session)
    try:
        with both_signals_stop(), progress:
            outcomes = run_cells(
                experiment.launcher, experiment, todo, machine, observer, jobs=jobs, folder=folder, fresh=fresh
            )
        if any(outcome.failure for outcome in outcomes):
            status, code = "FAILED", 1
    except KeyboardInterrupt:
        status, code = "KILLED", 130
        parent.tags({"stopped": "by the user"})
        console.print("\nstopped; what is done is kept, and the same command goes on with the interrupted cell")
    except LaunchError as error:
        status, code = "FAILED", 1
        parent.tags({"failed": str(error)})
        console.print(str(error), style="red", markup=False, soft_wrap=True)
    except BaseException as error:
        parent.tags({"failed": str(error)[:200]})
        parent.finish("FAILED")
        tracker.close()
        raise
    table = to_frame(observer.results, preset=experiment.preset)
    parent.results(table, meta)
    try:
        log_report(parent, table, meta, invocation(name, began, status, tags, resolved))
    except Exception as error:  # whatever is wrong with a page: the returns are stored, and the run is to be closed
        again = f"python -m harness.report --experiment {experiment.name}"
        console.print(f"no report could be made ({one_line(error)}); {again} tries again", style="red", markup=False)
    parent.metrics({"time/total_seconds": time.monotonic() - started}, parent.session)
    parent.finish(status)
    console.print(console_report(table, meta))
    for outcome in outcomes:
        if outcome.failure:
            console.print(f"failed: {outcome.cell.key.label()}: {outcome.failure}", style="red", markup=False)
    unsent = tracker.close()
    if unsent:
        console.print(unsent, style="yellow", markup=False)
    console.print(f"took {duration(time.monotonic() - started)}; to compare runs: [bold]{tracker.ui_line()}[/bold]")
    return code


def asm_epochs(experiment: Experiment, cells: Sequence[Cell]) -> dict[tuple[str, str, int, str], float]:
    """`ReportMeta.asm_epochs` of the ASM that is no single policy's own, where anybody knows."""
    epochs = {}
    for cell in one_of_each_dataset(cells):
        trained_on = round((1 - experiment.held_out) * experiment.dataset(cell).transitions)
        passes = experiment.pretraining.passes(trained_on)
        if passes is not None:
            epochs[experiment.preset, cell.key.task, cell.key.bins, cell.key.tier] = passes
    return epochs


def invocation(
    name: str, started: str, status: str, settings: Mapping[str, Any], resolved: Resolved[Experiment]
) -> Invocation:
    """What a page says of the run that logs it."""
    tags = {name: str(value) for name, value in settings.items()}
    return Invocation(
        name=name, started=started, status=status, tags=tags, given=resolved.given, resolved=resolved.resolved
    )


def log_report(
    run: TrackedRun, table: pd.DataFrame, meta: ReportMeta, itself: Invocation, probes: pd.DataFrame | None = None
) -> None:
    """The report of one run's own results, as its artifacts; arguments are those of `harness.report.write_report`."""
    with tempfile.TemporaryDirectory() as made:
        for path in write_report(table, meta, Path(made), [itself], probes):
            run.hand_over(path, "report")


def interrupted_study(
    tracker: Tracker, study: str, resolved_text: str, console: Console
) -> tuple[Interrupted | None, FileLock | None]:
    """What there is to go on with, and its lock; says so, and what makes this another study than the one before."""
    client, experiment_id = tracker.store.client, tracker.store.experiment_id
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


def print_dry_run(
    console: Console,
    resolved: Resolved[Experiment],
    cells: Sequence[Cell],
    machine: ResolvedMachine,
    cost: Cost,
    jobs: int,
) -> None:
    """Everything that a run would do, without doing it."""
    console.print(resolved.resolved, markup=False, highlight=False, soft_wrap=True)
    console.print(f"# machine: {attrs.asdict(machine)}\n", markup=False, highlight=False, soft_wrap=True)
    seconds: dict[str, list[str]] = {}
    for stage in cost.stages:
        seconds.setdefault(stage.cell, []).append(f"{stage.stage} {duration(stage.seconds)}")
    for number, cell in enumerate(cells, 1):
        label = cell.key.label()
        console.print(
            f"cell {number}: {label}: {', '.join(seconds[label])}", markup=False, highlight=False, soft_wrap=True
        )
    console.print(
        f"\nestimated: {duration(cost.elapsed(jobs))} for {jobs} at a time (0:00 is in the cache already), "
        f"{jobs * cost.memory_bytes / 2**30:.1f} GiB of memory, {cost.disk_bytes / 2**20:.0f} MiB of disk; "
        "nothing was trained",
        highlight=False,
        soft_wrap=True,
    )


def common_tags(experiment: Experiment, machine: ResolvedMachine) -> dict[str, Any]:
    """Tags of every parent run: what it ran on, and with which versions."""
    taken = {f"machine.{name}": value for name, value in attrs.asdict(machine).items()}
    return {"preset": experiment.preset, "git_commit": git_commit(), **versions(), **taken}


if __name__ == "__main__":
    sys.exit(main())
