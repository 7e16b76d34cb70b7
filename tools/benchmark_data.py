"""Cost of making and opening datasets: seconds, share of the simulator's bare speed, size and memory.

Examples:
  python -m tools.benchmark_data
  python -m tools.benchmark_data --task humanoid-stand dog-trot --tier medium --transitions 1000000
  python -m tools.benchmark_data --task dog-trot --bins 3 10 30 --json dog.json
  python -m tools.benchmark_data --published 3_bins/humanoid-stand-medium

Every tier is made in an empty cache that is deleted afterwards, in the order given, so that a tier whose episodes were
collected for one before it is put together from them, as in any run. Before that, as many processes as collect go back
and forth between rolling out such episodes with the policy (loop) and stepping dm_control alone through them (bare).
Tasks without a shipped behaviour are named and left out. With --published nothing is collected: published files are
imported, and the memory is that of the reader and its child. Exit code: 0 when all is measured, 1 when a dataset could
not be made, 2 when something given was wrong, 130 when stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from harness.command_line import at_least_one, both_signals_stop, use_packaged_configs
from harness.commands import typed
from harness.entry_point import entry_point
from spinrl.behaviors import BehaviorError
from spinrl.config import ConfigError
from spinrl.data import (
    BuildOptions,
    Store,
    StoreError,
    cached_transitions,
    home,
    rollouts,
    tier_store,
)
from spinrl.data.importers.published import find, import_published
from spinrl.errors import UserError
from spinrl.machine import available_cores
from spinrl.tasks import EPISODE_STEPS, TASKS
from tools import collect_dataset
from tools.measures import PeakMemory, rates

WIDTH = 130
TIERS = ("medium", "expert", "medium-expert", "random-medium-expert")


@attrs.frozen
class Row:
    """One dataset.

    Attributes:
        task, bins, tier, transitions: properties of the dataset.
        collected: transitions that the simulator had to make for it.
        collect_seconds: time of collecting them.
        loop_per_second: control steps a second of as many processes with the policy in the loop, resets included;
            without their start and the disk.
        bare_per_second: control steps a second of the simulator alone, on such episodes.
        seconds: time from nothing to the finished store, collecting included.
        megabytes: size on disk.
        open_milliseconds: time to open it by its metadata, median of five.
        peak_mebibytes: memory of all processes, shared pages counted once, beyond what they had before.
    """

    task: str
    bins: int
    tier: str
    transitions: int
    collected: int
    collect_seconds: float
    loop_per_second: float | None
    bare_per_second: float | None
    seconds: float
    megabytes: float
    open_milliseconds: float
    peak_mebibytes: float

    @property
    def per_second(self) -> float | None:
        """Transitions collected a second, from the start of the processes to the episodes on disk."""
        return self.collected / self.collect_seconds if self.collected else None

    @property
    def share(self) -> float | None:
        """Share of the simulator's bare speed that is left with the policy in the loop."""
        return self.loop_per_second / self.bare_per_second if self.loop_per_second and self.bare_per_second else None


def measure(options: argparse.Namespace, console: Console) -> Iterator[Row]:
    """Make every dataset asked for, and give a row for each.

    Raises:
        CollectionError, StoreError: in one line each.
    """
    processes = options.processes or available_cores()
    with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
        for task in options.task:
            for bins in options.bins:
                try:
                    yield from _measure_task(task, bins, options, processes, pool, console)
                except BehaviorError as error:
                    console.print(f"left out: {error}", style="yellow", markup=False)


def _measure_task(
    task: str, bins: int, options: argparse.Namespace, processes: int, pool: Pool, console: Console
) -> Iterator[Row]:
    for name in options.tier:
        asked = ["--task", task, "--bins", str(bins), "--tier", name, "--transitions", str(options.transitions)]
        experiment, tier = collect_dataset.read_experiment(collect_dataset.parser().parse_args(asked))
        parts = rollouts(tier, task, bins, options.transitions, experiment.data_seed)
        missing = [(rollout, left) for rollout, count in parts if (left := count - cached_transitions(rollout)) > 0]
        speed = rates(missing, pool, processes, options.steps)
        with PeakMemory() as memory:
            began = time.perf_counter()
            collect_dataset.collect_sources(parts, f"{task} {bins} bins {name}", processes, console)
            collect_seconds = time.perf_counter() - began
            store = tier_store(name, tier, task, bins, options.transitions, experiment.data_seed, BuildOptions())
            seconds = time.perf_counter() - began
        yield Row(
            task=task,
            bins=bins,
            tier=name,
            transitions=len(store),
            collected=sum(count for _, count in missing),
            collect_seconds=collect_seconds,
            loop_per_second=speed.loop if speed else None,
            bare_per_second=speed.bare if speed else None,
            seconds=seconds,
            megabytes=store.num_bytes / 1e6,
            open_milliseconds=float(np.median([_opening(store.path) for _ in range(5)])),
            peak_mebibytes=memory.mebibytes,
        )


def measure_import(file: Path) -> dict[str, Any]:
    """Import a published file into the cache, and give its figures by name, those of `Row` and of the file.

    Raises:
        StoreError: in one line, when it is refused.
    """
    with PeakMemory() as memory:
        began = time.perf_counter()
        store = import_published(file, home() / "stores" / file.name)
        seconds = time.perf_counter() - began
    shutil.rmtree(store.path)
    sizes = {"file_megabytes": file.stat().st_size / 1e6, "megabytes": store.num_bytes / 1e6}
    return {
        "file": str(file),
        "transitions": len(store),
        "seconds": seconds,
        "peak_mebibytes": memory.mebibytes,
    } | sizes


def _opening(path: Path) -> float:
    began = time.perf_counter()
    Store.open(path)
    return 1e3 * (time.perf_counter() - began)


def _speed(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "task": lambda row: row.task,
    "bins": lambda row: str(row.bins),
    "tier": lambda row: row.tier,
    "transitions": lambda row: f"{row.transitions:,}",
    "collected": lambda row: f"{row.collected:,}",
    "steps/s": lambda row: _speed(row.per_second),
    "loop": lambda row: _speed(row.loop_per_second),
    "bare": lambda row: _speed(row.bare_per_second),
    "share": lambda row: "–" if row.share is None else f"{row.share:.0%}",
    "s": lambda row: f"{row.seconds:.1f}",
    "MB": lambda row: f"{row.megabytes:.1f}",
    "open ms": lambda row: f"{row.open_milliseconds:.1f}",
    "MiB": lambda row: f"{row.peak_mebibytes:.0f}",
}
IMPORT_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "file": lambda row: "/".join(Path(row["file"]).parts[-2:]),
    "MB": lambda row: f"{row['file_megabytes']:.1f}",
    "transitions": lambda row: f"{row['transitions']:,}",
    "s": lambda row: f"{row['seconds']:.1f}",
    "transitions/s": lambda row: f"{row['transitions'] / row['seconds']:,.0f}",
    "stored MB": lambda row: f"{row['megabytes']:.1f}",
    "MiB": lambda row: f"{row['peak_mebibytes']:.0f}",
}


def table(rows: Sequence[Any], columns: Mapping[str, Callable[[Any], str]]) -> Table:
    """The rows as people read them."""
    made = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        made.add_row(*(shown(row) for shown in columns.values()))
    return made


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.benchmark_data"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--task", nargs="+", default=list(TASKS), choices=list(TASKS), help="all by default")
    made.add_argument("--bins", nargs="+", type=int, default=[3], help="choices per sub-action (default 3)")
    made.add_argument("--tier", nargs="+", default=list(TIERS), choices=TIERS, help="all by default, in this order")
    made.add_argument(
        "--transitions", type=at_least_one, default=100_000, help="size of every dataset (default 100000)"
    )
    made.add_argument("--published", nargs="+", metavar="FILE", help="published files to import, and nothing else")
    made.add_argument("--processes", type=at_least_one, help="worker processes (default: one a core)")
    made.add_argument(
        "--steps",
        type=at_least_one,
        default=EPISODE_STEPS,
        help=f"steps of each episode used to measure the bare speed (default {EPISODE_STEPS}, whole episodes)",
    )
    made.add_argument("--folder", type=Path, help="folder of the temporary cache (default: the system's)")
    made.add_argument("--json", type=Path, help="file to write the figures to")
    return made


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    use_packaged_configs()
    console = Console()
    rows: list[Any] = []
    code = 0
    try:
        files = [find(name) for name in options.published or ()]
    except StoreError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        with both_signals_stop(), tempfile.TemporaryDirectory(dir=options.folder) as cache:
            os.environ["SPINRL_HOME"] = cache
            for row in map(measure_import, files) if files else measure(options, console):
                rows.append(row)
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=1, default=attrs.asdict) + "\n", encoding="utf-8")
    except KeyboardInterrupt:
        console.print("stopped; what was measured:")
        code = 130
    except (ConfigError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    made = table(rows, IMPORT_COLUMNS if options.published else COLUMNS)
    Console(width=max(console.width, WIDTH)).print(made)  # into a file too, which has no width
    return code


if __name__ == "__main__":
    sys.exit(main())
