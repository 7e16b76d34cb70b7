"""Collect a dataset: roll out the behaviour policies of a tier, and write the store that experiments train on.

Examples:
  python -m tools.collect_dataset --task humanoid-stand --tier medium --transitions 1000000
  python -m tools.collect_dataset --task dog-trot --tier medium-expert --bins 10 --processes 16
  python -m tools.collect_dataset --task cheetah-run --tier expert --transitions 200000 --out datasets/cheetah
  python -m tools.collect_dataset --task humanoid-stand --tier medium --set 'medium/Source.epsilon=0.1'

Tiers, their sizes and the seed are those of gin/spin_humanoid.gin, and of --gin and --set on top of it, so that an
experiment of the same files finds the store in the cache. Collection goes on where it was after any interruption,
kill -9 included; neither that nor the number of processes changes the data. Exit code: 0 when the store is there,
1 when it could not be made, 2 when something given was wrong, 130 when stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
from rich import box
from rich.console import Console
from rich.table import Table

from harness.command_line import add_configuration_options, at_least_one, both_signals_stop, use_packaged_configs
from harness.commands import typed
from harness.entry_point import entry_point
from harness.experiment import Experiment
from harness.terminal.progress import ProgressLine, Stage
from spinrl.cache import made_alone
from spinrl.config import load
from spinrl.data import (
    BuildOptions,
    Rollout,
    Store,
    StoreError,
    Tier,
    cached_transitions,
    rollouts,
    source_store,
    tier_store,
)
from spinrl.data.store.metadata import METADATA_FILE
from spinrl.errors import UserError
from spinrl.files import replacing
from spinrl.tasks import get_task


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.collect_dataset"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--task", required=True, help="name of the task, e.g. humanoid-stand")
    made.add_argument("--tier", required=True, help="name of the recipe, e.g. medium or medium-expert")
    made.add_argument("--bins", type=int, default=3, help="choices per sub-action (default 3)")
    made.add_argument("--transitions", type=at_least_one, help="size of the dataset (default: as the recipe says)")
    made.add_argument("--seed", type=int, help="seed of all episodes (default: that of the experiment, 0)")
    made.add_argument("--processes", type=at_least_one, help="worker processes (default: one a core)")
    made.add_argument(
        "--out", type=Path, help="put the finished store there too, as hard links to the cache if possible"
    )
    add_configuration_options(made, "a gin file with other recipes; repeatable", "medium/Source.epsilon=0.1")
    return made


def read_experiment(options: argparse.Namespace) -> tuple[Experiment, Tier]:
    """The experiment that gin and options describe, and the tier to collect.

    Raises:
        ConfigError, KeyError, ValueError: for an unknown task, tier or number of bins, or a wrong binding.
    """
    get_task(options.task).action_spec(options.bins)
    given = {"tasks": [options.task], "bins": [options.bins], "tiers": [options.tier]}
    if options.seed is not None:
        given["data_seed"] = options.seed
    if options.processes is not None:
        given["collection_processes"] = options.processes
    bindings = [*options.bindings, *(f"Experiment.{field}={value!r}" for field, value in given.items())]
    experiment = load(Experiment, ["gin/spin_humanoid.gin", *options.gin], bindings).value
    tier = experiment.recipes[options.tier]
    if not isinstance(tier, Tier):
        raise ValueError(
            f"expected a tier that can be collected (a Tier), but {options.tier!r} is a {type(tier).__name__}"
        )
    return experiment, tier if options.transitions is None else attrs.evolve(tier, transitions=options.transitions)


def collect_sources(parts: Sequence[tuple[Rollout, int]], label: str, processes: int, console: Console) -> float | None:
    """Collect the transitions that the cache lacks; returns steps a second, None if it lacks none.

    Raises:
        CollectionError, StoreError: in one line each.
    """
    missing = [(rollout, count) for rollout, count in parts if cached_transitions(rollout) < count]
    if not missing:
        return None
    total = sum(count for _, count in missing)
    guess = total / (2000 * processes)  # seconds; it counts until the first steps are made
    with ProgressLine(1, console, plan=[(label, "collecting", guess)]) as progress:
        stage = progress.stage(label, "collecting", total, "transitions")
        before = 0
        for rollout, count in missing:
            stage.pause()  # what is there of this source already says nothing about speed
            build = BuildOptions(
                processes=processes,
                progress=_Shown(stage, before),
                on_wait=lambda path: console.print(f"another run is collecting {path.name}; waiting for it"),
                on_damage=lambda message: console.print(message, style="yellow", markup=False),
            )
            source_store(rollout, count, build)
            before += count
        stage.finish()
    return stage.rate


@attrs.frozen
class _Shown:
    """Progress of one source, as part of a stage that has done `before` already."""

    stage: Stage
    before: int

    def __call__(self, done: int, total: int) -> None:
        self.stage.update(self.before + done)


def store_at(out: Path) -> Store | None:
    """The store in a folder; None if the folder does not exist.

    Raises:
        StoreError: when the folder holds anything else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / METADATA_FILE).is_file():
        raise StoreError(f"{out}: expected a store or no folder, found something else; give a new folder")
    return Store.open(out)


def put(store: Store, out: Path) -> Store:
    """Put the store into a user's folder, as hard links on the same disk, else as copies.

    Raises:
        StoreError: when another dataset is there, or the disk is full or cannot be written.
    """
    out = out.absolute()
    there = store_at(out)
    if there is not None:
        if there.fingerprint != store.fingerprint:
            raise StoreError(f"{out} holds another dataset; give a new folder, or use the store in {store.path}")
        return there
    try:
        with made_alone(out), replacing(out) as beside:
            shutil.copytree(store.path, beside, copy_function=_link_or_copy)
    except OSError as error:
        raise StoreError(f"the store could not be put into {out}: {error}; it is in {store.path}") from error
    return Store.open(out)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def print_summary(store: Store, rate: float | None, console: Console) -> None:
    """Sources with their returns, size, speed and place."""
    table = Table("source", "random", "episodes", "transitions", "return", box=box.SIMPLE_HEAD)
    for source in store.metadata.sources:
        table.add_row(
            source.behavior,
            f"{100 * source.epsilon:g}%",
            f"{source.episodes:,}",
            f"{source.transitions:,}",
            f"{source.return_mean:.1f} ± {source.return_std:.1f}",
        )
    console.print(table)
    speed = f"{rate:,.0f} steps/s" if rate else "found in the cache"
    lines = f"{len(store):,} transitions, {store.num_bytes / 1e6:,.1f} MB, {speed}\n{store.path}"
    console.print(lines, markup=False, highlight=False, soft_wrap=True)


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    use_packaged_configs()
    console = Console()
    try:
        experiment, tier = read_experiment(options)
        parts = rollouts(tier, options.task, options.bins, experiment.transitions, experiment.data_seed)
        if options.out:
            store_at(options.out)
    except (UserError, KeyError, ValueError) as error:
        print(error.args[0] if isinstance(error, KeyError) else error, file=sys.stderr)
        return 2
    processes = experiment.collectors
    label = f"{options.task} {options.bins} bins {options.tier}"
    try:
        with both_signals_stop():
            rate = collect_sources(parts, label, processes, console)
            build = BuildOptions(on_damage=lambda message: console.print(message, style="yellow", markup=False))
            store = tier_store(
                options.tier, tier, options.task, options.bins, experiment.transitions, experiment.data_seed, build
            )
        print_summary(put(store, options.out) if options.out else store, rate, console)
    except KeyboardInterrupt:
        console.print("stopped; the same command resumes from here")
        return 130
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
