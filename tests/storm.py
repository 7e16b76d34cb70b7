"""A storm: a small grid is killed at random points, again and again, and has to come out as if nothing had been.

    python -m tests.storm --kills 200
    python -m tests.storm --kills 30 --damage --seed 1

Every study is a grid of real cells (collection, ASM pre-training, features, training, evaluation, report). It is run
to its end once undisturbed, and once with `kill -9` at random times, each time started again by the same command, until
it finishes. Then returns, checksums of every store, and what MLflow holds (runs, their states, every step of every
metric) must be the same. With --damage a random byte of the cache is altered after some of the kills. Studies follow
one another, each with a seed and a cache of its own, until there were so many kills. Exit code: 0 when all studies came
out the same, 1 when one did not.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from harness import run as command
from harness.mlflow_store import MlflowClient
from harness.records import read_csv
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
Training.gradient_steps = 300
Training.batch_size = 32
Training.checkpoint_minutes = 0.005
Evaluating.fractions = [0.01, 0.5, 1.0]
Evaluating.episodes = 2
Evaluating.episode_steps = 40
Machine.threads = 1
"""
ONCE_A_SESSION = ("time/total_seconds", "time/logging_seconds")
PATIENCE = 600.0  # seconds for one invocation


@attrs.frozen
class Place:
    """Where one study lives: its cache, its working directory."""

    folder: Path
    seed: int

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    def run(self) -> int:
        """The process of one invocation, forked from this one: what is imported need not be again."""
        pid = os.fork()
        if pid:
            return pid
        try:
            os.setsid()  # to be killed with all that it starts
            os.chdir(self.folder)
            log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ["SPINRL_HOME"] = str(self.home)
            os.environ["MLFLOW_TRACKING_URI"] = self.uri
            Path("grid.gin").write_text(GRID)
            arguments = ["--gin", "gin/spin_humanoid.gin", "--gin", "gin/policies/all.gin", "--gin", "grid.gin"]
            code = command.main([*arguments, "--set", f"Experiment.seeds=[{self.seed}]", "--jobs", "1"])
        except BaseException as error:
            print(f"storm: {error!r}", file=sys.stderr)
            code = 70
        os._exit(code)


def ended(pid: int, seconds: float) -> int | None:
    """The exit code of a process if it ends within so many seconds, else None."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.02)


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


def content(place: Place) -> dict[str, Any]:
    """Everything that must not depend on how often a study was interrupted."""
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
        store.verify()
        held[f"store {folder.name}"] = store.fingerprint
    held["left over"] = sorted(str(path.relative_to(place.home)) for path in (place.home / "cells").rglob("*.pt"))
    return held


def weather(place: Place, longest: float, kills: int, rng: random.Random, damage: bool) -> tuple[int, int]:
    """Run a study to its end, with at most so many kills; returns how many kills and alterations there were."""
    killed = altered = 0
    while True:
        pid = place.run()
        # Mostly soon, or few kills would do: what is done stays done, so late ones come too.
        code = ended(pid, rng.uniform(0.0, longest * rng.random()) if killed < kills else PATIENCE)
        if code is not None:
            if code:
                raise RuntimeError(f"exit code {code}; see {place.folder}/log.txt")
            return killed, altered
        kill(pid)
        killed += 1
        if damage and rng.random() < 0.3:
            altered += alter(place.home, rng) is not None


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--kills", type=int, default=200, help="in all (default 200)")
    made.add_argument("--kills-a-study", type=int, default=40, help="after which it may finish (default 40)")
    made.add_argument("--seed", type=int, default=0, help="of the times and bytes")
    made.add_argument("--damage", action="store_true", help="alter bytes of the cache too")
    options = made.parse_args(arguments)
    rng = random.Random(options.seed)
    total = study = different = 0
    began = time.monotonic()
    while total < options.kills:
        folder = Path(tempfile.mkdtemp(prefix="storm-"))
        calm, rough = (Place(folder / name, study) for name in ("calm", "rough"))
        for place in (calm, rough):
            place.folder.mkdir()
        started = time.monotonic()
        if (code := ended(calm.run(), PATIENCE)) != 0:
            print(f"the undisturbed run ended with {code}; see {calm.folder}/log.txt")
            return 1
        undisturbed = time.monotonic() - started
        kills = min(options.kills_a_study, options.kills - total)
        try:
            killed, altered = weather(rough, undisturbed, kills, rng, options.damage)
        except RuntimeError as error:
            print(f"study {study}: {error}")
            return 1
        wanted, found = content(calm), content(rough)
        wrong = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        total, study, different = total + max(killed, 1), study + 1, different + bool(wrong)
        print(
            f"study {study}: {undisturbed:.0f} s undisturbed; {killed} kills, {altered} bytes altered: "
            + (f"differs in {', '.join(wrong)} (see {folder})" if wrong else "the same"),
            flush=True,
        )
        if not wrong:
            shutil.rmtree(folder)
    print(f"{total} kills in {study} studies, {time.monotonic() - began:.0f} s: {different} came out otherwise")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
