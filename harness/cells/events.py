"""What a cell tells while it runs, in the order in which it happens.

Events are small and can be pickled, so that a cell may run in another process, or on another machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from harness.records import Evaluation


@attrs.frozen
class StageStarted:
    """A stage begins: collecting (or importing), pre-training, embedding, imitating, starting critics, training,
    evaluating or estimating.
    """

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
class StartReady:
    """The policy (by imitation) or the critics have their start, made now or found in the cache.

    Attributes:
        kind: of start: warm_start or critic_start.
        seconds: that it once took.
        curve: of its losses.
    """

    kind: str
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
    | StartReady
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
STARTS = {"warm_start": "imitating", "critic_start": "starting critics"}  # stages, by the kind of start


def stage_progress(report: Report, stage: str, unit: str) -> Callable[[int, int], None]:
    """A `progress(done, total)` that tells of the stage when it is first called, and again when its total changes."""
    started = 0

    def progress(done: int, total: int) -> None:
        nonlocal started
        if started != total:  # a tier may collect several sources, one after another
            report(StageStarted(stage, total, unit))
            started = total
        report(StageProgress(done))

    return progress
