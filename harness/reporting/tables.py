"""The tables of a report: each a title and a data frame of text cells, for all formats of the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from harness.records import RETURN, metric_name, setting_name
from harness.reporting.cells import algorithm_title, bounded, counts, datasets_title, duration, number, percent
from harness.reporting.comparisons import (
    aggregate,
    by_asm_length,
    differences,
    improvement_matrix,
    strata,
)
from harness.reporting.estimates import agreement, remarks
from harness.reporting.returns import SECONDS, ReportMeta
from harness.reporting.statistics import (
    LINE,
    REFERENCE_POLICY,
    asymptotic,
    policy_order,
    shown_fractions,
    tier_by_policy,
    tier_order,
    time_to_target,
)

GROUP = ["preset", "metric", "algorithm"]  # never averaged over
SETTING_TITLE = ["task", "bins", *GROUP]
PAPER = " (paper)"  # suffix of a column with the paper's numbers
NamedTable = tuple[str, pd.DataFrame]


def setting_tables(summary: pd.DataFrame, interval: Callable[[Any], str]) -> Iterator[NamedTable]:
    """Tables for each task: returns, scores and shares over the budget, and times.

    Args:
        summary: table of `harness.reporting.statistics.summarize`.
        interval: formats a row's mean with its bounds.
    """
    for values, group in summary.groupby(SETTING_TITLE, sort=True):
        task, bins, *rest = values
        setting = f"{setting_name(task, bins)}, {algorithm_title(*rest)}"
        yield f"{setting}: mean return by share of the budget, {counts(group)}", _by_fraction(group, interval)
        if group["normalized"].notna().any():
            yield f"{setting}: normalized score", _by_fraction(group, lambda row: number(row.normalized))
        yield f"{setting}: share of the best full-budget return", _by_fraction(group, lambda row: percent(row.share))
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
                over = f"{datasets_title(scored)}, {counts(scored)}"
                title = f"{algorithm_title(*values)}: {what} by tier and policy ({over})"
                yield title, _matrix(tier_by_policy(scored, column))


def per_task_tables(summary: pd.DataFrame) -> Iterator[NamedTable]:
    """Return at the full budget on each dataset, a column a policy."""
    for values, group in summary.groupby(GROUP, sort=True):
        full = asymptotic(group)
        if full.empty:
            continue
        most = full["seeds"].max()
        cells = {
            (row.task, row.bins, row.tier, row.policy): bounded(row)
            + (f" ({row.seeds} of {most} seeds)" if row.seeds < most else "")
            for row in full.itertuples()
        }
        policies = sorted(full["policy"].unique(), key=policy_order)
        datasets = sorted({key[:3] for key in cells}, key=lambda key: (*key[:2], tier_order(key[2])))
        rows = [[*dataset, *(cells.get((*dataset, policy), "–") for policy in policies)] for dataset in datasets]
        title = f"{algorithm_title(*values)}: return at the full budget, {counts(full)}"
        yield title, pd.DataFrame(rows, columns=["task", "bins", "tier", *policies])


def difference_tables(table: pd.DataFrame) -> Iterator[NamedTable]:
    """Difference of each policy's return at the full budget to that of the reference policy.

    Args:
        table: table of returns as in `harness.records`.
    """
    for values, group in table.groupby(GROUP, sort=True):
        found = differences(group, REFERENCE_POLICY)
        if not found.empty:
            cells = found.map(lambda cell: "–" if cell is None else bounded(cell)).reset_index()
            cells["bins"] = cells["bins"].replace(0, "")
            yield f"{algorithm_title(*values)}: return at the full budget less that of {REFERENCE_POLICY}", cells


def aggregate_tables(runs: pd.DataFrame, measure: str) -> Iterator[NamedTable]:
    """Interquartile mean and mean of the normalised score over tasks and seeds.

    Args:
        runs: table of runs from `harness.reporting.comparisons`.
        measure: ``asymptotic`` or ``best_checkpoint``, as in `runs`.
    """
    name = {"asymptotic": "asymptotic score", "best_checkpoint": "score of the best checkpoint"}[measure]
    for values, group in runs.groupby(GROUP, sort=True):
        rows = [
            [row.tier, row.policy, row.datasets, row.runs, bounded(row.iqm), bounded(row.mean)]
            for row in aggregate(group, f"{measure}_score").itertuples()
        ]
        if rows:
            columns = ["tier", "policy", "datasets", "runs", f"{name}, IQM", f"{name}, mean"]
            yield f"{algorithm_title(*values)}: {name}", pd.DataFrame(rows, columns=columns)


def asm_length_tables(summary: pd.DataFrame, meta: ReportMeta) -> Iterator[NamedTable]:
    """Return at the full budget by the length of ASM pre-training, and as a share of the reference policy's.

    Policies without a length in their name come first, e.g. one whose ASM was masked in another way.
    """
    for values, group in summary.groupby(SETTING_TITLE, sort=True):
        task, bins, *rest = values
        lengths = by_asm_length(group, meta)
        if lengths.empty:
            continue
        full, rows = asymptotic(group), []
        for tier in sorted(lengths["tier"].unique(), key=tier_order):
            others = full[(full["tier"] == tier) & ~full["policy"].isin(lengths["policy"])]
            references = others.loc[others["policy"] == REFERENCE_POLICY, "mean"]
            reference = references.item() if len(references) else math.nan

            def measured(row: Any, reference: float = reference) -> list[str]:
                share = percent(100 * row.mean / reference if reference > 0 else math.nan)
                return [duration(row.asm_seconds or math.nan), bounded(row), share]

            for row in sorted(others.itertuples(), key=lambda row: policy_order(row.policy)):
                rows.append([row.policy, tier, "–", "–", *measured(row)])
            for row in lengths[lengths["tier"] == tier].sort_values(["base", "percent"]).itertuples():
                rows.append([row.base, tier, f"{row.percent:g}%", number(row.epochs), *measured(row)])
        columns = ["policy", "tier", "length", "epochs", "pre-training", "return", f"of {REFERENCE_POLICY}'s"]
        title = f"{setting_name(task, bins)}, {algorithm_title(*rest)}: return at the full budget by length"
        yield title, pd.DataFrame(rows, columns=columns)


def improvement_tables(runs: pd.DataFrame) -> Iterator[NamedTable]:
    """Probability that the row's policy does better than the column's, from two policies and two seeds on.

    Args:
        runs: table of `harness.reporting.comparisons.asymptotic_runs`.
    """
    for values, group in runs.groupby(GROUP, sort=True):
        samples = strata(group, "asymptotic_return")  # within a dataset, returns and scores have the same order
        if len(samples) < 2 or group["seed"].nunique() < 2:
            continue
        matrix = improvement_matrix(samples)
        rows = [
            [policy, *("" if cell is None else bounded(cell, 2) for cell in cells)]
            for policy, cells in zip(matrix.index, matrix.to_numpy(), strict=True)
        ]
        title = f"{algorithm_title(*values)}: probability that the row's policy does better than the column's"
        yield title, pd.DataFrame(rows, columns=["policy", *matrix.columns])


def estimate_tables(table: pd.DataFrame, summary: pd.DataFrame) -> Iterator[NamedTable]:
    """Estimates from data alone, what they do not say, and how well they know the returns if there are both.

    Args:
        table: table of returns as in `harness.records`, with returns and estimates.
        summary: table of `harness.reporting.statistics.summarize` for it.
    """
    for values, group in summary[summary["metric"] != RETURN].groupby(SETTING_TITLE, sort=True):
        task, bins, *rest = values
        title = f"{setting_name(task, bins)}, {algorithm_title(*rest)}, {counts(group).partition(' of ')[0]}"
        yield title, _by_fraction(group, lambda row: "withheld" if math.isnan(row.mean) else bounded(row, 2))
    if len(unsaid := remarks(table)):
        rows = [
            [row.task, row.bins, row.tier, metric_name(row.metric), row.policy, f"{row.withheld} of {row.estimates}",
             row.remark]
            for row in unsaid.itertuples()
        ]  # fmt: skip
        columns = ["task", "bins", "tier", "estimate", "policy", "withheld", "because"]
        yield "What the estimates do not say, and what they suffer from", pd.DataFrame(rows, columns=columns)
    rows = [
        [row.task, row.bins, row.tier, metric_name(row.metric), f"{row.points} of {row.points + row.withheld}",
         bounded(row.tau, 2), bounded(row.rho, 2), percent(row.regret), percent(row.covered), number(row.error, 2),
         number(row.minutes, 2)]
        for row in agreement(table).itertuples()
    ]  # fmt: skip
    columns = [
        "task", "bins", "tier", "estimate", "policies", "Kendall's τ", "Spearman's ρ", "regret", "covered", "error",
        "minutes",
    ]  # fmt: skip
    if rows:
        yield "Estimates against discounted returns", pd.DataFrame(rows, columns=columns)


def text_columns(rows: pd.DataFrame) -> int:
    """Number of columns, from the left, that identify a row."""
    naming = ("policy", "tier", "task", "bins", "dataset", "algorithm", "estimate", "because", "ASM", "sees")
    return sum(str(column) in naming for column in rows.columns)


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
    spent = dict(zip(("pre-training", "starts", "training", "evaluation"), SECONDS, strict=True))
    if not group["start_seconds"].any():
        del spent["starts"]
    rows = []
    for (policy, tier), line in _lines(group):
        target = targets.loc[tuple(line.iloc[0][list(LINE)])]
        last = line.sort_values("gradient_step").iloc[-1]
        seconds = (duration(last[column]) for column in spent.values())
        rows.append([policy, tier, *seconds, number(target["target"]), duration(target["seconds"])])
    return pd.DataFrame(rows, columns=["policy", "tier", *spent, "target", "reached in"])


def _matrix(matrix: pd.DataFrame) -> pd.DataFrame:
    rows = [
        [tier, *(number(value) for value in row)] for tier, row in zip(matrix.index, matrix.to_numpy(), strict=True)
    ]
    return pd.DataFrame(rows, columns=["tier", *matrix.columns])


def _lines(group: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    lines = [((str(policy), str(tier)), line) for (policy, tier), line in group.groupby(["policy", "tier"])]
    return sorted(lines, key=lambda item: (policy_order(item[0][0]), tier_order(item[0][1])))
