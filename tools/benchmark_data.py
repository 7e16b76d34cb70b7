"""What making and opening datasets costs here: seconds, share of the simulator's bare speed, size and memory.

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
import functools
import itertools
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import psutil
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from harness.command_line import at_least_one, both_signals_stop, use_packaged_configs
from harness.commands import typed
from harness.entry_point import entry_point
from spinrl.behaviors import BehaviorError, load_behavior
from spinrl.config import ConfigError
from spinrl.data import (
    Making,
    Rollout,
    Store,
    StoreError,
    collect_episodes,
    collected,
    home,
    rollouts,
    tier_store,
)
from spinrl.data.collect.processes import WIDEST
from spinrl.data.collect.rollout import roll_out
from spinrl.data.importers.published import find, import_published
from spinrl.errors import UserError
from spinrl.machine import available_cores
from spinrl.tasks import EPISODE_STEPS, TASKS, BatchedEnvironment, get_task
from tools import collect_dataset

WIDTH = 130
EPISODES = 2  # that dm_control alone goes through
TIERS = ("medium", "expert", "medium-expert", "random-medium-expert")


@attrs.frozen
class Row:
    """One dataset.

    Attributes:
        task, bins, tier, transitions: which.
        collected: transitions that the simulator had to make for it.
        collect_seconds: that this took.
        loop_per_second: control steps a second of as many processes with the policy in the loop, resets included;
            without their start and the disk.
        bare_per_second: of the simulator alone, on such episodes.
        seconds: from nothing to the finished store, collecting included.
        megabytes: on disk.
        open_milliseconds: to open it by its metadata, the median of five.
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
        """Of the simulator's bare speed that is left with the policy in the loop."""
        return self.loop_per_second / self.bare_per_second if self.loop_per_second and self.bare_per_second else None


@attrs.frozen
class ImportRow:
    """One published file.

    Attributes:
        file: its path.
        file_megabytes: its size.
        transitions: that it holds.
        seconds: to the finished store.
        megabytes: of that store, on disk.
        peak_mebibytes: as in `Row`, of the child too that reads the file.
    """

    file: str
    file_megabytes: float
    transitions: int
    seconds: float
    megabytes: float
    peak_mebibytes: float


@attrs.frozen
class Rates:
    """Control steps a second of all processes: with the policy in the loop, and of dm_control alone."""

    loop: float
    bare: float


def rates(parts: Sequence[tuple[Rollout, int]], pool: Pool, processes: int, steps: int) -> Rates | None:
    """The speeds at which so many processes would make such transitions.

    Args:
        parts: rollouts, and how many transitions come from each.
        pool: of `processes` processes.
        processes: how many step at a time.
        steps: of each episode that is measured on.

    Returns:
        None when no transitions are asked for.
    """
    loop = bare = 0.0  # seconds
    for rollout, count in parts:
        of_each = pool.starmap(_alternated, [(rollout, steps)] * processes, chunksize=1)
        loop += count / sum(each.loop for each in of_each)
        bare += count / sum(each.bare for each in of_each)
    total = sum(count for _, count in parts)
    return Rates(total / loop, total / bare) if total else None


def _alternated(rollout: Rollout, steps: int) -> Rates:
    """Of one process, which goes from the one to the other every few lock-steps.

    A machine that has other guests too is often half as fast a minute later, whatever is measured then.
    """
    behavior = load_behavior(rollout.task, rollout.bins, rollout.behavior)
    environment = BatchedEnvironment(get_task(rollout.task), rollout.bins, WIDEST)
    bare = _Bare(rollout)
    loop_steps, loop_seconds, began = 0, 0.0, time.perf_counter()

    def alternate(made: int) -> None:
        nonlocal loop_steps, loop_seconds, began
        loop_steps, loop_seconds = loop_steps + made, loop_seconds + time.perf_counter() - began
        bare.play(made // 2)
        began = time.perf_counter()

    roll_out(rollout, behavior, environment, range(WIDEST), [steps] * WIDEST, alternate)
    environment.close()
    return Rates(loop_steps / loop_seconds, bare.steps / bare.seconds)


class _Bare:
    """dm_control alone, going through episodes of a rollout; starts of episodes are not timed."""

    def __init__(self, rollout: Rollout) -> None:
        self.steps, self.seconds = 0, 0.0
        self._rollout, self._episodes = rollout, itertools.cycle(enumerate(_some_actions(rollout)))
        self._simulator, self._ahead = playback(rollout, *next(self._episodes))

    def play(self, steps: int) -> None:
        """Go on by so many."""
        while steps:
            now, self._ahead = self._ahead[:steps], self._ahead[steps:]
            began = time.perf_counter()
            for values in now:
                self._simulator.step(values)
            self.seconds += time.perf_counter() - began
            self.steps, steps = self.steps + len(now), steps - len(now)
            if not len(self._ahead):
                self._simulator, self._ahead = playback(self._rollout, *next(self._episodes))


@functools.cache  # of a mixed tier's parts each is measured in the same processes
def _some_actions(rollout: Rollout) -> list[np.ndarray]:
    return [episode.actions for episode in collect_episodes(rollout, EPISODES * EPISODE_STEPS)]


def playback(rollout: Rollout, number: int, actions: np.ndarray) -> tuple[Any, np.ndarray]:
    """dm_control at the start of an episode, and the (T, N) control values of its (T, N) actions."""
    environment = BatchedEnvironment(get_task(rollout.task), rollout.bins, 1)
    environment.reset(0, rollout.environment_seed(number))
    simulator = environment.simulators[0]
    del simulator.physics.check_invalid_state  # ours, which is quicker than dm_control's own
    return simulator, environment.controls[np.arange(len(environment.controls)), actions]


class PeakMemory:
    """Memory of this process and its children while the block runs, sampled as often as a twentieth of a core allows.

    To count shared pages once takes the system tens of milliseconds, which would be missing from what is measured.
    """

    def __enter__(self) -> PeakMemory:
        self._before = self.peak = _memory()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()
        self.peak = max(self.peak, _memory())

    @property
    def mebibytes(self) -> float:
        """The most that was in use beyond what was before."""
        return (self.peak - self._before) / 2**20

    def _watch(self) -> None:
        pause = 0.25
        while not self._over.wait(pause):
            began = time.perf_counter()
            self.peak = max(self.peak, _memory())
            pause = 20 * (time.perf_counter() - began)


def _memory() -> int:
    """Bytes of this process and all its children. A page that several share counts once, where the system tells (PSS,
    on Linux); elsewhere not at all."""
    total = 0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            used = process.memory_full_info()
            total += getattr(used, "pss", used.uss)
        except psutil.Error:  # it has ended since
            continue
    return total


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
        missing = [(rollout, left) for rollout, count in parts if (left := count - collected(rollout)) > 0]
        speed = rates(missing, pool, processes, options.steps)
        with PeakMemory() as memory:
            began = time.perf_counter()
            collect_dataset.collect_sources(parts, f"{task} {bins} bins {name}", processes, console)
            collect_seconds = time.perf_counter() - began
            store = tier_store(name, tier, task, bins, options.transitions, experiment.data_seed, Making())
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


def measure_import(file: Path) -> ImportRow:
    """Import a published file into the cache.

    Raises:
        StoreError: in one line, when it is refused.
    """
    with PeakMemory() as memory:
        began = time.perf_counter()
        store = import_published(file, home() / "stores" / file.name)
        seconds = time.perf_counter() - began
    shutil.rmtree(store.path)
    return ImportRow(
        file=str(file),
        file_megabytes=file.stat().st_size / 1e6,
        transitions=len(store),
        seconds=seconds,
        megabytes=store.num_bytes / 1e6,
        peak_mebibytes=memory.mebibytes,
    )


def _opening(path: Path) -> float:
    began = time.perf_counter()
    Store.open(path)
    return 1e3 * (time.perf_counter() - began)


def import_table(rows: Sequence[ImportRow]) -> Table:
    """The rows as people read them."""
    made = Table("file", "MB", "transitions", "s", "transitions/s", "stored MB", "MiB", box=box.SIMPLE_HEAD)
    for row in rows:
        speed, sizes = f"{row.transitions / row.seconds:,.0f}", (f"{row.megabytes:.1f}", f"{row.peak_mebibytes:.0f}")
        made.add_row(
            "/".join(Path(row.file).parts[-2:]),
            f"{row.file_megabytes:.1f}",
            f"{row.transitions:,}",
            f"{row.seconds:.1f}",
            speed,
            *sizes,
        )
    return made


def table(rows: Sequence[Row]) -> Table:
    """The rows as people read them."""
    made = Table(
        *("task", "bins", "tier", "transitions", "collected", "steps/s", "loop", "bare", "share"),
        *("s", "MB", "open ms", "MiB"),
        box=box.SIMPLE_HEAD,
    )
    for row in rows:
        speeds = (row.per_second, row.loop_per_second, row.bare_per_second)
        share = "–" if row.share is None else f"{row.share:.0%}"
        made.add_row(
            *(row.task, str(row.bins), row.tier, f"{row.transitions:,}", f"{row.collected:,}"),
            *("–" if speed is None else f"{speed:,.0f}" for speed in speeds),
            *(share, f"{row.seconds:.1f}", f"{row.megabytes:.1f}"),
            *(f"{row.open_milliseconds:.1f}", f"{row.peak_mebibytes:.0f}"),
        )
    return made


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.benchmark_data"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--task", nargs="+", default=list(TASKS), choices=list(TASKS), help="all by default")
    made.add_argument("--bins", nargs="+", type=int, default=[3], help="choices per sub-action (default 3)")
    made.add_argument("--tier", nargs="+", default=list(TIERS), choices=TIERS, help="all by default, in this order")
    made.add_argument("--transitions", type=at_least_one, default=100_000, help="of every dataset (default 100000)")
    made.add_argument("--published", nargs="+", metavar="FILE", help="published files to import, and nothing else")
    made.add_argument("--processes", type=at_least_one, help="worker processes (default: one a core)")
    made.add_argument(
        "--steps",
        type=at_least_one,
        default=EPISODE_STEPS,
        help=f"of each episode that the share of the bare speed is measured on (default {EPISODE_STEPS}, whole ones)",
    )
    made.add_argument("--folder", type=Path, help="where the cache is made and deleted (default: the system's)")
    made.add_argument("--json", type=Path, help="file to write the figures to")
    return made


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    use_packaged_configs()
    console = Console()
    rows: list[Row | ImportRow] = []
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
                    options.json.write_text(
                        json.dumps([attrs.asdict(each) for each in rows], indent=1) + "\n", encoding="utf-8"
                    )
    except KeyboardInterrupt:
        console.print("stopped; what was measured:")
        code = 130
    except (ConfigError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    made = import_table(rows) if options.published else table(rows)  # type: ignore[arg-type]  # all are of one kind
    Console(width=max(console.width, WIDTH)).print(made)  # into a file too, which has no width
    return code


if __name__ == "__main__":
    sys.exit(main())
