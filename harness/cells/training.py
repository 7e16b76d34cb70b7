"""The training of one cell: what changes while it goes on, and what a checkpoint of it holds."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from harness.cells.events import (
    Evaluated,
    Fault,
    FeaturesReady,
    Metrics,
    Report,
    Resumed,
    StageProgress,
    StageStarted,
    Waiting,
    stage_progress,
)
from harness.cells.starts import make_start
from harness.experiment import Cell, Experiment
from harness.records import Evaluation
from spinrl import checkpoint
from spinrl.algorithms import Algorithm, DivergedError
from spinrl.asm import FrozenASM
from spinrl.checkpoint import CheckpointError
from spinrl.config import to_plain
from spinrl.data import ReplayLoader, Store, row_features, standardize
from spinrl.machine import ResolvedMachine
from spinrl.policies import Policy
from spinrl.seeding import child_seed, random_state, restore_random_state
from spinrl.train import train

CHECKPOINT_VERSION = 2  # since 2, networks hold the standard units of observations
UNLOGGED_SECONDS = 60.0  # after which a metric has reached the tracking store, or the journal beside it


class CellTraining:
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
        self.loader = ReplayLoader(store, experiment.training.batch_size, seed, device=machine.device)
        policy = self.build_policy(store, asm)
        self.algorithm: Algorithm = cell.algorithm.build(
            policy, store.observation_size, store.action_spec, seed=seed, machine=machine
        )
        if experiment.standardize_observations:
            standardize(self.algorithm, store)
        torch.manual_seed(child_seed(seed, "dropout"))
        self.asm = asm
        self.machine = machine
        self.store = store
        self.held_out = held_out
        self.prepared: str | None = None  # identity of the frozen input whose features the loader gives along
        self.private: set[Path] = set()  # features that no other training can use
        self.step = 0
        self.start_seconds = 0.0
        self.train_seconds = 0.0
        self.counted: str | None = None  # identity of the frozen input whose seconds are among `train_seconds`
        self.evaluation_seconds = 0.0
        self.evaluations: list[Evaluation] = []
        self.recent: list[tuple[float, Metrics]] = []  # with the time; those that may not have been logged
        self.told_of_cut = False

    def build_policy(self, store: Store, asm: FrozenASM | None) -> Policy:
        """The cell's policy before any training, on its ASM or a snapshot of it."""
        return self.cell.policy.build(store.observation_size, store.action_spec, asm=asm, seed=self.cell.key.seed)

    @property
    def ended_at(self) -> int | None:
        """The gradient step at which `Training.patience` ended the training; None while it has not."""
        return next((each.gradient_step for each in self.evaluations if each.ended_early), None)

    def begin(self, report: Report) -> None:
        """Go on from the checkpoint of an interrupted run; where there is none, give policy and critics their start."""
        if not self._resume(report):
            self._start(report)

    def _start(self, report: Report) -> None:
        starts = [start for start in (self.cell.warm_start, self.cell.critic_start) if start is not None]
        for start in starts:
            if start.follows_policy(self.algorithm):
                self._prepare(report)
            self.start_seconds += make_start(
                start,
                self.cell,
                self.algorithm,
                self.store,
                self.loader,
                self.asm,
                report,
                standardized=self.experiment.standardize_observations,
            )
        if starts:  # what training draws is the same as without them
            torch.manual_seed(child_seed(self.cell.key.seed, "dropout"))

    def _resume(self, report: Report) -> bool:
        state = checkpoint.load_latest(self.path, on_damage=lambda error: report(Fault(str(error))))
        if state is None:
            return False
        if (version := state.get("format_version")) != CHECKPOINT_VERSION:
            report(
                Fault(
                    f"{self.path} has checkpoint format {version}, this spinrl resumes {CHECKPOINT_VERSION}; "
                    "the training begins anew"
                )
            )
            return False
        self.algorithm.load_state_dict(state["algorithm"])
        self.loader.load_state_dict(state["loader"])
        restore_random_state(state)
        self.step = state["step"]
        self.start_seconds = state.get("start_seconds", 0.0)  # checkpoints of before have none
        self.train_seconds = state["train_seconds"]
        self.counted = state["counted"]
        self.evaluation_seconds = state["evaluation_seconds"]
        self.evaluations = [Evaluation.from_plain(each) for each in state["evaluations"]]
        recent = tuple(Metrics(step, values) for step, values in state["recent"])
        self.recent = [(time.monotonic(), each) for each in recent]
        report(Resumed(self.step, tuple(self.evaluations), recent))
        return True

    def save(self) -> None:
        """Everything that resuming, and exporting the policy, needs."""
        checkpoint.save_latest(
            {
                "format_version": CHECKPOINT_VERSION,
                **random_state(),
                "algorithm": self.algorithm.state_dict(),
                "loader": self.loader.state_dict(),
                "step": self.step,
                "start_seconds": self.start_seconds,
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
                    "action_start": list(self.store.metadata.action_start),
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
            self.algorithm.policy.set_trained_parts(self.step / total)
            self._prepare(report)
            self._train_to(stop, report)

    def _prepare(self, report: Report) -> None:
        """Compute what the policy makes of every observation, where that stays the same from here on."""
        frozen = self.algorithm.policy.frozen_input()
        if frozen is None or frozen.identity == self.prepared:
            return
        # In fp32 whatever the precision of the training: those in the cache serve runs of any.
        features = row_features(
            self.store,
            frozen.encode,
            frozen.shape,
            frozen.identity,
            device=self.machine.device,
            progress=stage_progress(report, "embedding", "observations"),
            on_wait=lambda path: report(Waiting(path)),
            on_damage=lambda message: report(Fault(message)),
        )
        report(FeaturesReady(features.seconds, features.num_bytes))
        if not frozen.shared:
            self.private.add(features.path)
        self.loader.attach_features(features.values, following=self.cell.algorithm.asks_next_policy)
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
                    raise DivergedError(
                        f"{name} is {value} at gradient step {self.step}; a smaller learning_rate may help"
                    )
            report(StageProgress(self.step))
            metrics = Metrics(self.step, {**values, "time/train_seconds": self.train_seconds})
            self.recent.append((time.monotonic(), metrics))
            report(metrics)
            if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                self._keep(report)
                saved = time.monotonic()

    def add(
        self,
        mark: int,
        fraction: float,
        metric: str,
        values: Sequence[float],
        began: float,
        report: Report,
        **also: Any,
    ) -> None:
        """Keep, tell of and checkpoint an evaluation; `also` has further fields, and others in place of these."""
        self.evaluation_seconds += time.perf_counter() - began
        spent = {
            "asm_seconds": self.asm.seconds if self.asm else 0.0,
            "start_seconds": self.start_seconds,
            "train_seconds": self.train_seconds,
            "evaluation_seconds": self.evaluation_seconds,
        }
        evaluation = Evaluation(gradient_step=mark, fraction=fraction, returns=values, metric=metric, **spent | also)
        self.evaluations.append(evaluation)
        report(Evaluated(evaluation))
        self._keep(report)

    def _keep(self, report: Report) -> None:
        """Save, but go on where the disk does not take it now: the next one may find room again."""
        try:
            self.save()
        except CheckpointError as error:
            report(Fault(f"{error}; training goes on"))
