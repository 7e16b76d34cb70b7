"""Steps per second of training, acting, saving and evaluation on this machine, and ratios between them.

Examples:
  python -m tools.benchmark --task humanoid-stand --policies Factored SPIN "SPIN cached"
  python -m tools.benchmark --preset laptop --threads 1 2
  python -m tools.benchmark --precision fp32 bf16 --compile off on --json speed.json

Every ratio is between two figures of this one run: a policy and the factored policy, cached and uncached SPIN, and two
settings that differ in one of threads, precision, compilation and capture. Each figure stands beside the share of its
threads' time that the process got: below about 90% other programs were at work, and the figure says little.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch

from harness.command_line import config_root
from harness.commands import typed
from harness.entry_point import entry_point
from harness.experiment import Experiment
from harness.planning.timed_steps import finish, finished, pretraining_step, random_batch, untrained_policy, update_step
from spinrl import checkpoint
from spinrl.algorithms import Algorithm
from spinrl.asm import Pretraining
from spinrl.captured import Captured
from spinrl.config import load
from spinrl.errors import UserError
from spinrl.evaluation import episode_seeds, evaluate
from spinrl.machine import Machine, ResolvedMachine
from spinrl.policies import SPIN, Policy, PolicyConfig, gumbel_noise
from spinrl.specs import ActionSpec
from spinrl.tasks import TASKS, ParallelEnvironment, Task, get_task

EPISODES = 10
FACTORED, UNCACHED, CACHED = "Factored", "SPIN", "SPIN cached"  # SPIN cached: heads alone, on stored slot embeddings
CAPTURE = {"auto": None, "off": False, "on": True}
SETTINGS = ("threads", "precision", "compile", "capture")


@attrs.frozen(kw_only=True)
class Row:
    """One measured figure: steps a second of `what` (update, act, save or evaluate) with one setting of the machine.

    Attributes:
        of: the policy's class name, "SPIN cached", or "ASM".
        share: share of its threads' time that the process got, 0 to 1.
    """

    task: str
    what: str
    of: str
    threads: int
    precision: str
    compile: bool
    capture: bool
    per_second: float
    share: float


@attrs.frozen(kw_only=True)
class Ratio:
    """Ratio of speeds in one run: `this` is `times` as fast as `than` at `what`; both name the setting that differs."""

    task: str
    what: str
    this: str
    than: str
    times: float


def ratios(rows: Sequence[Row]) -> list[Ratio]:
    """Every ratio that the rows allow.

    With one setting: each policy against the factored policy, and cached against uncached SPIN. Of one policy: two
    settings that differ in exactly one respect, the later measurement against the earlier.
    """
    found = []
    for old, new in itertools.permutations(rows, 2):
        if (old.task, old.what) != (new.task, new.what):
            continue
        differ = [name for name in SETTINGS if getattr(old, name) != getattr(new, name)]
        if not differ and ((old.of == FACTORED and new.of != "ASM") or (old.of, new.of) == (UNCACHED, CACHED)):
            this, than = new.of, old.of
        elif old.of == new.of and len(differ) == 1 and rows.index(old) < rows.index(new):
            this, than = (f"{row.of}, {differ[0]} {getattr(row, differ[0])}" for row in (new, old))
        else:
            continue
        times = new.per_second / old.per_second
        found.append(Ratio(task=new.task, what=new.what, this=this, than=than, times=times))
    return found


def rate(step: Callable[[], object], seconds: float, threads: int) -> tuple[float, float]:
    """Calls a second, the median of five windows, and the share of its threads' time that the process got."""
    step()
    step()
    rates, wall, busy = [], 0.0, 0.0
    for _ in range(5):
        began, began_busy, calls = time.perf_counter(), time.process_time(), 0
        while calls == 0 or time.perf_counter() - began < seconds / 5:
            step()
            calls += 1
        passed = time.perf_counter() - began
        rates.append(calls / passed)
        wall, busy = wall + passed, busy + time.process_time() - began_busy
    return statistics.median(rates), min(1.0, busy / wall / threads)


def matmul_gflops(dtype: torch.dtype, machine: ResolvedMachine, size: int = 1024) -> float:
    """GFLOP/s of a square matrix product."""
    a, b = (torch.randn(size, size, device=machine.device).to(dtype) for _ in range(2))

    def product() -> None:
        a @ b
        finish(machine)

    return rate(product, 0.5, machine.threads)[0] * 2 * size**3 / 1e9


class Benchmark:
    """The measurements on one task, at the sizes of a configuration and with one setting of the machine."""

    def __init__(
        self, task: Task, experiment: Experiment, machine: ResolvedMachine, seconds: float, only: Sequence[str] | None
    ) -> None:
        self.task = task
        self.experiment = experiment
        self.machine = machine
        self.seconds = seconds
        cells = experiment.cells()
        self.algorithm = cells[0].algorithm
        policies = {type(cell.policy).__name__: cell.policy for cell in cells}
        if isinstance(spin := policies.get(UNCACHED), SPIN):
            policies[UNCACHED] = attrs.evolve(spin, cached=False)
            policies[CACHED] = attrs.evolve(
                spin, slot_queries="mask_tokens", query_share=0.0, frozen_dropout=False, cached=True
            )
        self.policies = {name: policy for name, policy in policies.items() if name in (only or policies)}
        self.spec: ActionSpec = task.action_spec(experiment.bins[0])

    def policy(self, config: PolicyConfig) -> Policy:
        """The policy without training, on the machine's device."""
        encoder, size = self.experiment.pretraining.encoder, self.task.observation_size
        return untrained_policy(config, encoder, size, self.spec).to(self.machine.device)

    def trainer(self, config: PolicyConfig) -> Algorithm:
        """The first algorithm with the policy."""
        size = self.task.observation_size
        return self.algorithm.build(self.policy(config), size, self.spec, seed=0, machine=self.machine).train()

    def update(self, config: PolicyConfig) -> Callable[[], object]:
        """One gradient step."""
        batch_size, size = self.experiment.training.batch_size, self.task.observation_size
        return finished(update_step(self.trainer(config), batch_size, size, self.spec), self.machine)

    def pretraining(self) -> Callable[[], object]:
        """One step of ASM pre-training."""
        config = self.experiment.pretraining
        assert isinstance(config, Pretraining)
        return finished(pretraining_step(config, self.task.observation_size, self.spec, self.machine), self.machine)

    def act(self, config: PolicyConfig) -> Callable[[], object]:
        """Sampling one action for one observation, as a robot would."""
        policy = self.policy(config).eval()
        observation = torch.randn(1, self.task.observation_size, device=self.machine.device)
        noise = gumbel_noise((1, self.spec.num_sub_actions, self.spec.max_choices), device=self.machine.device)
        sample = Captured(policy.sample, on=self.machine.capture)

        def step() -> None:
            with torch.inference_mode():
                sample(observation, noise).cpu()

        return step

    def saving(self, config: PolicyConfig, folder: Path) -> Callable[[], object]:
        """Writing a checkpoint of a training; it is on disk when the call returns."""
        algorithm = self.trainer(config)
        # One update, since the optimizers' state is twice as large as what they optimize.
        algorithm.update(random_batch(2, self.task.observation_size, self.spec).to(self.machine.device))

        def save() -> None:
            checkpoint.save_latest({"algorithm": algorithm.state_dict()}, folder / "checkpoint.pt")

        return save

    def evaluation(self, config: PolicyConfig, steps: int) -> tuple[float, float]:
        """Control steps a second of ten whole episodes, simulator included, and the share of time as in `rate`."""
        policy = self.policy(config)
        environment = ParallelEnvironment(self.task, self.experiment.bins[0], EPISODES, self.machine.threads)
        try:
            acting = partial(evaluate, policy, environment, episode_seeds(0, EPISODES), capture=self.machine.capture)
            acting(steps=2)
            began, busy = time.perf_counter(), time.process_time()
            acting(steps=steps)
            passed = time.perf_counter() - began
        finally:
            environment.close()
        return EPISODES * steps / passed, (time.process_time() - busy) / passed / self.machine.threads

    def rows(self, evaluation_steps: int) -> Iterator[Row]:
        """Measure everything, one figure after the other."""
        for name, config in self.policies.items():
            yield self._row("update", name, self.update(config))
        yield self._row("update", "ASM", self.pretraining())
        for name, config in self.policies.items():
            if name == CACHED:
                continue  # it acts as SPIN does
            with tempfile.TemporaryDirectory(dir=Path()) as folder:  # on a disk; /tmp may be in memory
                yield self._row("save", name, self.saving(config, Path(folder)))
            yield self._row("act", name, self.act(config))
            if evaluation_steps:
                yield self._row("evaluate", name, partial(self.evaluation, config, evaluation_steps))

    def _row(self, what: str, of: str, step: Callable[[], Any]) -> Row:
        measured = step() if what == "evaluate" else rate(step, self.seconds, self.machine.threads)
        setting = {name: getattr(self.machine, name) for name in SETTINGS}
        return Row(task=self.task.name, what=what, of=of, per_second=measured[0], share=measured[1], **setting)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.benchmark"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--task", nargs="+", default=["humanoid-stand"], choices=TASKS, metavar="TASK", help="tasks to measure on"
    )
    made.add_argument("--policies", nargs="+", help='class names, or "SPIN cached"; all by default')
    made.add_argument("--preset", default="paper", choices=["paper", "laptop"], help="sizes to measure at")
    made.add_argument("--set", dest="bindings", action="append", default=[], help="binding, as for harness.run")
    made.add_argument("--threads", type=int, nargs="+", default=[0], help="CPU threads; 0 for torch's choice")
    made.add_argument("--precision", nargs="+", default=["auto"], choices=["auto", "fp32", "bf16"])
    made.add_argument("--compile", nargs="+", default=["off"], choices=["off", "on"], help="compile the update")
    made.add_argument("--capture", nargs="+", default=["auto"], choices=CAPTURE, help="record steps on a GPU")
    made.add_argument("--seconds", type=float, default=10.0, help="seconds for each figure")
    made.add_argument("--evaluation-steps", type=int, default=0, help="control steps of evaluation; 0 leaves it out")
    made.add_argument("--json", type=Path, help="file to write the figures and ratios to")
    return made


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    root = config_root() / "gin"
    files = [root / "spin_humanoid.gin", root / "policies" / "all.gin", root / "scale" / f"{options.preset}.gin"]
    compiled, captured = [each == "on" for each in options.compile], [CAPTURE[each] for each in options.capture]
    grid = itertools.product(options.threads, options.precision, compiled, captured)
    try:
        experiment = load(Experiment, files, options.bindings).value
        machines = [Machine(threads=t, precision=p, compile=c, capture=g).resolve() for t, p, c, g in grid]
    except (UserError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    rows: list[Row] = []
    products = []
    for machine in dict.fromkeys(machines):
        machine.apply()
        torch.compiler.reset()
        products.append({str(dtype)[6:]: matmul_gflops(dtype, machine) for dtype in (torch.float32, torch.bfloat16)})
        print(machine)
        print("matrix products, GFLOP/s: " + ", ".join(f"{name} {speed:.0f}" for name, speed in products[-1].items()))
        print(f"{'task':15} {'what':9} {'of':15} {'steps/s':>9} {'CPU share':>9}")
        for task in options.task:
            benchmark = Benchmark(get_task(task), experiment, machine, options.seconds, options.policies)
            for row in benchmark.rows(options.evaluation_steps):
                print(f"{row.task:15} {row.what:9} {row.of:15} {row.per_second:9.2f} {row.share:9.0%}", flush=True)
                rows.append(row)
    compared = ratios(rows)
    for ratio in compared:
        print(f"{ratio.task}, {ratio.what}: {ratio.this} is {ratio.times:.2f} times as fast as {ratio.than}")
    if options.json:
        report = {
            "machines": [attrs.asdict(machine) for machine in dict.fromkeys(machines)],
            "preset": options.preset,
            "matmul_gflops": products,
            "rows": [attrs.asdict(row) for row in rows],
            "ratios": [attrs.asdict(ratio) for ratio in compared],
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
