"""Steps per second of training, acting, saving and evaluation here, beside matrix products and the public code.

    python -m tools.benchmark --task humanoid-stand dog-trot --preset paper

Every figure stands beside the fp32 speed of a matrix product measured right before and after it, and beside the share
of its threads' time that the process really got: on a machine that others use too, steps per second alone say little.
"""

from __future__ import annotations

import argparse
import json
import statistics
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
from harness.planning.timed_steps import finish, pretraining_step, random_batch, untrained_policy
from spinrl import checkpoint
from spinrl.algorithms import Algorithm
from spinrl.asm import Pretraining
from spinrl.config import load
from spinrl.evaluation import episode_seeds, evaluate
from spinrl.machine import Machine, ResolvedMachine
from spinrl.policies import SPIN, Policy, PolicyConfig, gumbel_noise
from spinrl.specs import OBSERVATION, POLICY_INPUT, ActionSpec
from spinrl.tasks import EPISODE_STEPS, ParallelEnvironment, Task, get_task

PUBLIC_GFLOPS = 300.0  # fp32 matrix products of the machine that the public code's figures come from
# Steps per second of the public code: IQL updates of each policy (batch 256), ASM updates (batch 1024), acting with
# SPIN on one observation, and control steps a second of ten evaluation episodes.
PUBLIC = {
    "cheetah-run": {"Factored": 118, "Autoregressive": 12.8, "SAINT": 6.5, "SPIN": 8.4, "ASM": 1.38},
    "humanoid-stand": {
        **{"Factored": 69, "Autoregressive": 4.5, "SAINT": 2.0, "SPIN": 2.6, "ASM": 0.42},
        **{"act SPIN": 198, "evaluate SPIN": 10 * EPISODE_STEPS / 55},
    },
    "dog-trot": {
        **{"Factored": 50, "Autoregressive": 0.63, "SAINT": 0.30, "SPIN": 1.12, "ASM": 0.15},
        **{"act SPIN": 120},
    },
}
EPISODES = 10
CACHED = "SPIN cached"  # heads alone, on slot embeddings that were computed before; compared with the public SPIN


@attrs.frozen
class Row:
    """One measured figure.

    Attributes:
        task: the task's name.
        what: a policy's update, "ASM", "act" or "evaluate" with a policy.
        per_second: steps of it a second.
        share: of its threads' time that the process got.
        gflops: fp32 matrix products right before and after it.
        public: the public code's steps a second, if known.
    """

    task: str
    what: str
    per_second: float
    share: float
    gflops: float
    public: float | None

    @property
    def ratio(self) -> float | None:
        """Times the public code's speed."""
        return None if self.public is None else self.per_second / self.public

    @property
    def ratio_per_matmul(self) -> float | None:
        """The same, had both machines the same fp32 matrix products."""
        return None if self.ratio is None else self.ratio * PUBLIC_GFLOPS / self.gflops


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
    """What is measured on one task, at the sizes of a configuration."""

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
        if isinstance(spin := policies.get("SPIN"), SPIN):
            fixed: dict[str, Any] = {
                "slot_queries": "mask_tokens",
                "query_share": 0.0,
                "frozen_dropout": False,
                "cached": True,
            }
            policies[CACHED] = attrs.evolve(spin, **fixed)
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
        size = self.task.observation_size
        algorithm = self.trainer(config)
        batch = random_batch(self.experiment.training.batch_size, size, self.spec).to(self.machine.device)
        if frozen := algorithm.policy.frozen_input():
            batch[POLICY_INPUT] = frozen.encode(batch[OBSERVATION]).detach().bfloat16()

        def step() -> None:
            algorithm.update(batch)
            finish(self.machine)

        return step

    def saving(self, config: PolicyConfig, folder: Path) -> Callable[[], object]:
        """A checkpoint of a training under way, on disk when it returns."""
        algorithm = self.trainer(config)
        algorithm.update(random_batch(2, self.task.observation_size, self.spec).to(self.machine.device))

        def save() -> None:  # the optimisers have their state by now, which is twice what they optimise
            checkpoint.save_latest({"algorithm": algorithm.state_dict()}, folder / "checkpoint.pt")

        return save

    def pretraining(self) -> Callable[[], object]:
        """One step of ASM pre-training."""
        config = self.experiment.pretraining
        assert isinstance(config, Pretraining)
        return pretraining_step(config, self.task.observation_size, self.spec, self.machine)

    def act(self, config: PolicyConfig) -> Callable[[], object]:
        """Sampling one action for one observation, as a robot would."""
        policy = self.policy(config).eval()
        observation = torch.randn(1, self.task.observation_size, device=self.machine.device)
        noise = gumbel_noise((1, self.spec.num_sub_actions, self.spec.max_choices), device=self.machine.device)

        def step() -> None:
            with torch.inference_mode():
                policy.sample(observation, noise).cpu()

        return step

    def evaluation(self, config: PolicyConfig, steps: int) -> tuple[float, float]:
        """Control steps a second of ten whole episodes, simulator included, and the share of time it got."""
        policy = self.policy(config)
        environment = ParallelEnvironment(self.task, self.experiment.bins[0], EPISODES, self.machine.threads)
        try:
            evaluate(policy, environment, episode_seeds(0, EPISODES), steps=2)
            began, busy = time.perf_counter(), time.process_time()
            evaluate(policy, environment, episode_seeds(0, EPISODES), steps=steps)
            passed = time.perf_counter() - began
        finally:
            environment.close()
        return EPISODES * steps / passed, (time.process_time() - busy) / passed / self.machine.threads

    def rows(self, evaluation_steps: int) -> Iterator[Row]:
        """Measure everything, one figure after the other."""
        measures: dict[str, Callable[[], tuple[float, float]]] = {}
        for name, config in self.policies.items():
            measures[name] = partial(self._rate, self.update, config)
        measures["ASM"] = partial(self._rate, self.pretraining)
        for name, config in self.policies.items():
            if name == CACHED:
                continue  # it acts as SPIN does
            measures[f"save {name}"] = partial(self._saving_rate, config)
            measures[f"act {name}"] = partial(self._rate, self.act, config)
            if evaluation_steps:
                measures[f"evaluate {name}"] = partial(self.evaluation, config, evaluation_steps)
        before = matmul_gflops(torch.float32, self.machine)
        for what, measure in measures.items():
            per_second, share = measure()
            after = matmul_gflops(torch.float32, self.machine)
            # The public figures are of the paper's sizes.
            names = PUBLIC.get(self.task.name, {}) if self.experiment.preset == "paper" else {}
            public = names.get(what.replace(CACHED, "SPIN"))
            yield Row(self.task.name, what, per_second, share, (before + after) / 2, public)
            before = after

    def _saving_rate(self, config: PolicyConfig) -> tuple[float, float]:
        with tempfile.TemporaryDirectory(dir=Path()) as folder:  # not in memory, as /tmp may be
            return rate(self.saving(config, Path(folder)), self.seconds, self.machine.threads)

    def _rate(self, make: Callable[..., Callable[[], object]], *configs: PolicyConfig) -> tuple[float, float]:
        return rate(make(*configs), self.seconds, self.machine.threads)


def line(row: Row) -> str:
    """A row of the printed table."""
    figures = (row.public, row.ratio, row.ratio_per_matmul)
    public, ratio, scaled = ("-" if value is None else f"{value:.2f}" for value in figures)
    return f"{row.task:15} {row.what:24} {row.per_second:9.2f} {public:>9} {ratio:>9} {scaled:>10} {row.share:9.0%}"


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog=typed("tools.benchmark"), description=__doc__.partition("\n")[0])
    parser.add_argument("--task", nargs="+", default=["humanoid-stand", "dog-trot"], help="tasks to measure on")
    parser.add_argument("--policies", nargs="+", help="class names of the policies; all by default")
    parser.add_argument("--preset", default="paper", choices=["paper", "laptop"], help="sizes to measure at")
    parser.add_argument("--set", dest="bindings", action="append", default=[], help="a binding, as for harness.run")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 for torch's choice")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="compile the update")
    parser.add_argument("--seconds", type=float, default=10.0, help="to measure each figure for")
    parser.add_argument("--evaluation-steps", type=int, default=0, help="control steps of evaluation; 0 leaves it out")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args(arguments)

    root = config_root() / "gin"
    files = [root / "spin_humanoid.gin", root / "policies" / "all.gin", root / "scale" / f"{options.preset}.gin"]
    experiment = load(Experiment, files, options.bindings).value
    machine = Machine(
        threads=options.threads, precision=options.precision, compile=True if options.compile else None
    ).resolve()
    machine.apply()
    speeds = {str(dtype)[6:]: matmul_gflops(dtype, machine) for dtype in (torch.float32, torch.bfloat16)}
    print(machine)
    print("matrix products, GFLOP/s: " + ", ".join(f"{name} {gflops:.0f}" for name, gflops in speeds.items()))
    print(f"{'task':15} {'what':24} {'steps/s':>9} {'public':>9} {'ratio':>9} {'per matmul':>10} {'CPU share':>9}")
    rows = []
    for task in options.task:
        benchmark = Benchmark(get_task(task), experiment, machine, options.seconds, options.policies)
        for row in benchmark.rows(options.evaluation_steps):
            print(line(row), flush=True)
            rows.append(attrs.asdict(row) | {"ratio": row.ratio, "ratio_per_matmul": row.ratio_per_matmul})
    if options.json:
        report = {"machine": attrs.asdict(machine), "preset": options.preset, "matmul_gflops": speeds, "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
