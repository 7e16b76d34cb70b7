"""Training from Python: the training of a cell, with a preset's values for what the caller leaves open."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from spinrl.algorithms import AlgorithmConfig, Imitation, MonteCarloCritics
from spinrl.asm import ASMSource, FrozenASM, Pretraining
from spinrl.budget import Training
from spinrl.config import fingerprint, to_plain
from spinrl.config.presets import fill
from spinrl.config.registry import Component, register
from spinrl.data import locked
from spinrl.errors import UserError
from spinrl.evaluation import FittedQ
from spinrl.events import Report
from spinrl.face.dataset import Dataset
from spinrl.face.policy import TrainedPolicy
from spinrl.face.progress import Bars, Listener, MetricsCallback
from spinrl.machine import Machine
from spinrl.policies import PolicyConfig
from spinrl.preparation import prepare_asm
from spinrl.training import Trainer, TrainingSetup

PRESETS = {
    "quick": ("gin/scale/quick.gin",),
    "laptop": ("gin/scale/laptop_training.gin", "gin/scale/laptop_estimates.gin"),
    "workstation": ("gin/scale/workstation.gin", "gin/scale/laptop_estimates.gin"),
    "paper": ("gin/scale/paper_training.gin",),
}


@register
@attrs.frozen(kw_only=True)
class Fit(Component):
    """All that `fit` is configured by; in gin files of experiments, `Experiment` is its name.

    Attributes:
        policy: to train.
        algorithm: to train it with.
        pretraining: of the ASM, where the policy needs one.
        training: budget and batches.
        standardize_observations: give networks observations in the dataset's standard units.
        warm_start: imitation before training.
        critic_start: of the critics before training.
        fitted_q: how `TrainedPolicy.estimate` fits a value to the policy.
        machine: device, precision, compilation, threads.
    """

    kind: ClassVar[str] = "fit"

    policy: PolicyConfig
    algorithm: AlgorithmConfig
    pretraining: ASMSource = attrs.field(factory=Pretraining)
    training: Training = attrs.field(factory=Training)
    standardize_observations: bool = False
    warm_start: Imitation | None = None
    critic_start: MonteCarloCritics | None = None
    fitted_q: FittedQ = attrs.field(factory=FittedQ)
    machine: Machine = attrs.field(factory=Machine)


def fit(
    train: Dataset,
    *,
    policy: PolicyConfig,
    algorithm: AlgorithmConfig,
    preset: str | None = "laptop",
    seed: int = 0,
    callback: MetricsCallback | None = None,
    checkpoint: str | Path | None = None,
    asm: FrozenASM | str | Path | None = None,
    training: Training | None = None,
    pretraining: ASMSource | None = None,
    warm_start: Imitation | Literal["preset"] | None = "preset",
    critic_start: MonteCarloCritics | Literal["preset"] | None = "preset",
    machine: Machine | None = None,
    progress: bool = True,
) -> TrainedPolicy:
    """Train a policy: what a cell of an experiment with this configuration and seed trains, to the digit.

    A preset sets the fields of all components that have their default; what differs from it is kept. The ASM of a
    policy that needs one is pre-trained on the same data, and cached. Metrics go to the open MLflow run, if there is
    one.

    Args:
        train: the data.
        policy: such as ``spinrl.SPIN()``.
        algorithm: such as ``spinrl.IQL()``.
        preset: quick, laptop, workstation or paper, as in ``gin/scale``; None takes the components as they are.
        seed: of weights, batches, dropout and sampled actions.
        callback: called with (gradient step, metrics) every `Training.report_every` steps; returning False ends the
            training there.
        checkpoint: a file to write every `Training.checkpoint_minutes`, and at the end. Where it is there already, the
            training goes on from it.
        asm: a pre-trained ASM, or the folder of one, in place of pre-training.
        training: budget and batches.
        pretraining: of the ASM.
        warm_start: imitation before training; None for none, and by default what the preset says.
        critic_start: of the critics before training; likewise.
        machine: device, precision, compilation, threads.
        progress: show bars with the time left, in a terminal or a notebook.

    Raises:
        UserError: when something given is wrong, or a loss is no longer finite, in one line.
    """
    _require("train", train, Dataset, "a Dataset, such as Dataset.from_file gives")
    _require("policy", policy, PolicyConfig, "a policy such as spinrl.SPIN()")
    _require("algorithm", algorithm, AlgorithmConfig, "an algorithm such as spinrl.IQL()")
    if preset is not None and preset not in PRESETS:
        raise UserError(f"preset must be {', '.join(PRESETS)} or None; found {preset!r}")
    given: dict[str, Component | None] = {"policy": policy, "algorithm": algorithm}
    own = {"pretraining": pretraining, "training": training, "machine": machine}
    given |= {name: component for name, component in own.items() if component is not None}
    starts = {"warm_start": warm_start, "critic_start": critic_start}
    given |= {name: start for name, start in starts.items() if not isinstance(start, str)}
    config = fill(Fit, PRESETS[preset] if preset else (), "Experiment", given)
    bars = Bars(progress)
    try:
        return _fit(config, train, seed, asm, Path(checkpoint) if checkpoint is not None else None, callback, bars)
    except ValueError as error:
        raise UserError(str(error)) from error
    finally:
        bars.close()


def _fit(
    config: Fit,
    train: Dataset,
    seed: int,
    asm: FrozenASM | str | Path | None,
    path: Path | None,
    callback: MetricsCallback | None,
    bars: Bars,
) -> TrainedPolicy:
    machine = config.machine.resolve()
    machine.apply()
    listener = Listener(bars, callback, lambda: trainer.stop())
    setup = TrainingSetup(
        policy=config.policy,
        algorithm=config.algorithm,
        training=config.training,
        standardized=config.standardize_observations,
        warm_start=config.warm_start,
        critic_start=config.critic_start,
        seed=seed,
    )
    frozen: FrozenASM | None = None
    if config.policy.needs_asm and asm is None:
        standardized = config.standardize_observations
        frozen = prepare_asm(config.pretraining, train.store, machine, listener, seed=seed, standardized=standardized)
    elif config.policy.needs_asm:
        frozen = asm if isinstance(asm, FrozenASM) else FrozenASM.load(Path(asm))  # type: ignore[arg-type]
        frozen.model.to(machine.device)
    trainer = FitTrainer(setup, train.store, frozen, machine, path)
    try:
        if path is None:
            _run(trainer, listener)
        else:
            with locked(path.absolute()):
                _run(trainer, listener)
    finally:
        for folder in trainer.private:
            shutil.rmtree(folder, ignore_errors=True)
    return TrainedPolicy(
        trainer.algorithm,
        policy=config.policy,
        encoder=frozen.model.config if frozen else None,
        asm_fingerprint=frozen.fingerprint if frozen else None,
        fitted_q=config.fitted_q,
        seed=seed,
        step=trainer.step,
        task=train.store.metadata.task,
        train=train,
    )


def _run(trainer: FitTrainer, report: Report) -> None:
    trainer.begin(report)
    steps = trainer.setup.training.gradient_steps
    if trainer.step < steps:
        trainer.advance(steps, report)
    trainer.save()


class FitTrainer(Trainer):
    """A training whose checkpoint knows what it is of."""

    def stop(self) -> None:
        """End the training at this report."""
        self.stopped = True

    @property
    def identity(self) -> str:
        """Fingerprint of everything that the numbers depend on."""
        setup = self.setup
        starts = {start.kind: to_plain(start) for start in (setup.warm_start, setup.critic_start) if start is not None}
        return fingerprint(
            {
                "policy": to_plain(setup.policy),
                "algorithm": to_plain(setup.algorithm),
                "training": to_plain(attrs.evolve(setup.training, report_every=1, checkpoint_minutes=1.0)),
                "starts": starts,
                "seed": setup.seed,
                "dataset": self.store.fingerprint,
                "standardized": setup.standardized,
                "asm": self.asm.fingerprint if self.asm else None,
            }
        )

    def state(self) -> dict[str, Any]:
        """Everything that resuming needs."""
        return super().state() | {"fit": self.identity}

    def take(self, state: dict[str, Any], report: Report) -> None:
        """Go on from the state of a checkpoint.

        Raises:
            UserError: when it is of another training.
        """
        if state.get("fit") != self.identity:
            raise UserError(
                f"checkpoint {self.path} is of a training with other data, configuration or seed; name another file, "
                "or delete it"
            )
        super().take(state, report)


def _require(name: str, value: Any, kind: type, expected: str) -> None:
    if not isinstance(value, kind):
        found = f"the class {value.__name__}" if isinstance(value, type) else " ".join(repr(value).split())[:80]
        raise UserError(f"{name} must be {expected}; found {found}")
