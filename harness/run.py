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

Later --gin files and --set override earlier ones. After any interruption the same command resumes: finished cells are
kept, the others resume from their checkpoints in the same MLflow runs; --fresh starts over. Exit code: 0 when every
cell finished, 1 when one failed, 2 when an argument or binding was wrong (nothing has been trained then), 130 when
stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import attrs

from harness.command_line import (
    add_experiment_options,
    at_least_one,
    configuration_words,
    load_configuration,
    use_packaged_configs,
)
from harness.commands import typed
from harness.entry_point import entry_point
from spinrl.config import Resolved, format_registry
from spinrl.config.registry import did_you_mean
from spinrl.errors import UserError

if TYPE_CHECKING:
    from harness.experiment import Cell, Experiment

LAUNCHERS = {"local": "Local", "ray": "Ray", "slurm": "Slurm"}  # component by its name on the command line


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("harness.run"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_experiment_options(made)
    made.add_argument("--list", action="store_true", help="print every component with its fields")
    made.add_argument(
        "--jobs",
        type=at_least_one,
        metavar="N",
        help="cells at a time (default: what cores, memory and GPUs carry)",
    )
    made.add_argument("--launcher", choices=LAUNCHERS, help="where cells run (default: Experiment.launcher)")
    made.add_argument("--address", help="address of the Ray cluster, e.g. 10.0.0.1:6379; with --launcher ray")
    made.add_argument(
        "--cell",
        action="append",
        default=[],
        dest="only",
        metavar="LABEL",
        help="run this cell alone, by its name in the output and on the page of the run; repeatable",
    )
    made.add_argument("--fresh", action="store_true", help="start over instead of resuming an interrupted run")
    made.add_argument("--smoke", action="store_true", help="the same grid at sizes that take seconds a cell")
    return made


def command_line(options: argparse.Namespace, only: Sequence[str] | None = None) -> str:
    """The command that repeats the run. It leaves out the tracking store, whose address may hold a password.

    Args:
        options: options as given.
        only: labels of the cells to run in place of the given ones; None keeps these.
    """
    smoke = ["--smoke"] if options.smoke else []
    chosen = [part for label in (options.only if only is None else only) for part in ("--cell", label)]
    return f"{typed('harness.run')} {shlex.join([*configuration_words(options), *smoke, *chosen])}"


def launcher_bindings(options: argparse.Namespace) -> list[str]:
    """The options --launcher and --address as bindings."""
    bindings = []
    if options.launcher:
        bindings.append(f"Experiment.launcher = @{LAUNCHERS[options.launcher]}()")
    if options.address:
        bindings.append(f"Ray.address = {options.address!r}")
    return bindings


def chosen_cells(experiment: Experiment, only: Sequence[str]) -> list[Cell]:
    """The cells with the given labels, or all cells if there are none.

    Raises:
        ValueError: for a label that no cell has.
    """
    cells = {cell.key.label(): cell for cell in experiment.cells()}
    for label in only:
        if label not in cells:
            raise ValueError(f"no cell is called {label!r}{did_you_mean(label, cells)} (--dry-run lists them)")
    return [cell for label, cell in cells.items() if not only or label in only]


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    use_packaged_configs()
    from harness.experiment import Experiment  # PyTorch takes seconds to import; --help need not wait

    if options.list:
        print(format_registry())
        return 0
    try:
        resolved = load_configuration(Experiment, options, "gin/spin_humanoid.gin", launcher_bindings(options))
        experiment = resolved.value.smoke() if options.smoke else resolved.value
        if options.jobs:
            experiment = attrs.evolve(experiment, launcher=attrs.evolve(experiment.launcher, jobs=options.jobs))
        cells = chosen_cells(experiment, options.only)
    except (UserError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return _run(options, resolved, experiment, cells)


def _run(
    options: argparse.Namespace, resolved: Resolved[Experiment], experiment: Experiment, cells: Sequence[Cell]
) -> int:
    from rich.console import Console

    from harness.planning.preflight import check_cache
    from harness.study import make_plan, print_dry_run, run_study  # MLflow and matplotlib take seconds to import
    from harness.tracking.connection import check_address
    from harness.tracking.tracker import Tracker

    console = Console()
    try:
        check_cache()
        check_address(options.tracking_uri)
        plan = make_plan(resolved, experiment, cells, console)
        if options.dry_run:
            print_dry_run(console, plan)
            return 0
        tracker = Tracker.open(
            options.tracking_uri, experiment.name, warn=lambda line: console.print(line, style="yellow")
        )
        if left := tracker.send_left_over():
            console.print(f"sent {left} tracking operations that an earlier run could not", highlight=False)
    except (UserError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return run_study(plan, tracker, console, partial(command_line, options), fresh=options.fresh)


if __name__ == "__main__":
    sys.exit(main())
