"""The paper's tables with this project's numbers to the left of the paper's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import pandas as pd

from harness.records import RETURN
from harness.reporting import paper_numbers
from harness.reporting.cells import algorithm_title, counts, datasets_title, number, percent
from harness.reporting.comparisons import early_share, per_task, targets
from harness.reporting.statistics import asymptotic, tier_by_policy
from harness.reporting.tables import GROUP, PAPER, NamedTable

_COMBINED = (("average", "mean"), ("total", "sum"))  # last rows of the paper's tables


def paper_tables(summary: pd.DataFrame) -> Iterator[NamedTable]:
    """The paper's tables with our numbers and then the paper's; our average is given only if no row is missing.

    They hold simulated returns under the paper's main algorithm (IQL) only, and every policy of the study.
    """
    chosen = summary[(summary["metric"] == RETURN) & (summary["algorithm"] == paper_numbers.ALGORITHM)]
    for values, group in chosen.groupby(GROUP, sort=True):
        standard = group[group["bins"] == paper_numbers.BINS]
        title = algorithm_title(*values)
        dog = group[
            (group["task"] == paper_numbers.CARDINALITY_TASK) & (group["tier"] == paper_numbers.CARDINALITY_TIER)
        ]
        if dog["bins"].nunique() > 1:
            returns = per_task(dog).groupby(level="bins").first()
            yield from _returns(returns, paper_numbers.CARDINALITY, f"{title}: return on dog-trot, by bins", "bins")
            yield from _time_tables(dog, f"{title}, dog-trot", paper_numbers.CARDINALITY_MINUTES, "bins")
            # The paper's other tables are over tasks, and this one is over the bins of one.
            standard = standard.drop(index=dog.index, errors="ignore")
        full = asymptotic(standard)
        if full.empty:
            continue
        over = f"ours over {datasets_title(full)}, {counts(full)}"
        returns = tier_by_policy(standard).drop(index="average", errors="ignore")
        yield from _returns(returns, paper_numbers.RETURNS, f"{title}: return by tier ({over})", "tier")
        yield from _time_tables(standard, title, paper_numbers.MINUTES, "tier")
        yield from _early_tables(standard, title)


def _returns(returns: pd.DataFrame, paper: pd.DataFrame, title: str, by: str) -> Iterator[NamedTable]:
    if returns.notna().any(axis=None):
        yield title, _beside(returns, paper, by)


def _time_tables(
    rows: pd.DataFrame, title: str, paper: pd.DataFrame, by: Literal["tier", "bins"]
) -> Iterator[NamedTable]:
    """Number of datasets on which the target was reached, and the restricted mean of the minutes."""
    times = targets(rows, by)
    if not times.reached.notna().any(axis=None):
        return
    found = times.reached.map(lambda count: "–" if pd.isna(count) else f"{count:.0f} of {times.datasets}")
    yield f"{title}: datasets on which the target was reached", found.rename_axis(by).reset_index()
    restricted = f"mean minutes to target, a dataset not reached counted as {times.longest:.1f}, the longest training"
    yield f"{title}: {restricted}", _beside(times.minutes, paper, by)


def _early_tables(rows: pd.DataFrame, title: str) -> Iterator[NamedTable]:
    """Returns early in the budget as shares of the best: over all tiers, and on expert data alone."""
    tiers = sorted(rows["tier"].unique())
    expert = rows[rows["tier"] == "expert"]
    for chosen, which in ((rows, f"{len(tiers)} tiers"), (expert, "expert tier alone")):
        if (len(tiers) == 1 and chosen is expert) or chosen.empty:
            continue
        shares = early_share(chosen)
        if shares.notna().any(axis=None):
            of = f"mean over datasets of the ratio to the best asymptotic return, {which}"
            early = f"{100 * paper_numbers.EARLY_FRACTION:g}%"
            table = _beside(shares, paper_numbers.SHARE_OF_BEST, "task", percent)
            yield f"{title}: return at {early} of the budget ({of})", table


def _beside(ours: pd.DataFrame, paper: pd.DataFrame, name: str, cell: Callable[[float], str] = number) -> pd.DataFrame:
    """Rows and policies of `paper` and further policies of `ours`; `ours` to the left, `paper` to the right.

    If the last row of `paper` is an average or total, ours is computed over the paper's other rows.
    """
    labels = [label for label in paper.index if label not in ("average", "total")]
    combined = {label: ours.reindex(labels).agg(how, skipna=False) for label, how in _COMBINED if label in paper.index}
    shown = ours.reindex([*labels, *(label for label in ours.index if label not in labels)])
    shown = pd.concat([shown, pd.DataFrame(combined).T]) if combined else shown
    both = shown.join(paper.add_suffix(PAPER))
    rows = [[label, *map(cell, values)] for label, values in zip(both.index, both.to_numpy(dtype=float), strict=True)]
    return pd.DataFrame(rows, columns=[name, *both.columns])
