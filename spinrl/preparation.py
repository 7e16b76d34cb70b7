"""What comes before a training, told as events: its ASM, starts of policy and critics, and features."""

from __future__ import annotations

from typing import Any

from spinrl.algorithms import Algorithm, SupervisedStart
from spinrl.asm import ASMSource, Curve, FrozenASM, pretrained_asm
from spinrl.data import ReplayLoader, RowFeatures, Store, row_features
from spinrl.events import STARTS, ASMReady, Fault, FeaturesReady, Metrics, Report, StartReady, Waiting, stage_progress
from spinrl.machine import ResolvedMachine
from spinrl.policies import FrozenInput


def prepare_asm(
    source: ASMSource, store: Store, machine: ResolvedMachine, report: Report, *, seed: int, standardized: bool
) -> FrozenASM:
    """The frozen ASM of a dataset and seed: from the cache where it is, else pre-trained.

    Args:
        source: how it comes about.
        store: what it is pre-trained on.
        machine: device and precision.
        report: told of its progress, and that it is there.
        seed: the training's.
        standardized: whether networks see observations in the dataset's standard units.

    Raises:
        ASMError, CheckpointError: in one line each.
    """
    total = source.total_steps(len(store))
    tell = stage_progress(report, "pre-training", "steps")

    def progress(step: int, values: dict[str, float]) -> None:
        tell(step, total)
        report(Metrics(step, values))

    def resumed(curve: Curve) -> None:
        for each in metrics_of(curve):
            report(each)

    asm = pretrained_asm(
        source,
        store,
        seed=seed,
        machine=machine,
        standardized=standardized,
        progress=progress,
        on_resume=resumed,
        on_wait=lambda path: report(Waiting(path)),
        on_damage=lambda message: report(Fault(message)),
    )
    report(ASMReady(asm.fingerprint, asm.seconds, metrics_of(asm.curve)))
    return asm


def make_start(
    start: SupervisedStart,
    algorithm: Algorithm,
    store: Store,
    loader: ReplayLoader,
    report: Report,
    *,
    seed: int,
    policy: dict[str, Any],
    standardized: bool,
) -> float:
    """Give the networks of an algorithm one start; the seconds that it once took.

    Args:
        start: imitation, or a start of the critics.
        algorithm: whose networks change.
        store: the dataset.
        loader: of its batches.
        report: told of its progress, and that it is made.
        seed: the training's.
        policy: the policy as plain data, and the fingerprint of its ASM.
        standardized: as for `prepare_asm`.

    Raises:
        DivergedError, CheckpointError, StoreError: in one line each.
    """
    tell = stage_progress(report, STARTS[start.kind], "steps")

    def progress(step: int, values: dict[str, float]) -> None:
        tell(step, start.steps)
        report(Metrics(step, values))

    started = start.make(
        algorithm,
        store,
        loader.gather,
        seed=seed,
        policy=policy,
        standardized=standardized,
        progress=progress,
        on_wait=lambda path: report(Waiting(path)),
        on_damage=lambda message: report(Fault(message)),
    )
    report(StartReady(start.kind, started.seconds, metrics_of(started.curve)))
    return started.seconds


def prepare_features(frozen: FrozenInput, store: Store, machine: ResolvedMachine, report: Report) -> RowFeatures:
    """What the frozen part of a policy makes of every observation: from the cache, else computed.

    In fp32 whatever the precision of the training: those in the cache serve runs of any.

    Raises:
        StoreError: in one line.
    """
    features = row_features(
        store,
        frozen.encode,
        frozen.shape,
        frozen.identity,
        device=machine.device,
        progress=stage_progress(report, "embedding", "observations"),
        on_wait=lambda path: report(Waiting(path)),
        on_damage=lambda message: report(Fault(message)),
    )
    report(FeaturesReady(features.seconds, features.num_bytes))
    return features


def metrics_of(curve: Curve) -> tuple[Metrics, ...]:
    """A stored curve as the events that made it."""
    return tuple(Metrics(step, values) for step, values in curve)
