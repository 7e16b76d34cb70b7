"""Numbers and titles as text, for the tables of a report."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from harness.records import RETURN, metric_name, setting_name
from harness.reporting.statistics import Interval

EPISODES = " episodes"  # ends a cell whose interval is over the episodes of a single seed


def number(value: float, digits: int | None = None) -> str:
    """A number with decimals by its size, or a dash for NaN."""
    if math.isinf(value):
        return "never"  # only times are infinite
    digits = max(1, decimals(value)) if digits is None else digits
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def bounded(interval: Interval | Any, digits: int | None = None) -> str:
    """An `Interval`, or a row of the summary, with its bounds; one over episodes says so."""
    value = interval.value if isinstance(interval, Interval) else interval.mean
    low, high = interval.low, interval.high
    if math.isnan(low):
        return number(value, digits)
    fewer = decimals(value, low, high) if digits is None else digits
    text = f"{value:.{max(fewer, 1) if digits is None else digits}f} [{low:.{fewer}f}, {high:.{fewer}f}]"
    return text + EPISODES * (interval.over == "episodes")


def half_width(row: Any) -> str:
    """The mean of a row of the summary with half the width of its interval; ``e`` marks one over episodes."""
    digits = decimals(row.mean, row.low, row.high)
    value = f"{row.mean:.{digits}f}"
    if math.isnan(row.low):
        return value
    return f"{value}±{(row.high - row.low) / 2:.{digits}f}{'e' * (row.over == 'episodes')}"


def decimals(*values: float) -> int:
    """Decimals for an interval by its largest value: none from 10 on, two below 1."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 0 if largest >= 10 or largest == 0 else 1 if largest >= 1 else 2


def percent(value: float) -> str:
    """A share in percent; two decimals below 1, as the paper writes 0.37%."""
    return "–" if math.isnan(value) else f"{value:.{2 if abs(value) < 1 else 1}f}%"


def duration(seconds: float) -> str:
    """Seconds, or minutes from two minutes on."""
    if not math.isfinite(seconds):
        return number(seconds)
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def algorithm_title(preset: str, metric: str, algorithm: str) -> str:
    """The settings over which nothing is averaged (algorithm, preset, metric), in words."""
    return f"{algorithm.upper()}, {preset} preset" + ("" if metric == RETURN else f", {metric_name(metric)}")


def datasets_title(group: pd.DataFrame) -> str:
    """The tasks and numbers of bins in a group of rows, in words."""
    settings = list(group[["task", "bins"]].drop_duplicates().itertuples(index=False, name=None))
    if len({bins for _, bins in settings}) == 1:
        return setting_name(", ".join(task for task, _ in settings), settings[0][1])
    return ", ".join(setting_name(task, bins) for task, bins in settings)


def counts(group: pd.DataFrame) -> str:
    """Number of seeds, and of evaluation episodes of each, behind the rows of a summary."""
    parts = []
    for numbers, name in ((group["seeds"], "seed"), (group["episodes"] // group["seeds"], "episode")):
        low, high = int(numbers.min()), int(numbers.max())
        parts.append(f"{low if low == high else f'{low} to {high}'} {name}{'' if high == 1 else 's'}")
    return f"{parts[0]} of {parts[1]}"
