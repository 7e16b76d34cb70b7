"""The training of one cell: `spinrl.training.Trainer` with the cell's evaluations, which its checkpoint holds too."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import attrs

from harness.cells.events import Evaluated, Report, Resumed
from harness.experiment import Cell, Experiment
from harness.records import Evaluation
from spinrl.asm import FrozenASM
from spinrl.config import to_plain
from spinrl.data import Store
from spinrl.machine import ResolvedMachine
from spinrl.training import Trainer, TrainingSetup


class CellTraining(Trainer):
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
        setup = TrainingSetup(
            policy=cell.policy,
            algorithm=cell.algorithm,
            training=experiment.training,
            standardized=experiment.standardize_observations,
            warm_start=cell.warm_start,
            critic_start=cell.critic_start,
            seed=cell.key.seed,
        )
        super().__init__(setup, store, asm, machine, path)
        self.path: Path = path
        self.experiment = experiment
        self.cell = cell
        self.held_out = held_out
        self.evaluation_seconds = 0.0
        self.evaluations: list[Evaluation] = []
        self.told_of_cut = False

    @property
    def ended_at(self) -> int | None:
        """The gradient step at which `Training.patience` ended the training; None while it has not."""
        return next((each.gradient_step for each in self.evaluations if each.ended_early), None)

    def take(self, state: dict[str, Any], report: Report) -> None:
        """Go on from the state of a checkpoint, and tell of the evaluations in it."""
        super().take(state, report)
        self.evaluation_seconds = state["evaluation_seconds"]
        self.evaluations = [Evaluation.from_plain(each) for each in state["evaluations"]]
        report(Resumed(self.step, tuple(self.evaluations), tuple(each for _, each in self.recent)))

    def state(self) -> dict[str, Any]:
        """Everything that resuming, and exporting the policy, needs."""
        return super().state() | {
            "evaluation_seconds": self.evaluation_seconds,
            "evaluations": [each.to_plain() for each in self.evaluations],
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
        }

    def add(self, mark: int, fraction: float, began: float, report: Report, **also: Any) -> None:
        """Keep, tell of and checkpoint an evaluation; `also` has its further fields, and others in place of these."""
        self.evaluation_seconds += time.perf_counter() - began
        spent = {
            "asm_seconds": self.asm.seconds if self.asm else 0.0,
            "start_seconds": self.start_seconds,
            "train_seconds": self.train_seconds,
            "evaluation_seconds": self.evaluation_seconds,
        }
        evaluation = Evaluation(gradient_step=mark, fraction=fraction, **spent | also)
        self.evaluations.append(evaluation)
        report(Evaluated(evaluation))
        self.keep(report)
