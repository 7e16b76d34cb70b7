"""A storm: a small grid is killed at random points, again and again, and has to come out as if nothing had been.

    python -m tests.storm --kills 200
    python -m tests.storm --kills 30 --damage --seed 1
    python -m tests.storm --kills 30 --together
    sudo python -m tests.storm --kills 30 --full

Every study is a grid of real cells (collection, ASM pre-training, features, training, evaluation, report). It is run
to its end once undisturbed, and once with `kill -9` at random times, each time started again by the same command, until
it finishes. Then returns, checksums of every store, and what MLflow holds (runs, their states, every step of every
metric) must be the same. With --damage a random byte of the cache is altered after some of the kills; with --together
two such runs, each with its own MLflow, share one cache and are killed independently; with --full the study lives on a
small disk of its own (a tmpfs, which only root may mount), which is full for some seconds now and then. Studies follow
one another, each with a seed and a cache of its own, until there were so many kills. Exit code: 0 when all studies came
out the same, 1 when one did not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

import harness.study  # noqa: F401  # here, so that forked processes need not import it
from harness import run as command
from harness.reporting.returns import read_csv
from harness.tracking.operations import MlflowClient
from spinrl.data import Store

GRID = """
Experiment.name = 'storm'
Experiment.tiers = ['medium-expert']
medium_expert/Tier.transitions = 2_000
Pretraining.steps = 60
Pretraining.batch_size = 64
Pretraining.checkpoint_minutes = 0.005
ASMEncoder.d_model = 16
ASMEncoder.state_width = 32
Autoregressive.lstm_width = 16
MonteCarloCritics.steps = 100
Training.gradient_steps = 300
Training.batch_size = 32
Training.checkpoint_minutes = 0.005
Evaluating.fractions = [0.01, 0.5, 1.0]
Evaluating.episodes = 2
Evaluating.final_episodes = 2
Evaluating.episode_steps = 40
Machine.threads = 1
"""
ONCE_A_SESSION = ("time/total_seconds", "time/logging_seconds")
PATIENCE = 600.0  # seconds for one invocation
POLL_SECONDS = 0.02
LIVES = 7.0  # mean number of times that a process is killed in the time that an undisturbed run takes
DISK_BYTES = 256 * 2**20  # of the small disk
FULL_SECONDS = (1.0, 8.0)  # for which it is full at a time
FREE_SECONDS = (2.0, 20.0)  # and then has room


@attrs.frozen
class Place:
    """Where one run lives: its working directory with its MLflow store, and its cache."""

    folder: Path
    home: Path
    seed: int

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    @property
    def log(self) -> Path:
        """What is printed, which a full disk does not keep from being read."""
        return self.folder.parent.with_name(f"{self.folder.name}.log")

    def run(self) -> int:
        """The process of one invocation, forked from this one: what is imported need not be again."""
        pid = os.fork()
        if pid:
            return pid
        try:
            os.setsid()  # to be killed with all that it starts
            os.chdir(self.folder)
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ["SPINRL_HOME"] = str(self.home)
            os.environ["MLFLOW_TRACKING_URI"] = self.uri
            arguments = ["--gin", "gin/spin_humanoid.gin", "--gin", "gin/policies/all.gin", "--gin", "grid.gin"]
            code = command.main([*arguments, "--set", f"Experiment.seeds=[{self.seed}]", "--jobs", "1"])
        except BaseException:
            traceback.print_exc()
            code = 70
        os._exit(code)


def exit_code(pid: int) -> int | None:
    """Of a process that has ended, else None."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def kill(pid: int) -> None:
    """End a process and its children at once."""
    os.killpg(os.getpgid(pid), signal.SIGKILL)
    os.waitpid(pid, 0)


def alter(home: Path, rng: random.Random) -> Path | None:
    """Alter one byte of one file of the cache."""
    kinds = ("stores", "sources", "asms", "features", "cells")
    files = [path for kind in kinds for path in (home / kind).rglob("*") if path.is_file() and path.stat().st_size]
    files = [path for path in sorted(files) if path.suffix in (".memmap", ".safetensors", ".bin", ".pt", ".npz")]
    if not files:
        return None
    path = rng.choice(files)
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 + rng.randrange(255)
    path.write_bytes(content)
    return path


def content(place: Place, *, altered: bool = False) -> dict[str, Any]:
    """Everything that must not depend on how often a study was interrupted.

    Args:
        place: where it is.
        altered: the cache may hold what was altered when nothing was going to read it any more.
    """
    client = MlflowClient(place.uri)
    experiment = client.get_experiment_by_name("storm")
    runs = client.search_runs([experiment.experiment_id])
    held: dict[str, Any] = {"runs": sorted(run.info.run_name for run in runs)}
    for run in runs:
        name = run.info.run_name
        held[f"{name}: state"] = run.info.status
        for metric in run.data.metrics:
            steps = [each.step for each in client.get_metric_history(run.info.run_id, metric)]
            held[f"{name}: {metric}"] = len(steps) == len(set(steps)) if metric in ONCE_A_SESSION else sorted(steps)
        if run.data.tags["spinrl.role"] == "experiment":
            returns = read_csv(Path(client.download_artifacts(run.info.run_id, "returns.csv", str(place.folder))))
            returns = returns.sort_values(["policy", "gradient_step", "episode"])
            held["returns"] = returns[["policy", "gradient_step", "episode", "return"]].to_numpy().tolist()
    for folder in sorted((place.home / "stores").glob("[!.]*")):
        store = Store.open(folder)
        if not altered:
            store.verify()
        held[f"store {folder.name}"] = store.fingerprint
    held["left over"] = sorted(str(path.relative_to(place.home)) for path in (place.home / "cells").rglob("*.pt"))
    held["unsent"] = sorted(path.name for path in place.folder.glob("spinrl-journal/*") if path.suffix != ".partial")
    return held


@attrs.define
class Disk:
    """A small disk, now and then full."""

    folder: Path
    rng: random.Random
    full: bool = False
    times: int = 0
    until: float = 0.0

    def mount(self) -> None:
        """Raises CalledProcessError where this may not be done."""
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "storm", str(self.folder)],
            check=True,
            capture_output=True,
        )

    def unmount(self) -> None:
        """What was on it is gone."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True, capture_output=True)

    def turn(self) -> None:
        """Fill it or make room, when it is time."""
        if time.monotonic() < self.until:
            return
        first = not self.until
        self.until = time.monotonic() + self.rng.uniform(*(FREE_SECONDS if first or self.full else FULL_SECONDS))
        if first:
            return
        ballast = self.folder / "ballast"
        if self.full:
            ballast.unlink()
        else:
            self.times += 1
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(2**16)):
                    pass
        self.full = not self.full


@attrs.define
class _Run:
    """One process of a place: when it began, after how many seconds it is to be killed, what it met."""

    pid: int
    started: float
    life: float
    had_full_disk: bool = False


@attrs.define
class Weather:
    """How often what was done to the runs of a study."""

    killed: int = 0
    altered: int = 0


def storm(
    places: Sequence[Place], longest: float, kills: int, rng: random.Random, *, damage: bool, disk: Disk | None
) -> Weather:
    """Run all of `places` to their end, with at most so many kills.

    Raises:
        RuntimeError: when one ends by itself as it should not.
    """
    done = Weather()
    running: dict[Place, _Run] = {}

    def start(place: Place) -> None:
        # Any moment is as likely as any other; what is done stays done, so the last ones of a study come too.
        running[place] = _Run(place.run(), time.monotonic(), rng.expovariate(LIVES / longest))

    for place in places:
        start(place)
    while running:
        time.sleep(POLL_SECONDS)
        if disk:
            disk.turn()
        for place, run in list(running.items()):
            run.had_full_disk |= disk is not None and disk.full
            age = time.monotonic() - run.started
            code = exit_code(run.pid)
            if code == 0:
                del running[place]
            elif code is not None:
                if not run.had_full_disk:  # which is a reason to end; the same command goes on
                    raise RuntimeError(f"exit code {code}; see {place.log}")
                start(place)
            elif age > run.life and done.killed < kills:
                kill(run.pid)
                done.killed += 1
                if damage and rng.random() < 0.3:
                    done.altered += alter(place.home, rng) is not None
                start(place)
            elif age > PATIENCE:
                kill(run.pid)
                raise RuntimeError(f"not done after {PATIENCE:.0f} s; see {place.log}")
    return done


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--kills", type=int, default=200, help="in all (default 200)")
    made.add_argument("--kills-a-study", type=int, default=40, help="after which it may finish (default 40)")
    made.add_argument("--seed", type=int, default=0, help="of the times and bytes")
    kinds = made.add_mutually_exclusive_group()
    kinds.add_argument("--damage", action="store_true", help="alter bytes of the cache too")
    kinds.add_argument("--together", action="store_true", help="two runs share one cache")
    kinds.add_argument("--full", action="store_true", help="the disk is full for a while, again and again")
    return made


def study(options: argparse.Namespace, number: int, kills: int, rng: random.Random) -> tuple[int, bool]:
    """One study, undisturbed and not; prints how it came out.

    Returns:
        How many kills there were, and whether it came out the same.

    Raises:
        RuntimeError: when a run ends by itself as it should not.
    """
    folder = Path(tempfile.mkdtemp(prefix="storm-"))
    rough = folder / "rough"
    names = [rough / "first", rough / "second"] if options.together else [rough / "first"]
    calm, *places = (Place(each, each.parent / "home", number) for each in (folder / "calm" / "run", *names))
    rough.mkdir()
    disk = Disk(rough, rng) if options.full else None
    if disk:
        disk.mount()
    for place in (calm, *places):
        place.folder.mkdir(parents=True)
        (place.folder / "grid.gin").write_text(GRID)
    began = time.monotonic()
    storm([calm], 1.0, 0, rng, damage=False, disk=None)
    undisturbed = time.monotonic() - began
    done = storm(places, undisturbed, kills, rng, damage=options.damage, disk=disk)
    wanted, wrong = content(calm), set()
    for place in places:
        found = content(place, altered=options.damage)
        wrong |= {name for name in {*wanted, *found} if wanted.get(name) != found.get(name)}
    told = [f"{done.killed} kills"]
    told += [f"{done.altered} bytes altered"] if options.damage else []
    told += [f"the disk full {disk.times} times"] if disk else []
    outcome = f"differs in {', '.join(sorted(wrong))} (see {folder})" if wrong else "the same"
    print(f"study {number}: {undisturbed:.0f} s undisturbed; {', '.join(told)}: {outcome}", flush=True)
    if not wrong:
        if disk:
            disk.unmount()
        shutil.rmtree(folder)
    return done.killed, not wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    rng = random.Random(options.seed)
    total = number = different = 0
    began = time.monotonic()
    while total < options.kills:
        try:
            killed, same = study(options, number, min(options.kills_a_study, options.kills - total), rng)
        except subprocess.CalledProcessError as error:
            print(f"no small disk can be made here: {error.stderr.decode().strip()}; root may, on Linux")
            return 2
        except RuntimeError as error:
            print(f"study {number}: {error}")
            return 1
        total, number, different = total + max(killed, 1), number + 1, different + (not same)
    print(f"{total} kills in {number} studies, {time.monotonic() - began:.0f} s: {different} came out otherwise")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
