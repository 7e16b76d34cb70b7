"""One training of one policy: what changes while it goes on, and what a checkpoint of it holds.

`spinrl.fit` is this; a cell of an experiment is this with evaluations in between (`harness.cells.training`).
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import attrs
import torch
from tensordict import TensorDict

from spinrl import checkpoint
from spinrl.algorithms import Algorithm, AlgorithmConfig, Imitation, MonteCarloCritics
from spinrl.asm import FrozenASM
from spinrl.budget import Training
from spinrl.captured import Captured
from spinrl.checkpoint import CheckpointError
from spinrl.config import to_plain
from spinrl.data import ReplayLoader, Store, standardize
from spinrl.events import Fault, Metrics, Notice, Report, StageProgress, StageStarted
from spinrl.machine import ResolvedMachine
from spinrl.policies import Policy, PolicyConfig
from spinrl.preparation import make_start, prepare_features
from spinrl.seeding import child_seed, random_state, restore_random_state
from spinrl.train import gradient_step, train

CHECKPOINT_VERSION = 2  # since 2, networks hold the standard units of observations
UNLOGGED_SECONDS = 60.0  # after which a metric has reached the tracking store, or the journal beside it


@attrs.frozen(kw_only=True)
class TrainingSetup:
    """What a training is of, apart from its data.

    Attributes:
        policy: its configuration.
        algorithm: its configuration.
        training: budget and batches.
        standardized: give networks observations in the dataset's standard units.
        warm_start: imitation before training, or none.
        critic_start: of the critics before training, or none.
        seed: of weights, batches, dropout and sampled actions.
    """

    policy: PolicyConfig
    algorithm: AlgorithmConfig
    training: Training
    standardized: bool
    warm_start: Imitation | None = None
    critic_start: MonteCarloCritics | None = None
    seed: int = 0


class Trainer:
    """What changes while a policy trains, and what a checkpoint of it holds.

    Args:
        setup: what is trained, and how.
        store: the dataset.
        asm: of the policy, where it needs one.
        machine: device, precision, compilation.
        path: of its checkpoint; None keeps none.

    Attributes:
        algorithm: with the policy in it.
        step: gradient steps done.
        stopped: set to True by whoever is told of events, to end the training at the next report.
    """

    def __init__(
        self, setup: TrainingSetup, store: Store, asm: FrozenASM | None, machine: ResolvedMachine, path: Path | None
    ) -> None:
        self.setup = setup
        self.path = path
        self.loader = ReplayLoader(store, setup.training.batch_size, setup.seed, device=machine.device)
        policy = self.build_policy(store, asm)
        self.algorithm: Algorithm = setup.algorithm.build(
            policy, store.observation_size, store.action_spec, seed=setup.seed, machine=machine
        )
        if setup.standardized:
            standardize(self.algorithm, store)
        torch.manual_seed(child_seed(setup.seed, "dropout"))
        self.asm = asm
        self.machine = machine
        self.store = store
        self.prepared: str | None = None  # identity of the frozen input whose features the loader gives along
        self.private: set[Path] = set()  # features that no other training can use
        self._step: tuple[tuple[object, ...], Captured[TensorDict]] | None = None  # and what it was made for
        self.step = 0
        self.stopped = False
        self.start_seconds = 0.0
        self.train_seconds = 0.0
        self.counted: str | None = None  # identity of the frozen input whose seconds are among `train_seconds`
        self.recent: list[tuple[float, Metrics]] = []  # with the time; those that may not have been logged

    def build_policy(self, store: Store, asm: FrozenASM | None) -> Policy:
        """The policy before any training, on its ASM or a snapshot of it."""
        return self.setup.policy.build(store.observation_size, store.action_spec, asm=asm, seed=self.setup.seed)

    def begin(self, report: Report) -> None:
        """Go on from the checkpoint of an interrupted run; where there is none, give policy and critics their start."""
        if not self._resume(report):
            self._start(report)

    def _start(self, report: Report) -> None:
        setup = self.setup
        starts = [start for start in (setup.warm_start, setup.critic_start) if start is not None]
        for start in starts:
            if start.follows_policy(self.algorithm):
                self._prepare(report)
            self.start_seconds += make_start(
                start,
                self.algorithm,
                self.store,
                self.loader,
                report,
                seed=setup.seed,
                policy={"config": to_plain(setup.policy), "asm": self.asm.fingerprint if self.asm else None},
                standardized=setup.standardized,
            )
        if starts:  # what training draws is the same as without them
            torch.manual_seed(child_seed(setup.seed, "dropout"))

    def _resume(self, report: Report) -> bool:
        if self.path is None:
            return False
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
        try:
            self.take(state, report)
        except CheckpointError as error:
            report(Fault(f"{self.path} cannot be gone on with: {error}; the training begins anew"))
            return False
        return True

    def take(self, state: dict[str, Any], report: Report) -> None:
        """Go on from the state of a checkpoint.

        Raises:
            CheckpointError: when it is of another kind of device.
        """
        self.loader.load_state_dict(state["loader"])  # first, since it may refuse
        self.algorithm.load_state_dict(state["algorithm"])
        restore_random_state(state)
        self.step = state["step"]
        self.start_seconds = state.get("start_seconds", 0.0)  # checkpoints of before have none
        self.train_seconds = state["train_seconds"]
        self.counted = state["counted"]
        recent = tuple(Metrics(step, values) for step, values in state["recent"])
        self.recent = [(time.monotonic(), each) for each in recent]

    def state(self) -> dict[str, Any]:
        """Everything that resuming needs, as a checkpoint holds it."""
        return {
            "format_version": CHECKPOINT_VERSION,
            **random_state(),
            "algorithm": self.algorithm.state_dict(),
            "loader": self.loader.state_dict(),
            "step": self.step,
            "start_seconds": self.start_seconds,
            "train_seconds": self.train_seconds,
            "counted": self.counted,
            "recent": [(each.step, each.values) for _, each in self.recent],
        }

    def save(self) -> None:
        """Write the checkpoint, where one is kept."""
        if self.path is None:
            return
        checkpoint.save_latest(self.state(), self.path)
        self.recent = [(at, each) for at, each in self.recent if at > time.monotonic() - UNLOGGED_SECONDS]

    def advance(self, mark: int, report: Report) -> None:
        """Train up to gradient step `mark`, with the policy told of its milestones on the way."""
        total = self.setup.training.gradient_steps
        stops = {math.ceil(share * total - 1e-9) for share in self.algorithm.policy.milestones}
        for stop in sorted({mark, *(stop for stop in stops if self.step < stop < mark)}):
            if self.stopped:
                return
            self.algorithm.policy.set_trained_parts(self.step / total)
            self._prepare(report)
            self._train_to(stop, report)

    def _prepare(self, report: Report) -> None:
        """Compute what the policy makes of every observation, where that stays the same from here on."""
        frozen = self.algorithm.policy.frozen_input()
        if frozen is None or frozen.identity == self.prepared:
            return
        features = prepare_features(frozen, self.store, self.machine, report)
        if not frozen.shared:
            self.private.add(features.path)
        following = self.setup.algorithm.asks_next_policy
        self.loader.attach_features(features.values, following=following, name=str(features.path))
        self.prepared = frozen.identity
        if self.counted != self.prepared:
            self.train_seconds += features.seconds
            self.counted = self.prepared

    def _train_to(self, mark: int, report: Report) -> None:
        """Train up to gradient step `mark`; seconds of checkpoints and logging are not training time."""
        config = self.setup.training
        report(StageStarted("training", config.gradient_steps, "steps"))
        self.algorithm.train()
        step, saved = self._gradient_step(report), time.monotonic()
        for number, values, seconds in train(step, mark, start=self.step, report_every=config.report_every):
            self.step = number
            self.train_seconds += seconds
            report(StageProgress(self.step))
            metrics = Metrics(self.step, {**values, "time/train_seconds": self.train_seconds})
            self.recent.append((time.monotonic(), metrics))
            report(metrics)
            if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                self.keep(report)
                saved = time.monotonic()
            if self.stopped:
                return

    def _gradient_step(self, report: Report) -> Captured[TensorDict]:
        """One gradient step, sampling included: a new one where other parameters are trained, or on other batches."""
        made_for = (self.prepared, *(each.requires_grad for each in self.algorithm.parameters()))
        if self._step is None or self._step[0] != made_for:
            step = gradient_step(
                self.algorithm, self.loader, lambda reason: report(Notice(f"gradient steps are {reason}"))
            )
            self._step = made_for, step
        return self._step[1]

    def keep(self, report: Report) -> None:
        """Save, but go on where the disk does not take it now: the next one may find room again."""
        try:
            self.save()
        except CheckpointError as error:
            report(Fault(f"{error}; training goes on"))
