"""What captured steps do on a GPU: its tests, eager against captured, one seed against five, and real trainings.

    python -m tools.gpu_check --out gpu
    python -m tools.gpu_check --out gpu --minutes 4 --seeds 8
    python -m tools.gpu_check --out small --small

It takes --minutes in all, eight unless told otherwise, and writes to the folder:

    table.md      every figure, beside the aim
    speeds.json   the same figures, for results/speed and tools.paper_cost
    tests.txt     what pytest said of the tests that need a GPU
    returns.csv   every evaluation episode of the trainings
    curves.csv    every loss that they reported

The trainings are cached SPIN, the factored policy and SAINT with the paper's networks on humanoid medium-expert, all
seeds at once in one process, for as many gradient steps as the time allows. Their dataset is collected here first, and
has 100,000 transitions of each behaviour in place of a million.

It needs one GPU, 16 cores, 16 GiB of disk in SPINRL_HOME, and no network. Of software it needs the repository as the
working directory, Python from 3.11, torch from 2.11 for CUDA, and attrs, dm-control, filelock, gin-config, hypothesis,
mujoco, numpy, platformdirs, psutil, pytest, safetensors, scipy, tensordict, torchrl and tqdm in the versions of
pyproject.toml. That asks for a newer torch; `pip install --no-deps` leaves a machine's own alone. mlflow, pandas,
gymnasium and the extras are not needed. What is missing is said in one line before anything runs.

With --small it runs on a CPU in seconds, at sizes that say nothing, without the tests.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import attrs
import torch

from harness.cells.run_cell import prepare_dataset
from harness.command_line import at_least_one, config_root
from harness.commands import typed
from harness.entry_point import entry_point
from harness.experiment import Experiment
from harness.planning.timed_steps import pretraining_step, seconds_of, update_step
from spinrl.asm import Pretraining
from spinrl.captured import Captured
from spinrl.config import load
from spinrl.errors import UserError
from spinrl.machine import Machine
from spinrl.policies import PolicyConfig
from spinrl.tasks import get_task
from tools.benchmark import CACHED, Benchmark, rate
from tools.gpu_table import Beside, Figure, Study, markdown
from tools.gpu_trainings import Kept, train

NEEDED = ("dm_control", "mujoco", "pytest", "hypothesis")  # the rest is imported above
TRAINED = {CACHED: "spin_cached", "Factored": "factored", "SAINT": "saint"}  # gin files by the names of the figures
START = 50.0  # seconds of a training beside its steps: imports, CUDA, captures, evaluations
EMBEDDING = 20.0  # and of cached SPIN's, for the slot embeddings
RESERVE = 15.0  # seconds for stopping what is not done
TEST_SHARE, PRETRAINING_SHARE = 0.35, 0.4  # of all the time, at most; of a training's time
SMALL = (
    "Experiment.tasks=['finger-spin']",
    "ASMEncoder.d_model=16",
    "ASMEncoder.num_blocks=1",
    "IQL.hidden=[16]",
    "ASMEncoder.state_width=16",
    "Training.batch_size=16",
    "Pretraining.batch_size=16",
)


class GPUError(UserError):
    """The machine lacks something; the message says what."""


class Check:
    """One run of the script.

    Args:
        out: folder for what is found.
        minutes: that it may take in all.
        seeds: at once.
        small: on a CPU, at sizes that say nothing.
    """

    def __init__(self, out: Path, minutes: float, seeds: int, *, small: bool) -> None:
        self.out = out
        self.until = time.monotonic() + 60 * minutes - RESERVE
        self.minutes = minutes
        self.seeds = seeds
        self.small = small
        self.device: Literal["cpu", "cuda"] = "cpu" if small else "cuda"
        self.figures: list[Figure] = []
        self.beside: list[Beside] = []
        self.studies: list[Study] = []
        self.kept = Kept()

    def run(self) -> None:
        """All parts, one after the other; what is there is written after each."""
        if not self.small:
            self._tests()
        for preset in ("paper",) if self.small else ("laptop", "paper"):
            self._speeds(preset)
            self._write()
        self._beside()
        self._write()
        first = self._trained("Factored")
        prepare_dataset(first, first.cells()[0], lambda event: None)
        if not self.small:
            torch.cuda.empty_cache()  # the memory is for the trainings' process
        for number, name in enumerate(TRAINED):
            self._train(name, (self.until - time.monotonic()) / (len(TRAINED) - number))
            self._write()

    def _experiment(self, preset: str, policies: str = "policies/all.gin", bindings: Sequence[str] = ()) -> Experiment:
        files = ["spin_humanoid.gin", policies, f"scale/{preset}.gin"]
        given = [
            "Experiment.tiers=['medium-expert']",
            f"Experiment.seeds={list(range(self.seeds))}",
            "medium/Tier.transitions=100_000",
            "expert/Tier.transitions=100_000",
            "medium_expert/Tier.transitions=200_000",
            "Machine.compile=False",
            *(SMALL if self.small else ()),
            *bindings,
        ]
        if self.small:
            given.append("Machine.device='cpu'")
        return load(Experiment, [config_root() / "gin" / file for file in files], given).value

    def _tests(self) -> None:
        files = [str(path) for path in Path("tests").rglob("test_*.py") if _on_gpu(path.read_text(encoding="utf-8"))]
        words = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-m", "gpu", *files]
        try:
            done = subprocess.run(words, capture_output=True, timeout=60 * TEST_SHARE * self.minutes)
            said = (done.stdout + done.stderr).decode()
        except subprocess.TimeoutExpired as error:
            said = f"{(error.stdout or b'').decode()}\nnot all were run: the time was over\n"
        (self.out / "tests.txt").write_text(said, encoding="utf-8")
        print(*said.strip().splitlines()[-1:])

    def _speeds(self, preset: str) -> None:
        """Eager against captured, at the sizes of a preset."""
        experiment = self._experiment(preset)
        task = get_task(experiment.tasks[0])
        settings = (None,) if self.small else (False, True)
        machines = [Machine(device=self.device, compile=False, capture=capture).resolve() for capture in settings]
        found: dict[tuple[str, str], list[float]] = {}
        for machine in machines:
            benchmark = Benchmark(task, experiment, machine, 0.01 if self.small else 1.0, None)
            steps = {("update", name): benchmark.update(config) for name, config in benchmark.policies.items()}
            steps["update", "ASM"] = benchmark.pretraining()
            acting = {name: config for name, config in benchmark.policies.items() if name != CACHED}
            steps |= {("act", name): benchmark.act(config) for name, config in acting.items()}
            for work, step in steps.items():
                found.setdefault(work, []).append(rate(step, benchmark.seconds, machine.threads)[0])
        for (what, of), speeds in found.items():
            captured = speeds[1] if len(speeds) > 1 else None
            self.figures.append(Figure(preset=preset, what=what, of=of, eager=speeds[0], captured=captured))

    def _beside(self) -> None:
        """One seed against all at once, with the paper's networks and in its precision."""
        experiment = self._experiment("paper")
        machine = experiment.machine.resolve()
        task, config = get_task(experiment.tasks[0]), experiment.pretraining
        benchmark = Benchmark(task, experiment, machine, 0.0, None)
        batch = experiment.training.batch_size
        assert isinstance(config, Pretraining)
        makers: dict[str, Callable[[], Captured]] = {
            name: partial(_update_of, benchmark, policy, batch) for name, policy in benchmark.policies.items()
        }
        makers["ASM"] = partial(pretraining_step, config, task.observation_size, benchmark.spec, machine)
        for of, make in makers.items():
            one, all_of_them = ([make() for _ in range(count)] for count in (1, self.seeds))
            took = [seconds_of(steps, machine) for steps in (one, all_of_them)]
            self.beside.append(Beside(of=of, seeds=self.seeds, one=took[0], together=took[1]))

    def _train(self, name: str, seconds: float) -> None:
        """Train all seeds of a policy at once, for so long."""
        a_step = {each.of: each.together for each in self.beside}
        left = max(0.0, seconds - START - (EMBEDDING if name == CACHED else 0.0))
        bindings = ["Evaluating.every_steps=None", "Evaluating.fractions=[0.1, 0.25, 0.5, 1.0]"]
        if name == CACHED:
            steps = max(20, int(PRETRAINING_SHARE * left / a_step["ASM"]))
            bindings += ["Pretraining.epochs=None", f"Pretraining.steps={min(steps, 200_000)}"]
            left *= 1 - PRETRAINING_SHARE
        bindings.append(f"Training.gradient_steps={min(max(20, int(left / a_step[name])), 1_000_000)}")
        experiment = self._trained(name, bindings)
        self.studies.append(train(name, experiment, seconds, self.kept, at_once=not self.small))

    def _trained(self, name: str, bindings: Sequence[str] = ()) -> Experiment:
        experiment = self._experiment("paper", f"policies/{TRAINED[name]}.gin", bindings)
        return experiment.smoke() if self.small else experiment

    def _write(self) -> None:
        machine = Machine(device=self.device).resolve()
        told = f"{machine.processor}, torch {torch.__version__}; first table in {machine.precision}, the rest in fp32"
        table = markdown(told, self.figures, self.beside, self.studies)
        (self.out / "table.md").write_text(table, encoding="utf-8")
        parts: dict[str, Sequence[attrs.AttrsInstance]]
        parts = {"figures": self.figures, "beside": self.beside, "studies": self.studies}
        report = {"machine": told} | {name: [attrs.asdict(each) for each in part] for name, part in parts.items()}
        (self.out / "speeds.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        with (self.out / "curves.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("cell", "step", "name", "value"), *self.kept.curves])
        with (self.out / "returns.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [("cell", "gradient_step", "seconds", "episode", "return"), *self.kept.episodes()]
            )


def _on_gpu(tests: str) -> bool:
    """Whether a file of tests has some that need a GPU: marked, or with the fixture that is one."""
    return "mark.gpu" in tests or re.search(r"def test_\w+\([^)]*\bdevice\b", tests) is not None


def _update_of(benchmark: Benchmark, policy: PolicyConfig, batch: int) -> Captured:
    return update_step(benchmark.trainer(policy), batch, benchmark.task.observation_size, benchmark.spec)


def require_all(*, small: bool) -> None:
    """Check that the machine has what the script needs.

    Raises:
        GPUError: naming what it lacks.
    """
    wanted = NEEDED[:2] if small else NEEDED
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        raise GPUError(f"these packages are missing: {', '.join(missing)} (--help lists all that it needs)")
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < (2, 11):
        raise GPUError(f"torch {torch.__version__} is too old: captured steps need 2.11 or later")
    if not small and not torch.cuda.is_available():
        raise GPUError("torch finds no CUDA device; --small runs on a CPU")
    if not small and not Path("tests/test_captured.py").exists():
        raise GPUError("there is no tests/test_captured.py here; start it in the repository")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.gpu_check"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=Path, required=True, help="folder to write to")
    made.add_argument("--minutes", type=float, default=8.0, help="time for all of it (default 8)")
    made.add_argument("--seeds", type=at_least_one, default=5, help="seeds at once (default 5)")
    made.add_argument("--small", action="store_true", help="on a CPU, at sizes that take seconds and say nothing")
    return made


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    require_all(small=options.small)
    options.out.mkdir(parents=True, exist_ok=True)
    Check(options.out, options.minutes, options.seeds, small=options.small).run()
    print((options.out / "table.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
