"""The tables of a report, as text: each a title and a data frame of cells, for any of the report's forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from harness.records import RETURN, metric_name, setting_name
from harness.reporting import paper_numbers
from harness.reporting.comparisons import (
    aggregate,
    agreement,
    by_asm_length,
    early_share,
    improvement_matrix,
    minutes_to_target,
    per_task,
    strata,
)
from harness.reporting.returns import ReportMeta
from harness.reporting.statistics import (
    LINE,
    REFERENCE_POLICY,
    Interval,
    asymptotic,
    policy_order,
    shown_fractions,
    tier_by_policy,
    tier_order,
    time_to_target,
)

GROUP = ["preset", "metric", "algorithm"]  # never averaged over
SETTING_TITLE = ["task", "bins", *GROUP]
PAPER = " (paper)"  # ends the name of a column with the paper's numbers
_COMBINED = (("average", "mean"), ("total", "sum"))  # last rows of the paper's tables
NamedTable = tuple[str, pd.DataFrame]


def setting_tables(summary: pd.DataFrame, interval: Callable[[Any], str]) -> Iterator[NamedTable]:
    """What there is for each task: returns, scores and shares over the budget, and times.

    Args:
        summary: of `harness.reporting.statistics.summarize`.
        interval: writes a row's mean with its bounds.
    """
    for values, group in summary.groupby(SETTING_TITLE, sort=True):
        task, bins, *rest = values
        setting = f"{setting_name(task, bins)}, {algorithm_title(*rest)}"
        yield f"{setting}: mean return by share of the budget, {_counts(group)}", _by_fraction(group, interval)
        if group["normalized"].notna().any():
            yield f"{setting}: normalized score", _by_fraction(group, lambda row: number(row.normalized))
        yield f"{setting}: share of the best full-budget return", _by_fraction(group, lambda row: _percent(row.share))
        yield f"{setting}: seconds spent, and time to target", _times(group)


def matrix_tables(summary: pd.DataFrame) -> Iterator[NamedTable]:
    """Return and score at the full budget by tier and policy, averaged over tasks."""
    for values, group in summary.groupby(GROUP, sort=True):
        if group["policy"].nunique() < 2 and group["tier"].nunique() < 2:
            continue
        full = asymptotic(group)
        for column, what in (("mean", "return at the full budget"), ("normalized", "normalized score")):
            scored = full[full[column].notna()]
            if len(scored):
                over = f"{_datasets(scored)}, {_counts(scored)}"
                title = f"{algorithm_title(*values)}: {what} by tier and policy ({over})"
                yield title, _matrix(tier_by_policy(scored, column))


def paper_tables(summary: pd.DataFrame) -> Iterator[NamedTable]:
    """The paper's tables with our numbers and then the paper's; an average is ours only where nothing is missing.

    They are of the paper's algorithm, and of simulated returns, alone.
    """
    chosen = summary[(summary["metric"] == RETURN) & (summary["algorithm"] == paper_numbers.ALGORITHM)]
    for values, group in chosen.groupby(GROUP, sort=True):
        standard = group[group["bins"] == paper_numbers.BINS]
        title = algorithm_title(*values)
        dog = group[
            (group["task"] == paper_numbers.CARDINALITY_TASK) & (group["tier"] == paper_numbers.CARDINALITY_TIER)
        ]
        if dog["bins"].nunique() > 1:
            yield from _cardinality_tables(dog, title)
            # The paper's other tables are over tasks, and this one is over the bins of one.
            standard = standard.drop(index=dog.index, errors="ignore")
        full = asymptotic(standard)
        over = f"ours over {_datasets(full)}, {_counts(full)}" if len(full) else "ours of none yet"
        returns = tier_by_policy(standard).drop(index="average", errors="ignore")
        if returns.notna().any(axis=None):
            yield f"{title}: return by tier ({over})", _beside(returns, paper_numbers.RETURNS, "tier")
        minutes = minutes_to_target(standard)
        if minutes.notna().any(axis=None):
            yield f"{title}: minutes to target ({over})", _beside(minutes, paper_numbers.MINUTES, "tier")
        shares = early_share(standard)
        if shares.notna().any(axis=None):
            percent = f"{100 * paper_numbers.EARLY_FRACTION:g}%"
            table = _beside(shares, paper_numbers.SHARE_OF_BEST, "task", _percent)
            yield f"{title}: return at {percent} of the budget, as a share of the best at the full budget", table


def _cardinality_tables(dog: pd.DataFrame, title: str) -> Iterator[NamedTable]:
    """Return and minutes on one tier of dog, by how many choices each of its sub-actions has."""
    of = f"on {paper_numbers.CARDINALITY_TASK}, {paper_numbers.CARDINALITY_TIER}, by bins"
    for what, ours, paper in (
        ("return", per_task(dog).groupby(level="bins").first(), paper_numbers.CARDINALITY),
        ("minutes to target", minutes_to_target(dog, by="bins"), paper_numbers.CARDINALITY_MINUTES),
    ):
        if ours.notna().any(axis=None):
            yield f"{title}: {what} {of}", _beside(ours, paper, "bins")


def per_task_tables(summary: pd.DataFrame) -> Iterator[NamedTable]:
    """Return at the full budget on each dataset, a column a policy."""
    for values, group in summary.groupby(GROUP, sort=True):
        full = asymptotic(group)
        if full.empty:
            continue
        parts = [per_task(full, column) for column in ("mean", "low", "high", "seeds")]
        means, most = parts[0], float(full["seeds"].max())

        def cell(mean: float, low: float, high: float, seeds: float, most: float = most) -> str:
            few = f" ({seeds:.0f} of {most:.0f} seeds)" if seeds < most else ""
            return _bounded(Interval(mean, low, high)) + few

        rows = [
            [*dataset, *(cell(*numbers) for numbers in zip(*row, strict=True))]
            for dataset, *row in zip(means.index, *(part.to_numpy() for part in parts), strict=True)
        ]
        columns = ["task", "bins", "tier", *means.columns]
        title = f"{algorithm_title(*values)}: return at the full budget, {_counts(full)}"
        yield title, pd.DataFrame(rows, columns=columns)


def aggregate_tables(runs: pd.DataFrame, measure: str) -> Iterator[NamedTable]:
    """Interquartile mean and mean of the normalised score over tasks and seeds.

    Args:
        runs: of `harness.reporting.comparisons`.
        measure: ``asymptotic`` or ``best_checkpoint``, whichever `runs` is of.
    """
    name = {"asymptotic": "asymptotic score", "best_checkpoint": "score of the best checkpoint"}[measure]
    for values, group in runs.groupby(GROUP, sort=True):
        rows = [
            [row.tier, row.policy, row.datasets, row.runs, _bounded(row.iqm), _bounded(row.mean)]
            for row in aggregate(group, f"{measure}_score").itertuples()
        ]
        if rows:
            columns = ["tier", "policy", "datasets", "runs", f"{name}, IQM", f"{name}, mean"]
            yield f"{algorithm_title(*values)}: {name}", pd.DataFrame(rows, columns=columns)


def asm_length_tables(summary: pd.DataFrame, meta: ReportMeta) -> Iterator[NamedTable]:
    """Return at the full budget by the length of ASM pre-training, and as a share of the reference policy's."""
    for values, group in summary.groupby(SETTING_TITLE, sort=True):
        task, bins, *rest = values
        lengths = by_asm_length(group, meta)
        if lengths.empty:
            continue
        full = asymptotic(group)
        references = {row.tier: row for row in full[full["policy"] == REFERENCE_POLICY].itertuples()}
        rows = []
        for tier in sorted(lengths["tier"].unique(), key=tier_order):
            reference = references[tier].mean if tier in references else float("nan")
            if tier in references:
                rows.append([REFERENCE_POLICY, tier, "–", "–", "–", bounded(references[tier]), _percent(100.0)])
            for row in lengths[lengths["tier"] == tier].sort_values(["base", "percent"]).itertuples():
                share = _percent(100 * row.mean / reference if reference > 0 else math.nan)
                length, epochs = f"{row.percent:g}%", number(row.epochs)
                rows.append([row.base, tier, length, epochs, _seconds(row.asm_seconds), bounded(row), share])
        columns = ["policy", "tier", "length", "epochs", "pre-training", "return", f"of {REFERENCE_POLICY}'s"]
        title = f"{setting_name(task, bins)}, {algorithm_title(*rest)}: return at the full budget by length"
        yield title, pd.DataFrame(rows, columns=columns)


def improvement_tables(runs: pd.DataFrame) -> Iterator[NamedTable]:
    """Probability that the row's policy does better than the column's, given two policies and two seeds.

    Args:
        runs: of `harness.reporting.comparisons.asymptotic_runs`.
    """
    for values, group in runs.groupby(GROUP, sort=True):
        samples = strata(group, "asymptotic_return")  # within a dataset, returns and scores have the same order
        if len(samples) < 2 or group["seed"].nunique() < 2:
            continue
        matrix = improvement_matrix(samples)
        rows = [
            [policy, *("" if cell is None else _bounded(cell, 2) for cell in cells)]
            for policy, cells in zip(matrix.index, matrix.to_numpy(), strict=True)
        ]
        title = f"{algorithm_title(*values)}: probability that the row's policy does better than the column's"
        yield title, pd.DataFrame(rows, columns=["policy", *matrix.columns])


def estimate_tables(summary: pd.DataFrame) -> Iterator[NamedTable]:
    """What was estimated without a simulator, and how that orders the policies where there are returns as well.

    Args:
        summary: of `harness.reporting.statistics.summarize`, with returns and estimates.
    """
    for values, group in summary[summary["metric"] != RETURN].groupby(SETTING_TITLE, sort=True):
        task, bins, *rest = values
        title = f"{setting_name(task, bins)}, {algorithm_title(*rest)}, {_counts(group)}"
        yield title, _by_fraction(group, lambda row: _bounded(Interval(row.mean, row.low, row.high), 2))
    compared = agreement(summary)
    if not compared.empty:
        rows = [
            [row.task, row.bins, row.tier, row.algorithm, metric_name(row.metric), row.policies,
             number(row.tau, 2), number(row.regret)]
            for row in compared.itertuples()
        ]  # fmt: skip
        columns = ["task", "bins", "tier", "algorithm", "estimate", "policies", "Kendall's τ", "regret"]
        yield "Order of the policies by estimate and by return", pd.DataFrame(rows, columns=columns)


def text_columns(rows: pd.DataFrame) -> int:
    """How many columns, from the left, name what a row is of."""
    naming = ("policy", "tier", "task", "bins", "algorithm", "estimate", "ASM", "sees")
    return sum(str(column) in naming for column in rows.columns)


def algorithm_title(preset: str, metric: str, algorithm: str) -> str:
    """What is never averaged over, in words."""
    return f"{algorithm.upper()}, {preset} preset" + ("" if metric == RETURN else f", {metric_name(metric)}")


def bounded(row: Any) -> str:
    """The mean of a row of the summary with its bounds."""
    return _bounded(Interval(row.mean, row.low, row.high))


def half_width(row: Any) -> str:
    """The mean of a row of the summary with half the width of its interval."""
    digits = decimals(row.mean, row.low, row.high)
    value = f"{row.mean:.{digits}f}"
    return value if math.isnan(row.low) else f"{value}±{(row.high - row.low) / 2:.{digits}f}"


def _bounded(interval: Interval, digits: int | None = None) -> str:
    fewer = decimals(interval.value, interval.low, interval.high) if digits is None else digits
    if math.isnan(interval.low):
        return number(interval.value, digits)
    return f"{interval.value:.{max(fewer, 1)}f} [{interval.low:.{fewer}f}, {interval.high:.{fewer}f}]"


def decimals(*values: float) -> int:
    """Of an interval, so that returns of a thousand are not written as exact, nor a success of 0.6 as 1."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 0 if largest >= 10 or largest == 0 else 1 if largest >= 1 else 2


def _datasets(group: pd.DataFrame) -> str:
    settings = list(group[["task", "bins"]].drop_duplicates().itertuples(index=False, name=None))
    if len({bins for _, bins in settings}) == 1:
        return setting_name(", ".join(task for task, _ in settings), settings[0][1])
    return ", ".join(setting_name(task, bins) for task, bins in settings)


def _counts(group: pd.DataFrame) -> str:
    """How many seeds, and evaluation episodes of each, are behind the numbers."""
    parts = []
    for numbers, name in ((group["seeds"], "seed"), (group["episodes"] // group["seeds"], "episode")):
        low, high = int(numbers.min()), int(numbers.max())
        parts.append(f"{low if low == high else f'{low} to {high}'} {name}{'' if high == 1 else 's'}")
    return f"{parts[0]} of {parts[1]}"


def _beside(
    ours: pd.DataFrame, paper: pd.DataFrame, name: str, cell: Callable[[float], str] | None = None
) -> pd.DataFrame:
    """Rows and the four policies of `paper`, and whatever else `ours` has; `ours` to the left, `paper` to the right.

    A last row of `paper` that is an average or total is made for ours from the paper's other rows.
    """
    cell = cell or number
    labels = [label for label in paper.index if label not in ("average", "total")]
    combined = {label: ours.reindex(labels).agg(how, skipna=False) for label, how in _COMBINED if label in paper.index}
    shown = ours.reindex([*labels, *(label for label in ours.index if label not in labels)])
    shown = pd.concat([shown, pd.DataFrame(combined).T]) if combined else shown
    both = shown.join(paper.add_suffix(PAPER))
    rows = [[label, *map(cell, values)] for label, values in zip(both.index, both.to_numpy(dtype=float), strict=True)]
    return pd.DataFrame(rows, columns=[name, *both.columns])


def _by_fraction(group: pd.DataFrame, cell: Callable[[Any], str]) -> pd.DataFrame:
    fractions = shown_fractions(group)
    rows = []
    for (policy, tier), line in _lines(group):
        at = {row.fraction: row for row in line.itertuples()}
        cells = [cell(at[fraction]) if fraction in at else "–" for fraction in fractions]
        rows.append([policy, tier, *cells])
    names = [f"{100 * fraction:g}%" for fraction in fractions]
    return pd.DataFrame(rows, columns=["policy", "tier", *names])


def _times(group: pd.DataFrame) -> pd.DataFrame:
    targets = time_to_target(group).set_index(list(LINE))
    rows = []
    for (policy, tier), line in _lines(group):
        target = targets.loc[tuple(line.iloc[0][list(LINE)])]
        last = line.sort_values("gradient_step").iloc[-1]
        rows.append(
            [
                policy,
                tier,
                *(_seconds(last[name]) for name in ("asm_seconds", "train_seconds", "evaluation_seconds")),
                number(target["target"]),
                _seconds(target["seconds"]),
            ]
        )
    return pd.DataFrame(
        rows, columns=["policy", "tier", "pre-training", "training", "evaluation", "target", "reached in"]
    )


def _matrix(matrix: pd.DataFrame) -> pd.DataFrame:
    rows = [
        [tier, *(number(value) for value in row)] for tier, row in zip(matrix.index, matrix.to_numpy(), strict=True)
    ]
    return pd.DataFrame(rows, columns=["tier", *matrix.columns])


def _lines(group: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    lines = [((str(policy), str(tier)), line) for (policy, tier), line in group.groupby(["policy", "tier"])]
    return sorted(lines, key=lambda item: (policy_order(item[0][0]), tier_order(item[0][1])))


def number(value: float, digits: int | None = None) -> str:
    """A number with as many decimals as its size asks for, or a dash where there is none."""
    if math.isinf(value):
        return "never"  # only times are infinite
    digits = max(1, decimals(value)) if digits is None else digits
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.{2 if abs(value) < 1 else 1}f}%"  # as the paper writes 0.37%


def _seconds(value: float) -> str:
    if not math.isfinite(value):
        return number(value)
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"
