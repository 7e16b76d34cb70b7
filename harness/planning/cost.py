"""Expected time, memory and disk of a grid, from a few seconds of timing on this machine."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import attrs
import numpy as np
import torch

from harness.cells.environments import build_environment
from harness.experiment import Cell, Experiment
from harness.planning.memory import memory_needed
from harness.planning.preflight import cached_asm, disk_needed, missing_features, take_missing
from harness.planning.timed_steps import pretraining_step, random_batch, seconds_of, untrained_policy, update_step
from spinrl.algorithms import Algorithm
from spinrl.asm import Pretraining
from spinrl.captured import Captured
from spinrl.config import fingerprint, to_plain
from spinrl.data import DatasetPlan, Rollout
from spinrl.events import STARTS
from spinrl.machine import ResolvedMachine
from spinrl.specs import OBSERVATION
from spinrl.tasks import random_actions

T = TypeVar("T")
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
    """Seconds of one step of each kind of work, each timed once, beside as many others as a process has of it."""

    def __init__(self, experiment: Experiment, machine: ResolvedMachine, together: int) -> None:
        self._experiment = experiment
        self._machine = machine
        self._together = together
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
        copies = partial(self._copies, lambda: pretraining_step(config, *sizes, self._machine))
        return self._once(key, lambda: (self._beside(copies()),))[0]

    def training(self, cell: Cell, plan: DatasetPlan) -> tuple[float, ...]:
        """Seconds of one update, of acting in an evaluation's episodes, of one row of features, of acting in a row."""
        key = (cell.key.task, cell.key.bins, cell.key.policy, cell.key.algorithm)
        return self._once(("update", *key), lambda: self._of_training(cell, plan))

    def _beside(self, steps: Sequence[Callable[[], object]]) -> float:
        """Seconds in which each cell of a process does one step: the GPU mixes captured ones, others take turns."""
        turns = 1 if self._machine.capture else self._together
        return turns * seconds_of(steps, self._machine)

    def _copies(self, make: Callable[[], T]) -> list[T]:
        return [make() for _ in range(self._together if self._machine.capture else 1)]

    def _of_training(self, cell: Cell, plan: DatasetPlan) -> tuple[float, float, float, float]:
        experiment, machine, size, spec = self._experiment, self._machine, plan.observation_size, plan.action_spec
        evaluation, batch_size = experiment.evaluation, experiment.training.batch_size

        def built() -> Algorithm:
            policy = untrained_policy(cell.policy, cell.pretraining.encoder, size, spec)
            return cell.algorithm.build(policy, size, spec, seed=0, machine=machine)

        algorithms = self._copies(built)
        policy, acting = algorithms[0].policy, algorithms[0].acting_policy()
        observation = random_batch(FEATURE_BATCH, size, spec)[OBSERVATION].to(machine.device)
        update = encoding = row = 0.0
        for begin, end in itertools.pairwise((0.0, *policy.milestones, 1.0)):
            for each in algorithms:
                each.policy.set_trained_parts(begin)
            if frozen := policy.frozen_input():
                with torch.inference_mode():
                    encoding = seconds_of([partial(frozen.encode, observation)], machine) / len(observation)
            steps = [update_step(each, batch_size, size, spec) for each in algorithms]
            update += (end - begin) * self._beside(steps)
        acting.eval()
        with torch.inference_mode():
            few = observation[: evaluation.episodes]
            act = seconds_of([Captured(partial(acting.mode, few), on=machine.capture)], machine)
            if evaluation.estimators:
                row = seconds_of([partial(acting.mode, observation)], machine) / len(observation)
        return update, act, encoding, row

    def _once(self, key: tuple, measure: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
        if key not in self._known:
            self._known[key] = measure()
        return self._known[key]


def estimate_cost(experiment: Experiment, cells: Sequence[Cell], machine: ResolvedMachine, together: int = 1) -> Cost:
    """Time a few steps of each kind of work, and multiply by the steps of the cells.

    Args:
        experiment: experiment that the cells belong to.
        cells: cells to run.
        machine: share of the machine that each cell gets; steps are timed captured where it captures.
        together: cells at a time in one process.
    """
    rates = _Rates(experiment, machine, together)
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
    if machine.device == "cuda":
        torch.cuda.empty_cache()  # the memory is for those that will train
    disk = disk_needed(experiment, cells) + CELL_DISK * len(cells)
    return Cost(tuple(stages), memory_needed(experiment, cells), disk)


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
