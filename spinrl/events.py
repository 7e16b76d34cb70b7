"""What a training tells while it goes on, in the order in which it happens.

Events are small and can be pickled, so that a training may run in another process, or on another machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

Report = Callable[[Any], None]  # takes an event: one of these, or of whoever reports more
STARTS = {"warm_start": "imitating", "critic_start": "starting critics"}  # stages, by the kind of start


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
class Fault:
    """Something cannot be read, and is made again from what is sound, or not be written, and is done without.

    The message names it.
    """

    message: str


@attrs.frozen
class Notice:
    """Something that whoever reads the training's numbers should know, in one line."""

    message: str


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
