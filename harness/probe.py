"""Linear probe of an experiment's ASM, and of a random one of the same sizes.

Examples:
  python -m harness.probe --gin gin/experiments/linear_probe.gin
  python -m harness.probe --gin gin/experiments/linear_probe.gin --set 'LinearProbe.transitions=5000'
  python -m harness.probe --gin gin/experiments/linear_probe.gin --dry-run

Dataset and ASM of each task, number of bins, tier and seed come from the cache, or are made and put there; no policy is
trained. spinrl/asm/probe.py describes the probe. Exit code: 0 when every probe finished, 1 when one failed, 2 when an
argument or binding was wrong, 130 when stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial

import attrs
import pandas as pd
from rich.console import Console, RenderableType

from harness.cells.events import ASMReady, DatasetReady, Event, Metrics
from harness.cells.run_cell import cell_asm, prepare_dataset
from harness.command_line import (
    add_experiment_options,
    both_signals_stop,
    configuration_words,
    load_configuration,
    use_packaged_configs,
)
from harness.commands import typed
from harness.entry_point import entry_point
from harness.experiment import Cell, Experiment
from harness.launching.outcome import EXPECTED
from harness.planning.preflight import cached_asm, check
from harness.reporting.console import console_tables
from harness.reporting.probe import NOTES, RESULTS_FILE, SHARES, probe_tables
from harness.reporting.returns import ReportMeta, to_frame, to_the_minute
from harness.study import close, common_tags, ending, invocation, log_report, print_configuration
from harness.terminal.progress import ProgressLine
from harness.terminal.stages import CellStages
from harness.tracking.connection import check_address
from harness.tracking.runs import PROBE_ROLE, ROLE_TAG, TrackedRun
from harness.tracking.tracker import Tracker
from spinrl.asm import PROBE_INPUTS, FrozenASM, ProbeResult, probe_asm
from spinrl.config import Resolved, flatten
from spinrl.data import standardize
from spinrl.errors import UserError
from spinrl.machine import ResolvedMachine
from spinrl.policies import SPIN


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("harness.probe"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_experiment_options(made)
    return made


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    use_packaged_configs()
    console = Console()
    try:
        resolved = load_configuration(Experiment, options, "gin/experiments/linear_probe.gin")
        experiment = resolved.value
        machine = experiment.machine.resolve()
        cells = probed_cells(experiment)
        check(experiment, cells)
        check_address(options.tracking_uri)
        if options.dry_run:
            print_dry_run(console, resolved, machine, cells)
            return 0
        tracker = Tracker.open(
            options.tracking_uri, experiment.name, warn=lambda line: console.print(line, style="yellow")
        )
    except (UserError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    command = f"{typed('harness.probe')} {shlex.join(configuration_words(options))}"
    return run(resolved, machine, cells, tracker, console, command)


def probed_cells(experiment: Experiment) -> list[Cell]:
    """One cell for each task, number of bins, tier and seed, with the ASM that `Experiment.pretraining` gives."""
    by_setting: dict[tuple, Cell] = {}
    for cell in experiment.cells():
        key = cell.key
        by_setting.setdefault((key.task, key.bins, key.tier, key.seed), cell)
    # The policies do not matter: the probe needs the ASM alone.
    return [attrs.evolve(cell, pretraining=experiment.pretraining, policy=SPIN()) for cell in by_setting.values()]


def run(
    resolved: Resolved[Experiment],
    machine: ResolvedMachine,
    cells: Sequence[Cell],
    tracker: Tracker,
    console: Console,
    command: str,
) -> int:
    """Probe one cell after another, each in a run of its own with its page; returns the exit code."""
    experiment = resolved.value
    machine.apply()
    settings = {"command": command, **common_tags(experiment, machine)}
    nothing = to_frame([], preset=experiment.preset)  # a probe has no returns
    tags = {
        **settings,
        ROLE_TAG: PROBE_ROLE,  # not "experiment": a probe has no returns
        "mlflow.source.name": "harness.probe",
    }
    tables: list[pd.DataFrame] = []
    code = 0
    progress = ProgressLine(len(cells), console)
    for cell in cells:
        setting, label = _setting(cell), _label(cell)
        began = to_the_minute(time.time())
        tracked = tracker.start_parent(
            label,
            params={**flatten(experiment), **setting},
            tags={**tags, **setting},
            given_text=resolved.given,
            resolved_text=resolved.resolved,
        )
        with ending(tracked, tracker, console, *EXPECTED, label=f"failed: {label}: ") as end:
            with both_signals_stop(), progress:
                tables.append(probe_cell(experiment, cell, machine, tracked, progress, console))
            itself = invocation(label, began, "FINISHED", settings, resolved)
            log_report(tracked, nothing, ReportMeta(experiment=experiment.name), itself, tables[-1])
        tracked.finish(end.status)
        code = end.code or code
        if end.status == "KILLED":
            console.print("\nstopped; the datasets and ASMs that are done are kept")
            break
    if tables:
        console.print(console_table(pd.concat(tables, ignore_index=True)))
    close(tracker, console)
    console.print(f"to compare runs: [bold]{tracker.ui_line()}[/bold]")
    console.print(f"as a page: {typed('harness.report')} --experiment {experiment.name}", highlight=False)
    return code


def probe_cell(
    experiment: Experiment,
    cell: Cell,
    machine: ResolvedMachine,
    tracked: TrackedRun,
    progress: ProgressLine,
    console: Console,
) -> pd.DataFrame:
    """Prepare a cell's dataset and ASM, probe the ASM and a random one, and log the results.

    Returns:
        One row for each ASM and input: the cell's setting, ``asm`` (trained or random), ``input``, the shares of
        `SHARES`, ``fitted``, ``tested``, and the accuracy of each slot.
    """
    label = _label(cell)
    report = partial(_tell, tracked, CellStages(progress, console, label))
    store, _ = prepare_dataset(experiment, cell, report)
    trained = cell_asm(experiment, cell, store, machine, report)
    random = FrozenASM.untrained(
        cell.pretraining.encoder, store.observation_size, store.action_spec, seed=cell.key.seed
    )
    random.model.to(machine.device)
    if experiment.standardize_observations:
        standardize(random.model, store)
    began = time.perf_counter()
    rows = []
    asms = {"trained": trained, "random": random}
    with progress.stage(label, "probing", len(asms) * len(PROBE_INPUTS), "probes") as stage:
        for name, asm in asms.items():
            for what in PROBE_INPUTS:
                result = probe_asm(experiment.probe, asm, store, what, seed=cell.key.seed)
                shares = {share: getattr(result, share) for share in SHARES}
                tracked.metrics({f"probe/{share}_{name}_{what}": value for share, value in shares.items()}, 0)
                rows.append({**_setting(cell), "asm": name, "input": what, **shares, **_details(result)})
                stage.update(len(rows))
    tracked.metrics({"time/probe_seconds": time.perf_counter() - began}, 0)
    table = pd.DataFrame(rows)
    table.insert(0, "preset", experiment.preset)
    tracked.text(RESULTS_FILE, table.to_csv(index=False))
    return table


def console_table(table: pd.DataFrame) -> RenderableType:
    """The results of all cells, for a terminal of 80 columns and more; seeds are averaged over."""
    return console_tables(probe_tables(table), NOTES)


def print_dry_run(
    console: Console, resolved: Resolved[Experiment], machine: ResolvedMachine, cells: Sequence[Cell]
) -> None:
    """Print everything that a run would do, without doing it."""
    print_configuration(console, resolved, machine)
    lines = []
    for number, cell in enumerate(cells, 1):
        have = "in the cache" if cached_asm(resolved.value, cell) else "to be made, at least in part"
        lines.append(f"probe {number}: {_label(cell)}: dataset and ASM {have}")
    console.print("\n".join([*lines, "", "nothing was probed"]), markup=False, highlight=False, soft_wrap=True)


def _setting(cell: Cell) -> dict[str, str | int]:
    key = cell.key
    return {"task": key.task, "bins": key.bins, "tier": key.tier, "seed": key.seed}


def _label(cell: Cell) -> str:
    key = cell.key
    return f"{key.task}/{key.bins} {key.tier} probe s{key.seed}"


def _details(result: ProbeResult) -> dict[str, float]:
    slots = {f"slot_accuracy_{slot}": accuracy for slot, accuracy in enumerate(result.slot_accuracies)}
    return {"fitted": result.fitted, "tested": result.tested, **slots}


def _tell(tracked: TrackedRun, stages: CellStages, event: Event) -> None:
    """Handle an event of preparing the dataset and the ASM."""
    stages.event(event)
    match event:
        case Metrics(step, values):
            tracked.metrics(values, step)
        case DatasetReady():
            tracked.tags({"dataset_fingerprint": event.fingerprint})
        case ASMReady(fingerprint, seconds):
            tracked.tags({"asm_fingerprint": fingerprint})
            tracked.metrics({"time/asm_seconds": seconds}, 0)


if __name__ == "__main__":
    sys.exit(main())
