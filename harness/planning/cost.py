"""Expected time, memory and disk of a grid, from a few seconds of timing on this machine."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import attrs
import numpy as np
import torch

from harness.cells.environments import build_environment
from harness.experiment import Cell, Experiment
from harness.planning.preflight import (
    cached_asm,
    disk_needed,
    features_needed,
    missing_features,
    take_missing,
)
from harness.planning.timed_steps import pretraining_step, random_batch, untrained_policy
from spinrl.asm import Pretraining
from spinrl.config import fingerprint, to_plain
from spinrl.data import DatasetPlan, Rollout
from spinrl.events import STARTS
from spinrl.machine import ResolvedMachine
from spinrl.specs import OBSERVATION, POLICY_INPUT
from spinrl.tasks import random_actions

BASE_MEMORY = 900e6  # Python with torch, dm_control and MLflow
FEATURE_BATCH = 512  # rows of the batch with which encoding is timed
CELL_DISK = 40e6  # final checkpoint, returns and figures of a cell


@attrs.frozen
class StageCost:
    """Expected seconds of one stage of one cell; 0 where the cache already holds the result."""

    cell: str
    stage: str
    seconds: float


@attrs.frozen
class Cost:
    """Expected cost of a grid.

    Attributes:
        stages: stages of all cells, in the order in which they run.
        memory_bytes: peak memory of one cell.
        disk_bytes: size of new data in the cache and the tracking store.
    """

    stages: tuple[StageCost, ...]
    memory_bytes: float
    disk_bytes: float

    def of(self, cells: Iterable[str]) -> Cost:
        """The cost of some of the cells, named by their labels."""
        chosen = set(cells)
        return attrs.evolve(self, stages=tuple(stage for stage in self.stages if stage.cell in chosen))

    def elapsed(self, jobs: int) -> float:
        """Seconds to the end with `jobs` cells side by side; never less than the longest cell."""
        cells: dict[str, float] = {}
        for stage in self.stages:
            cells[stage.cell] = cells.get(stage.cell, 0.0) + stage.seconds
        return max(sum(cells.values()) / jobs, max(cells.values(), default=0.0))


class _Rates:
    """Seconds of one step of each kind of work, each timed once."""

    def __init__(self, experiment: Experiment, machine: ResolvedMachine) -> None:
        self._experiment = experiment
        self._machine = machine
        self._known: dict[tuple, tuple[float, ...]] = {}

    def environment(self, cell: Cell, plan: DatasetPlan) -> float:
        """Seconds of one environment step; 0 without a simulator."""
        if not self._experiment.simulated(cell.key.task):
            return 0.0
        key = ("environment", cell.key.task, cell.key.bins)
        return self._once(key, lambda: (_environment_seconds(self._experiment, cell, plan),))[0]

    def pretraining(self, cell: Cell, plan: DatasetPlan) -> float:
        """Seconds of one step of ASM pre-training; 0 without pre-training."""
        config, sizes = cell.pretraining, (plan.observation_size, plan.action_spec)
        if not isinstance(config, Pretraining):
            return 0.0
        key = ("asm", cell.key.task, cell.key.bins, fingerprint(to_plain(config)))
        return self._once(key, lambda: (_timed(pretraining_step(config, *sizes, self._machine)),))[0]

    def training(self, cell: Cell, plan: DatasetPlan) -> tuple[float, ...]:
        """Seconds of one update, of acting in an evaluation's episodes, of one row of features, of acting in a row."""
        key = (cell.key.task, cell.key.bins, cell.key.policy, cell.key.algorithm)
        return self._once(("update", *key), lambda: _update_seconds(self._experiment, cell, plan, self._machine))

    def _once(self, key: tuple, measure: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
        if key not in self._known:
            self._known[key] = measure()
        return self._known[key]


def estimate_cost(experiment: Experiment, cells: Sequence[Cell], machine: ResolvedMachine) -> Cost:
    """Time a few steps of each kind of work, and multiply by the steps of the cells."""
    rates = _Rates(experiment, machine)
    stages: list[StageCost] = []
    have: dict[Rollout, int] = {}
    pretrained: set[tuple] = set()
    evaluation = experiment.evaluation
    marks = evaluation.marks(experiment.training.gradient_steps)
    for cell in cells:
        key, label = cell.key, cell.key.label()
        plan = experiment.dataset(cell)
        missing = take_missing(plan.parts, have)
        environment_step = rates.environment(cell, plan)
        stages.append(StageCost(label, "collecting", missing * environment_step / experiment.collectors))
        asm = (key.task, key.bins, key.tier, key.seed, fingerprint(to_plain(cell.pretraining)))
        if cell.policy.needs_asm and asm not in pretrained:
            pretrained.add(asm)
            steps = 0 if cached_asm(experiment, cell) else cell.pretraining.total_steps(plan.transitions)
            stages.append(StageCost(label, "pre-training", rates.pretraining(cell, plan) * steps))
        update, acting, encoding, acting_row = rates.training(cell, plan)
        if missing_features(experiment, cell):
            stages.append(StageCost(label, "embedding", encoding * plan.transitions))
        for start in (cell.warm_start, cell.critic_start):
            if start is not None:  # at most an update's time a step
                stages.append(StageCost(label, STARTS[start.kind], update * start.steps))
        stages.append(StageCost(label, "training", update * experiment.training.gradient_steps))
        if experiment.simulated(key.task):
            episodes = sum(evaluation.episodes_at(share) for share in marks.values())
            once = evaluation.episode_steps * (evaluation.episodes * environment_step / machine.threads + acting)
            stages.append(StageCost(label, "evaluating", once * episodes / evaluation.episodes))
        for estimator in evaluation.estimators:
            times = sum(estimator.fractions is None or share in estimator.fractions for share in marks.values())
            rows = estimator.rows(round(plan.held_out_share * plan.transitions))
            stages.append(StageCost(label, "estimating", times * rows * acting_row))
    disk = disk_needed(experiment, cells) + CELL_DISK * len(cells)
    return Cost(tuple(stages), memory_needed(experiment, cells), disk)


def memory_needed(experiment: Experiment, cells: Sequence[Cell]) -> float:
    """Peak memory in bytes of the cell with the largest dataset, mapped pages included."""
    most = 0
    for cell in cells:
        plan = experiment.dataset(cell)
        dataset = 4 * plan.observation_size * plan.transitions
        most = max(most, dataset + features_needed(experiment, cell))
    return BASE_MEMORY + 1.5 * most


def _timed(step: Callable[[], object], repeats: int = 3) -> float:
    step()
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        took.append(time.perf_counter() - began)
    return float(np.median(took))


def _environment_seconds(experiment: Experiment, cell: Cell, plan: DatasetPlan, steps: int = 60) -> float:
    environment = build_environment(experiment, cell, plan, episodes=1)
    environment.reset(0, 0)
    rng, seconds = np.random.default_rng(0), 0.0
    for _ in range(steps):
        action = random_actions(environment, [0], rng)
        began = time.perf_counter()
        environment.step(action)
        seconds += time.perf_counter() - began
    environment.close()
    return seconds / steps


def _update_seconds(
    experiment: Experiment, cell: Cell, plan: DatasetPlan, machine: ResolvedMachine
) -> tuple[float, float, float, float]:
    size, spec = plan.observation_size, plan.action_spec
    policy = untrained_policy(cell.policy, cell.pretraining.encoder, size, spec)
    algorithm = cell.algorithm.build(policy, size, spec, seed=0, machine=machine)
    observation = random_batch(FEATURE_BATCH, size, spec)[OBSERVATION].to(machine.device)
    update = encoding = 0.0
    for begin, end in itertools.pairwise((0.0, *policy.milestones, 1.0)):
        policy.set_trained_parts(begin)
        batch = random_batch(experiment.training.batch_size, size, spec).to(machine.device)
        if frozen := policy.frozen_input():
            batch[POLICY_INPUT] = torch.randn(len(batch), *frozen.shape, dtype=torch.bfloat16, device=machine.device)
            with torch.inference_mode():
                encoding = _timed(partial(frozen.encode, observation)) / len(observation)
        update += (end - begin) * _timed(lambda batch=batch: float(algorithm.update(batch)["loss_policy"]))  # type: ignore[misc]
    acting = algorithm.acting_policy().eval()
    with torch.inference_mode():
        act = _timed(lambda: acting.mode(observation[: experiment.evaluation.episodes]))
        estimating = experiment.evaluation.estimators and _timed(lambda: acting.mode(observation)) / len(observation)
        return update, act, encoding, estimating or 0.0
