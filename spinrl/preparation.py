"""What comes before a training, told as events: its ASM, and the starts of policy and critics."""

from __future__ import annotations

from typing import Any

from spinrl.algorithms import Algorithm, SupervisedStart
from spinrl.asm import ASMSource, Curve, FrozenASM, pretrained_asm
from spinrl.data import ReplayLoader, Store
from spinrl.events import STARTS, ASMReady, Fault, Metrics, Report, StartReady, Waiting, stage_progress
from spinrl.machine import ResolvedMachine


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
        loader.buffer.__getitem__,
        seed=seed,
        policy=policy,
        standardized=standardized,
        progress=progress,
        on_wait=lambda path: report(Waiting(path)),
        on_damage=lambda message: report(Fault(message)),
    )
    report(StartReady(start.kind, started.seconds, metrics_of(started.curve)))
    return started.seconds


def metrics_of(curve: Curve) -> tuple[Metrics, ...]:
    """A stored curve as the events that made it."""
    return tuple(Metrics(step, values) for step, values in curve)
