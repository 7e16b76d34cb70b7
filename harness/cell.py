"""One cell of the grid, from dataset to returns at every budget fraction.

A cell knows neither MLflow nor the terminal: what happens is told to a `report` function as plain events, in the
order in which it happens. They are small and can be pickled, so that a cell may run in another process.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from harness.experiment import Cell, Experiment
from harness.records import RETURN, Evaluation
from spinrl import checkpoint
from spinrl.algorithms import Algorithm
from spinrl.asm import Curve, FrozenASM, pretrained_asm
from spinrl.checkpoint import CheckpointError
from spinrl.config import fingerprint, to_plain
from spinrl.data import DatasetPlan, Making, ReplayLoader, Standardizer, Store, home, locked, row_features
from spinrl.evaluation import EstimationData, Estimator, episode_seeds, evaluate
from spinrl.machine import ResolvedMachine
from spinrl.seeding import child_seed
from spinrl.specs import ActionSpec
from spinrl.tasks import BatchedEnvironment, Environment, ParallelEnvironment, SimulatorError, get_task
from spinrl.train import train

CHECKPOINT_VERSION = 1
UNLOGGED_SECONDS = 60.0  # after which a metric has reached the tracking store, or the journal beside it


class CellError(Exception):
    """A cell that cannot go on; the message says why."""


@attrs.frozen
class StageStarted:
    """A stage begins: collecting (or importing), pre-training, embedding, training, evaluating or estimating."""

    stage: str
    total: int
    unit: str


@attrs.frozen
class StageProgress:
    """`done` units of the current stage are done."""

    done: int


@attrs.frozen
class Waiting:
    """Another run is making the same entry of the cache; this one waits for it."""

    path: Path


@attrs.frozen
class DatasetReady:
    """The cell's dataset, verified.

    Attributes:
        path: the store's folder.
        fingerprint: of its content.
        rows: transitions.
        observation_size: S.
        nvec: choices of each sub-action.
    """

    path: Path
    fingerprint: str
    rows: int
    observation_size: int
    nvec: tuple[int, ...]


@attrs.frozen
class Metrics:
    """Values by metric name at a step (of the policy, or of ASM pre-training)."""

    step: int
    values: dict[str, float]


@attrs.frozen
class ASMReady:
    """The cell's frozen ASM, pre-trained now or found in the cache.

    Attributes:
        fingerprint: of what it came from.
        seconds: that its pre-training once took.
        curve: of that pre-training.
    """

    fingerprint: str
    seconds: float
    curve: tuple[Metrics, ...] = ()


@attrs.frozen
class FeaturesReady:
    """What the policy's frozen part makes of the dataset, computed now or found in the cache."""

    seconds: float
    num_bytes: int


@attrs.frozen
class Resumed:
    """Training goes on from a checkpoint of an interrupted run.

    Attributes:
        gradient_step: where.
        evaluations: all that were made before.
        metrics: the latest ones, which a kill may have kept from being logged.
    """

    gradient_step: int
    evaluations: tuple[Evaluation, ...]
    metrics: tuple[Metrics, ...] = ()


@attrs.frozen
class Restarted:
    """The cell's process or machine was lost; it begins again elsewhere, as attempt `attempt` (from 0), on `node`."""

    node: str
    attempt: int


@attrs.frozen
class Fault:
    """Something cannot be read, and is made again from what is sound, or not be written, and is done without.

    The message names it.
    """

    message: str


@attrs.frozen
class Notice:
    """Something that whoever reads the cell's numbers should know, in one line."""

    message: str


@attrs.frozen
class Evaluated:
    """An evaluation is done."""

    evaluation: Evaluation


@attrs.frozen
class Trained:
    """The cell is finished; its final checkpoint lies at `path`, which is deleted unless it is taken."""

    path: Path


Event = (
    StageStarted
    | StageProgress
    | Waiting
    | DatasetReady
    | ASMReady
    | FeaturesReady
    | Restarted
    | Resumed
    | Fault
    | Notice
    | Metrics
    | Evaluated
    | Trained
)
Report = Callable[[Event], None]


def prepare_dataset(
    experiment: Experiment, cell: Cell, machine: ResolvedMachine, report: Report
) -> tuple[Store, Store | None]:
    """The cell's dataset, and what is held out of it: from the cache where they are, else made; verified.

    Raises:
        BehaviorError, CollectionError, StoreError: in one line each.
    """
    started = 0

    def progress(done: int, total: int) -> None:
        nonlocal started
        if started != total:  # a tier may collect several sources, one after another
            report(StageStarted("collecting", total, unit))
            started = total
        report(StageProgress(done))

    plan = experiment.dataset(cell)
    unit = "transitions" if plan.parts else "bytes"
    making = Making(
        processes=experiment.collectors,
        progress=progress,
        on_wait=lambda path: report(Waiting(path)),
        on_damage=lambda message: report(Fault(message)),
    )
    store = plan.store(making)
    report(DatasetReady(store.path, store.fingerprint, len(store), store.observation_size, store.action_spec.nvec))
    return store, plan.held_out()


def prepare_asm(
    experiment: Experiment, cell: Cell, store: Store, machine: ResolvedMachine, report: Report
) -> FrozenASM:
    """The cell's frozen ASM: from the cache where it is, else pre-trained on the cell's dataset."""
    total = cell.pretraining.total_steps(len(store))
    started = False

    def progress(step: int, values: dict[str, float]) -> None:
        nonlocal started
        if not started:
            report(StageStarted("pre-training", total, "steps"))
            started = True
        report(StageProgress(step))
        report(Metrics(step, values))

    def resumed(curve: Curve) -> None:
        for each in _metrics(curve):
            report(each)

    asm = pretrained_asm(
        cell.pretraining,
        store,
        seed=cell.key.seed,
        machine=machine,
        standardizer=standardizer(experiment, store),
        progress=progress,
        on_resume=resumed,
        on_wait=lambda path: report(Waiting(path)),
        on_damage=lambda message: report(Fault(message)),
    )
    report(ASMReady(asm.fingerprint, asm.seconds, _metrics(asm.curve)))
    return asm


def _metrics(curve: Curve) -> tuple[Metrics, ...]:
    return tuple(Metrics(step, values) for step, values in curve)


def standardizer(experiment: Experiment, store: Store) -> Standardizer | None:
    """Of the dataset's observations, if the experiment wants them standardised."""
    return Standardizer.of(store) if experiment.standardize_observations else None


def run_cell(
    experiment: Experiment, cell: Cell, machine: ResolvedMachine, report: Report, *, fresh: bool = False
) -> list[Evaluation]:
    """Dataset, ASM where the policy wants one, training, and an evaluation at every mark.

    An interrupted training goes on from its last checkpoint when the same cell runs again, unless it is to be `fresh`.

    Returns:
        Every evaluation, in order of gradient step.

    Raises:
        CellError: when a loss is no longer finite.
    """
    machine.apply()
    store, held_out = prepare_dataset(experiment, cell, machine, report)
    asm = prepare_asm(experiment, cell, store, machine, report) if cell.policy.needs_asm else None
    identity = _identity(experiment, cell, store, asm, machine)
    path = home() / "cells" / identity / "checkpoint.pt"
    # Of two runs of the very same cell, one trains and the other waits: they would write the same checkpoint.
    with locked(path.parent, lambda entry: report(Waiting(entry))):
        if fresh:
            shutil.rmtree(path.parent, ignore_errors=True)
        training = _Training(experiment, cell, store, held_out, asm, machine, path)
        training.resume(report)
        environment = None
        if experiment.simulated(cell.key.task):
            episodes = experiment.evaluation.episodes
            environment = build_environment(experiment, cell, store, episodes=episodes, threads=machine.threads)
        try:
            _train_and_judge(training, environment, report)
        finally:
            if environment is not None:
                environment.close()
        training.save()
        report(Trained(training.path))
        for folder in (training.path.parent, *training.private):
            shutil.rmtree(folder, ignore_errors=True)
        return training.evaluations


def _train_and_judge(training: _Training, environment: Environment | None, report: Report) -> None:
    """Train, and evaluate and estimate what is due and was not yet, at every mark of the budget."""
    config = training.experiment.evaluation
    for mark, fraction in config.marks(training.experiment.training.gradient_steps).items():
        if mark > training.step:
            training.advance(mark, report)
        made = {each.metric for each in training.evaluations if each.gradient_step == mark}
        if environment is not None and RETURN not in made:
            training.evaluate(mark, fraction, environment, report)
        for estimator in config.estimators:
            due = estimator.fractions is None or fraction in estimator.fractions
            if due and estimator.metric not in made:
                training.estimate(mark, fraction, estimator, report)


def build_environment(
    experiment: Experiment, cell: Cell, data: Store | DatasetPlan, *, episodes: int, threads: int = 1
) -> Environment:
    """Environments for the cell's policy.

    Args:
        experiment: names the simulator of a task that is not the benchmark's.
        cell: of a task with a simulator.
        data: the cell's dataset, or its plan.
        episodes: how many environments.
        threads: processes that they may be spread over.

    Raises:
        CellError: when the simulator's actions or observations are not the dataset's.
        SimulatorError: when there is no such simulator, or it cannot be reset and take a step.
    """
    task = cell.key.task
    if task not in experiment.simulators:
        bins = data.action_spec.max_choices
        require_task(task, data)
        if episodes == 1 or threads == 1:  # another process would only wait for this one, and this one for it
            return BatchedEnvironment(get_task(task), bins, episodes)
        return ParallelEnvironment(get_task(task), bins, episodes, threads)
    environment = experiment.simulators[task].build(episodes)
    try:
        spec = environment.action_spec
        _require_agreement(task, spec, len(environment.reset(0, 0)), data)
        environment.step(np.zeros((1, spec.num_sub_actions), dtype=np.int64), [0])  # better now than after a training
    except (CellError, SimulatorError):
        environment.close()
        raise
    return environment


def require_task(name: str, data: Store | DatasetPlan) -> None:
    """Check that a dataset's actions and observations are those of the benchmark's task whose name it bears.

    Raises:
        CellError: when they are not: its returns would be another task's.
    """
    task = get_task(name)
    try:
        spec = task.action_spec(data.action_spec.max_choices)
    except ValueError as error:
        raise CellError(f"{name}: {error}; name own data otherwise (--name when it is imported)") from error
    _require_agreement(name, spec, task.observation_size, data)


def _require_agreement(task: str, spec: ActionSpec, size: int, data: Store | DatasetPlan) -> None:
    if (spec, size) != (data.action_spec, data.observation_size):
        raise CellError(
            f"the simulator of {task} takes actions of {list(spec.nvec)} choices and gives {size} "
            f"observation entries; the dataset has {list(data.action_spec.nvec)} and {data.observation_size}: "
            "name its own simulator (Experiment.simulators), or name the data otherwise (--name when it is imported)"
        )


class _Training:
    """What changes while a cell trains, and what a checkpoint of it holds."""

    def __init__(
        self,
        experiment: Experiment,
        cell: Cell,
        store: Store,
        held_out: Store | None,
        asm: FrozenASM | None,
        machine: ResolvedMachine,
        path: Path,
    ) -> None:
        seed = cell.key.seed
        self.experiment = experiment
        self.cell = cell
        self.path = path
        self.standardizer = standardizer(experiment, store)
        self.loader = ReplayLoader(
            store,
            experiment.training.batch_size,
            seed,
            device=machine.device,
            standardizer=self.standardizer,
        )
        policy = cell.policy.build(store.observation_size, store.action_spec, asm=asm, seed=seed)
        self.algorithm: Algorithm = cell.algorithm.build(
            policy, store.observation_size, store.action_spec, seed=seed, machine=machine
        )
        torch.manual_seed(child_seed(seed, "dropout"))
        self.asm = asm
        self.machine = machine
        self.store = store
        self.held_out = held_out
        self.prepared: str | None = None  # identity of the frozen input whose features the loader gives along
        self.private: set[Path] = set()  # features that no other training can use
        self.step = 0
        self.train_seconds = 0.0
        self.counted: str | None = None  # identity of the frozen input whose seconds are among `train_seconds`
        self.evaluation_seconds = 0.0
        self.evaluations: list[Evaluation] = []
        self.recent: list[tuple[float, Metrics]] = []  # with the time; those that may not have been logged
        self.told_of_cut = False

    def resume(self, report: Report) -> None:
        """Go on from the checkpoint of an interrupted run, if there is one."""
        state = checkpoint.load_latest(self.path, on_damage=lambda error: report(Fault(str(error))))
        if state is None:
            return
        self.algorithm.load_state_dict(state["algorithm"])
        self.loader.load_state_dict(state["loader"])
        torch.set_rng_state(state["torch_rng"])
        self.step = state["step"]
        self.train_seconds = state["train_seconds"]
        self.counted = state["counted"]
        self.evaluation_seconds = state["evaluation_seconds"]
        self.evaluations = [Evaluation.from_plain(each) for each in state["evaluations"]]
        recent = tuple(Metrics(step, values) for step, values in state["recent"])
        self.recent = [(time.monotonic(), each) for each in recent]
        report(Resumed(self.step, tuple(self.evaluations), recent))

    def save(self) -> None:
        """Everything that resuming, and exporting the policy, needs."""
        checkpoint.save_latest(
            {
                "format_version": CHECKPOINT_VERSION,
                "algorithm": self.algorithm.state_dict(),
                "loader": self.loader.state_dict(),
                "standardizer": None
                if self.standardizer is None
                else {"mean": self.standardizer.mean, "scale": self.standardizer.scale},
                "torch_rng": torch.get_rng_state(),
                "step": self.step,
                "train_seconds": self.train_seconds,
                "counted": self.counted,
                "evaluation_seconds": self.evaluation_seconds,
                "evaluations": [each.to_plain() for each in self.evaluations],
                "recent": [(each.step, each.values) for _, each in self.recent],
                "cell": {
                    **attrs.asdict(self.cell.key),
                    "policy_config": to_plain(self.cell.policy),
                    "algorithm_config": to_plain(self.cell.algorithm),
                    "encoder_config": to_plain(self.cell.pretraining.encoder),
                    "observation_size": self.store.observation_size,
                    "nvec": list(self.store.action_spec.nvec),
                    "dataset_fingerprint": self.store.fingerprint,
                    "asm_fingerprint": self.asm.fingerprint if self.asm else None,
                    "gradient_steps": self.experiment.training.gradient_steps,
                    "action": self.experiment.evaluation.action,
                    "episode_steps": self.experiment.evaluation.episode_steps,
                },
            },
            self.path,
        )
        self.recent = [(at, each) for at, each in self.recent if at > time.monotonic() - UNLOGGED_SECONDS]

    def advance(self, mark: int, report: Report) -> None:
        """Train up to gradient step `mark`, with the policy told of its milestones on the way."""
        total = self.experiment.training.gradient_steps
        stops = {math.ceil(share * total - 1e-9) for share in self.algorithm.policy.milestones}
        for stop in sorted({mark, *(stop for stop in stops if self.step < stop < mark)}):
            self.algorithm.policy.reach(self.step / total)
            self._prepare(report)
            self._train_to(stop, report)

    def _prepare(self, report: Report) -> None:
        """Compute what the policy makes of every observation, where that stays the same from here on."""
        frozen = self.algorithm.policy.frozen_input()
        if frozen is None or frozen.identity == self.prepared:
            return
        started = False

        def progress(done: int, total: int) -> None:
            nonlocal started
            if not started:
                report(StageStarted("embedding", total, "observations"))
                started = True
            report(StageProgress(done))

        # In fp32 whatever the precision of the training: those in the cache serve runs of any.
        features = row_features(
            self.store,
            frozen.encode,
            frozen.shape,
            frozen.identity,
            standardizer=self.standardizer,
            device=self.machine.device,
            progress=progress,
            on_wait=lambda path: report(Waiting(path)),
            on_damage=lambda message: report(Fault(message)),
        )
        report(FeaturesReady(features.seconds, features.num_bytes))
        if not frozen.shared:
            self.private.add(features.path)
        self.loader.give_along(features.values, following=self.cell.algorithm.asks_next_policy)
        self.prepared = frozen.identity
        if self.counted != self.prepared:
            self.train_seconds += features.seconds
            self.counted = self.prepared

    def _train_to(self, mark: int, report: Report) -> None:
        """Train up to gradient step `mark`; seconds of checkpoints and logging are not training time."""
        report(StageStarted("training", self.experiment.training.gradient_steps, "steps"))
        config = self.experiment.training
        loop = train(self.algorithm, self.loader.sample, mark, start=self.step, report_every=config.report_every)
        saved = time.monotonic()
        while True:
            began = time.perf_counter()
            item = next(loop, None)
            if item is None:
                return
            self.step, losses = item
            values = {f"train/{name}": float(loss) for name, loss in losses.items()}  # waits for the device
            self.train_seconds += time.perf_counter() - began
            for name, value in values.items():
                if not math.isfinite(value):
                    raise CellError(f"{name} is {value} at gradient step {self.step}; a smaller learning_rate may help")
            report(StageProgress(self.step))
            metrics = Metrics(self.step, {**values, "time/train_seconds": self.train_seconds})
            self.recent.append((time.monotonic(), metrics))
            report(metrics)
            if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                self._keep(report)
                saved = time.monotonic()

    def evaluate(self, mark: int, fraction: float, environment: Environment, report: Report) -> None:
        """Evaluate in the simulator, on the same episode starts at every mark, and checkpoint."""
        config = self.experiment.evaluation
        marks = config.marks(self.experiment.training.gradient_steps)
        report(StageStarted("evaluating", config.episodes * len(marks), "episodes"))
        began = time.perf_counter()
        returns = evaluate(
            self.algorithm.acting_policy(),
            environment,
            episode_seeds(self.cell.key.seed, config.episodes),
            action=config.action,
            steps=config.episode_steps,
            standardizer=self.standardizer,
        )
        self._add(mark, fraction, RETURN, returns, began, report)
        self._tell_of_cut(environment, report)
        done = sum(each.metric == RETURN for each in self.evaluations)
        report(StageProgress(config.episodes * done))

    def _tell_of_cut(self, environment: Environment, report: Report) -> None:
        """Say, once, that the last evaluation cut episodes; the benchmark's all end by the number of steps."""
        if self.told_of_cut or self.cell.key.task not in self.experiment.simulators:
            return
        config = self.experiment.evaluation
        cut = sum(not environment.over([index]) for index in range(config.episodes))
        if cut:
            self.told_of_cut = True
            report(
                Notice(
                    f"{cut} of {config.episodes} episodes were cut after {config.episode_steps:,} steps, before the "
                    "simulator ended them; raise Evaluating.episode_steps to evaluate whole ones"
                )
            )

    def estimate(self, mark: int, fraction: float, estimator: Estimator, report: Report) -> None:
        """Estimate from data alone, and checkpoint."""
        started = False

        def progress(done: int, total: int) -> None:
            nonlocal started
            if not started:
                report(StageStarted("estimating", total, estimator.unit))
                started = True
            report(StageProgress(done))

        data = EstimationData(
            training=self.store, held_out=self.held_out, standardizer=self.standardizer, device=self.machine.device
        )
        began = time.perf_counter()
        action = self.experiment.evaluation.action
        values = estimator.estimate(self.algorithm, data, seed=self.cell.key.seed, action=action, progress=progress)
        self._add(mark, fraction, estimator.metric, values, began, report)

    def _add(
        self, mark: int, fraction: float, metric: str, values: Sequence[float], began: float, report: Report
    ) -> None:
        self.evaluation_seconds += time.perf_counter() - began
        evaluation = Evaluation(
            gradient_step=mark,
            fraction=fraction,
            returns=values,
            asm_seconds=self.asm.seconds if self.asm else 0.0,
            train_seconds=self.train_seconds,
            evaluation_seconds=self.evaluation_seconds,
            metric=metric,
        )
        self.evaluations.append(evaluation)
        report(Evaluated(evaluation))
        self._keep(report)

    def _keep(self, report: Report) -> None:
        """Save, but go on where the disk does not take it now: the next one may find room again."""
        try:
            self.save()
        except CheckpointError as error:
            report(Fault(f"{error}; training goes on"))


def _identity(experiment: Experiment, cell: Cell, store: Store, asm: FrozenASM | None, machine: ResolvedMachine) -> str:
    """Fingerprint of everything that a cell's numbers depend on: only the very same cell may resume."""
    parts: dict[str, Any] = {
        "key": attrs.asdict(cell.key),
        "policy": to_plain(cell.policy),
        "algorithm": to_plain(cell.algorithm),
        "training": to_plain(attrs.evolve(experiment.training, report_every=1, checkpoint_minutes=1.0)),
        "evaluation": to_plain(experiment.evaluation),
        "dataset": store.fingerprint,
        "standardized": experiment.standardize_observations,
        "asm": asm.fingerprint if asm else None,
        "machine": [machine.device, machine.precision, machine.compile, machine.threads],
    }
    if simulator := experiment.simulators.get(cell.key.task):
        parts["simulator"] = to_plain(simulator)
    return fingerprint(parts)
