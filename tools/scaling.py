"""Cells per hour by cells at a time, beside the machine's own gain from more processes.

    python -m tools.scaling --jobs 1 2 1
    python -m tools.scaling --jobs 1 8 --cells 16 --set 'Training.gradient_steps=20_000'
    python -m tools.scaling --cells 1000 --smoke --jobs 2 --launcher ray

The cells are one policy with as many seeds, on one dataset that is made (or found) before; they are logged to an MLflow
store that is deleted afterwards. What a run does before and after its cells is not measured. With --smoke a cell does
next to nothing, so that seconds a cell are what it costs to have one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
from rich.console import Console

from harness.cells.run_cell import prepare_dataset
from harness.command_line import add_configuration_options, use_packaged_configs
from harness.commands import typed
from harness.entry_point import entry_point
from harness.experiment import Experiment
from harness.launchers import Local
from harness.launching.dispatch import run_cells, share, slots
from harness.launching.outcome import Work
from harness.planning.preflight import one_of_each_dataset
from harness.reporting.returns import ReportMeta
from harness.run import LAUNCHERS
from harness.terminal.observer import RunObserver
from harness.terminal.progress import ProgressLine
from harness.tracking.returns_file import study_folder
from harness.tracking.tracker import Tracker
from spinrl.config import load
from spinrl.errors import UserError
from spinrl.machine import ResolvedMachine
from tools.benchmark import matmul_gflops


@attrs.frozen
class Measured:
    """Time of running all cells, and CPU seconds of the observing process unless it runs them too."""

    jobs: int
    seconds: float
    observing: float | None
    failed: int


def measure(experiment: Experiment, jobs: int) -> Measured:
    """Run every cell anew, `jobs` at a time."""
    experiment = attrs.evolve(experiment, launcher=attrs.evolve(experiment.launcher, jobs=jobs))
    cells = experiment.cells()
    machine = experiment.machine.resolve()
    together = slots(experiment.launcher, experiment, cells, machine)
    machine = share(experiment.launcher, machine, together)
    console = Console(quiet=True)
    with tempfile.TemporaryDirectory() as store:
        tracker = Tracker.open(f"sqlite:///{store}/mlflow.db", "scaling", directory=Path(store), warn=print)
        keys = [cell.key for cell in cells]
        parent = tracker.start_parent("scaling", params={}, tags={}, given_text="", resolved_text="", cells=keys)
        with ProgressLine(len(cells), console, parallel=max(jobs, 1)) as progress:
            meta = ReportMeta(experiment="scaling")
            observer = RunObserver(experiment, parent, progress, console, meta, " ".join)
            folder = study_folder(parent.key) / "scaling"
            work = Work(experiment=experiment, cells=cells, machine=machine, jobs=together, folder=folder, fresh=True)
            began, busy = time.monotonic(), time.process_time()
            outcomes = run_cells(experiment.launcher, work, observer)
            seconds, observing = time.monotonic() - began, time.process_time() - busy
        parent.finish()
        tracker.close()
    here = isinstance(experiment.launcher, Local) and jobs == 1
    return Measured(
        jobs, seconds, None if here else observing, sum(outcome.failure is not None for outcome in outcomes)
    )


def side_by_side(processes: int) -> float:
    """GFLOP/s of so many processes together, each with a matrix product of its own on one thread."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        pool.map(_product, range(processes))  # imports are over when all have answered
        return sum(pool.map(_product, range(processes), chunksize=1))


def _product(_number: int) -> float:
    torch.set_num_threads(1)
    return matmul_gflops(torch.float32, ResolvedMachine(threads=1))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.scaling"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--jobs", type=int, nargs="+", default=[1, 2], help="cells at a time, one after another")
    made.add_argument("--cells", type=int, default=4, help="number of cells (default 4)")
    add_configuration_options(made, "a further gin file; gin/spin_humanoid.gin comes first")
    made.add_argument("--smoke", action="store_true", help="cells that do next to nothing")
    made.add_argument("--launcher", choices=LAUNCHERS, default="local", help="where cells run")
    return made


def configuration(options: argparse.Namespace) -> Experiment:
    """The grid that the options ask for.

    Raises:
        ConfigError: when a binding is wrong.
    """
    bindings = [
        "Experiment.tiers = ['medium']",
        "Experiment.policies = [@Factored()]",
        f"Experiment.seeds = {list(range(options.cells))}",
        f"Experiment.launcher = @{LAUNCHERS[options.launcher]}()",
        "Machine.threads = 1",
        *options.bindings,
    ]
    experiment = load(Experiment, ["gin/spin_humanoid.gin", *options.gin], bindings).value
    return experiment.smoke() if options.smoke else experiment


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    use_packaged_configs()
    try:
        experiment = configuration(options)
        experiment.machine.resolve()  # a device that is not here is told of before data is made
        for cell in one_of_each_dataset(experiment.cells()):
            prepare_dataset(experiment, cell, lambda _event: None)
        rows = []
        print(f"{'jobs':>4} {'seconds':>8} {'a cell':>8} {'observer':>9} {'failed':>6}")
        for jobs in options.jobs:
            rows.append(measure(experiment, jobs))
            row = rows[-1]
            observing = "-" if row.observing is None else f"{1000 * row.observing / options.cells:.0f} ms"
            each = row.seconds / options.cells
            print(f"{row.jobs:4} {row.seconds:8.1f} {each:8.2f} {observing:>9} {row.failed:6}", flush=True)
    except (UserError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    alone = [row.seconds for row in rows if row.jobs == 1]
    if alone and len(rows) > len(alone):
        base = sum(alone) / len(alone)
        own = side_by_side(1)
        print(f"\n{'jobs':>4} {'times as many cells':>20} {'of the ideal':>13} {'matrix products':>16}")
        for row in rows:
            if row.jobs > 1:
                gain = base / row.seconds
                print(f"{row.jobs:4} {gain:20.2f} {gain / row.jobs:13.0%} {side_by_side(row.jobs) / own:16.2f}")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
