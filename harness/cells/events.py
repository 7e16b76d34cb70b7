"""What a cell tells while it runs: what its training tells (`spinrl.events`), and what a cell has besides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from harness.records import Evaluation
from spinrl.events import (
    ASMReady,
    Fault,
    FeaturesReady,
    Metrics,
    Notice,
    StageProgress,
    StageStarted,
    StartReady,
    Waiting,
)


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
class Evaluated:
    """An evaluation is done."""

    evaluation: Evaluation


@attrs.frozen
class Pictured:
    """The strip of the last evaluation's first episode.

    Attributes:
        png: eight pictures side by side, as a PNG file has them.
    """

    png: bytes = attrs.field(repr=False)


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
    | Pictured
    | Trained
)
Report = Callable[[Event], None]
