"""Export the policy of a finished cell to files that act without spinrl.

Examples:
  python -m tools.export_policy 0123456789abcdef0123456789abcdef --out exported
  python -m tools.export_policy runs:/0123456789abcdef0123456789abcdef --out exported --format onnx --format pt2
  python -m tools.export_policy path/to/checkpoint --out exported --format safetensors
  python -m tools.export_policy 0123456789abcdef0123456789abcdef --out exported --register humanoid --latency
  python -m tools.export_policy reference.pt --out exported --gin gin/spin_humanoid.gin --gin gin/scale/paper.gin \\
      --set "Experiment.tiers=['expert']"

A cell's run id stands on its page in the MLflow UI. What is written is compared with the trained policy first, on
observations of its dataset and on extreme ones, and acts in ten episodes of the simulator; where it differs nothing is
written. The folder holds the model, card.json, and one run_<format>.py for each format that needs only torch, or only
onnxruntime and numpy. Exit code: 0 when all was written, 2 when something given was wrong.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from harness.command_line import add_configuration_options, use_packaged_configs
from harness.commands import typed
from harness.entry_point import entry_point
from harness.experiment import Experiment
from harness.exporting.card import ExportedPolicy, card_of, dataset_of, known_observations, logged_values
from harness.exporting.finished import FinishedCell, finished_cell, simulated
from harness.exporting.reference import reference_cell
from harness.exporting.serve import log_model
from harness.tracking.connection import default_uri, redacted
from spinrl.cache import made_alone
from spinrl.config import load
from spinrl.errors import UserError
from spinrl.export import (
    CARD,
    FORMATS,
    Comparison,
    DeployedPolicy,
    Latency,
    compare,
    latency,
    load_runner,
    require_agreement,
    require_packages,
    write,
)
from spinrl.files import replacing
from spinrl.tasks import TASKS, BatchedEnvironment

EXAMPLE = "example.json"
EPISODES = 10
NOTHING_TO_REGISTER = "--register needs the run id of a cell; found a checkpoint file"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.export_policy"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("source", help="run id of a cell, runs:/<id>, a checkpoint file, or the folder that holds one")
    made.add_argument("--out", type=Path, required=True, help="folder to write; it must not exist yet")
    made.add_argument(
        "--format", action="append", choices=list(FORMATS), dest="formats", help="repeatable (default: all of them)"
    )
    made.add_argument(
        "--tracking-uri", help="MLflow store (default: MLFLOW_TRACKING_URI, else mlflow.db in this folder)"
    )
    made.add_argument("--register", metavar="NAME", help="log the onnx model to the cell's run and register it")
    add_configuration_options(made, "gin file that describes a checkpoint of the reference code; repeatable")
    made.add_argument("--latency", action="store_true", help="time every format, on one thread")
    return made


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    formats = list(dict.fromkeys(options.formats or FORMATS))
    console = Console()
    torch.set_num_threads(1)
    if options.out.exists():
        raise UserError(f"{options.out} exists already; give another --out, or delete it")
    if not options.out.resolve().parent.is_dir():
        raise UserError(f"there is no folder {options.out.parent} to write {options.out.name} into")
    require_packages(formats)
    if options.register is not None and (not options.register.strip() or set(options.register) & set("/:")):
        raise UserError(f"--register must be a name without / and :; found {options.register!r}")
    if options.register and "onnx" not in formats:
        raise UserError("--register serves the onnx model; add --format onnx")
    if options.register and options.gin:  # before its policy is evaluated
        raise UserError(NOTHING_TO_REGISTER)
    cell = found_cell(options, console)
    if options.register and cell.run_id is None:
        raise UserError(NOTHING_TO_REGISTER)
    with made_alone(options.out):
        export(cell, formats, options.out, console, with_latency=options.latency)
    version = log_model(options.out, cell, options.register, options.tracking_uri) if options.register else None
    if version is not None:
        console.print(
            f"registered as models:/{options.register}/{version}; serve it with\n"
            f"  MLFLOW_TRACKING_URI='{redacted(options.tracking_uri or default_uri())}' "
            f"mlflow models serve -m models:/{options.register}/{version} --env-manager local -p 5001",
            highlight=False,
            soft_wrap=True,
        )
    return 0


def found_cell(options: argparse.Namespace, console: Console) -> FinishedCell:
    """The policy that the command line names.

    Raises:
        UserError: when there is none.
    """
    if options.bindings and not options.gin:
        raise UserError("--set is for checkpoints of the reference code: give --gin FILE too")
    if not options.gin:
        return finished_cell(options.source, options.tracking_uri)
    use_packaged_configs()
    experiment = load(Experiment, options.gin, options.bindings).value
    console.print(f"reading {options.source}, and evaluating it in the simulator …", highlight=False)
    return reference_cell(Path(options.source), experiment)


def export(cell: FinishedCell, formats: Sequence[str], out: Path, console: Console, *, with_latency: bool) -> None:
    """Write, check and run every format in a temporary folder, and rename it to `out`.

    Raises:
        UserError: when a format fails; the message is one line, and no files are left.
    """
    spec = cell.policy.action_spec
    environment = BatchedEnvironment(TASKS[cell.key.task], spec.max_choices, 1) if cell.key.task in TASKS else None
    table = environment.controls if environment else logged_values(cell)
    controls = torch.from_numpy(table)
    deployed = DeployedPolicy(cell.policy, controls)
    dataset = dataset_of(cell)
    observations, whence = known_observations(cell, dataset, environment)
    card = card_of(cell, dataset, table, environment, deployed, formats)
    if environment:
        environment.close()
    with replacing(out) as beside:
        beside.mkdir()
        (beside / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        (beside / EXAMPLE).write_text(json.dumps(observations[:3].tolist()) + "\n", encoding="utf-8")
        for name in formats:
            console.print(f"writing {name} …", highlight=False)
            write(deployed, name, beside)
        runners = {name: load_runner(beside, name) for name in formats}
        checked = {}
        for name, runner in runners.items():
            console.print(f"comparing {name} with the trained policy …", highlight=False)
            checked[name] = compare(runner, cell.policy, controls, observations)
        console.print(comparison_table(checked, whence))
        for name, comparisons in checked.items():
            require_agreement(name, comparisons)
        returns = {}
        for name, runner in runners.items() if environment else ():
            console.print(f"{EPISODES} episodes in the simulator through {name} …", highlight=False)
            exported = ExportedPolicy(runner, cell.policy.observation_size, spec)
            returns[name] = simulated(exported, cell.key, EPISODES, action=cell.action, steps=cell.episode_steps)
        if returns:
            console.print(returns_table(cell, returns))
        card["compared_on"] = whence
        card["comparisons"] = {name: [attrs.asdict(each) for each in all_] for name, all_ in checked.items()}
        card["exported_returns"] = returns
        if with_latency:
            timed = latencies(cell, runners, observations.numpy())
            console.print(latency_table(timed))
            card["latency_ms"] = [attrs.asdict(each) for each in timed]
        (beside / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(beside / "__pycache__", ignore_errors=True)
    runner = f"run_{formats[0]}.py"
    console.print(f"written to {out}; try: cd {out} && python {runner} {EXAMPLE}", highlight=False, soft_wrap=True)


def latencies(cell: FinishedCell, runners: dict[str, Any], observations: np.ndarray) -> list[Latency]:
    """Latencies of eager PyTorch and of every format."""

    @torch.inference_mode()
    def eager(rows: np.ndarray) -> torch.Tensor:
        return cell.policy.mode(torch.from_numpy(rows))

    acts = {"eager": eager, **{name: runner.act for name, runner in runners.items()}}
    return [each for name, act in acts.items() for each in latency(name, act, observations, 2.0)]


def _table(title: str, *columns: str) -> Table:
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number > 1 else "left")
    return made


def comparison_table(checked: dict[str, list[Comparison]], whence: str) -> Table:
    """Results of the comparison, for the terminal."""
    made = _table(f"against the trained policy; dataset: {whence}", "format", "inputs", "rows", "logits", "actions")
    for name, comparisons in checked.items():
        for each in comparisons:
            actions = "equal" if each.actions == 0 else f"{each.actions} of {each.decided} differ"
            made.add_row(name, each.inputs, f"{each.rows:,}", f"{each.difference:.1e}", actions)
    return made


def returns_table(cell: FinishedCell, returns: dict[str, list[float]]) -> Table:
    """Returns of the exported files beside those of the run."""
    made = _table(f"returns of {cell.key.label()}, {cell.action}", "through", "", "mean", "standard error")
    for name, values in {"the trained policy": list(cell.final.returns), **returns}.items():
        error = f"{np.std(values, ddof=1) / len(values) ** 0.5:.1f}" if len(values) > 1 else "–"
        made.add_row(name, "", f"{np.mean(values):.1f}", error)
    return made


def latency_table(measured: list[Latency]) -> Table:
    """Milliseconds a call."""
    made = _table("milliseconds a call, one thread", "format", "", "batch", "median", "99th percentile")
    for each in measured:
        made.add_row(each.format, "", str(each.batch), f"{each.median:.3f}", f"{each.slow:.3f}")
    return made


if __name__ == "__main__":
    sys.exit(main())
