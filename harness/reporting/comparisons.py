"""Comparisons of policies over tasks and seeds, as pure functions of the table in `harness.records`.

A *run* is a line with one seed, a *dataset* a task with its bins and tier. Datasets are the strata and seeds the units
of every interval, as in Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
What is measured at the full budget is called asymptotic, what is measured at the best evaluation on the way
best-checkpoint: they come from two functions, under different column names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from harness.records import RETURN
from harness.reporting.paper_numbers import EARLY_FRACTION
from harness.reporting.returns import ReportMeta
from harness.reporting.statistics import (
    LINE,
    Interval,
    asymptotic,
    bootstrap_interval,
    mean_over,
    normalized_score,
    policy_order,
    tier_order,
    time_to_target,
)

DATASET = ("task", "bins", "tier")
RUN = (*LINE, "seed")
ALL_TIERS = "all tiers"
_ASM_LENGTH = r"^(?P<base>.+)-asm-(?P<percent>\d+(?:\.\d+)?)%$"  # as gin/experiments/asm_epochs.gin names its policies


def asymptotic_runs(table: pd.DataFrame, meta: ReportMeta) -> pd.DataFrame:
    """One row for each run that got to the full budget, with what its policy did there.

    Columns: `RUN`, ``asymptotic_return`` (mean over episodes), ``asymptotic_score`` (NaN without reference return).
    """
    runs = asymptotic(_evaluations(table)).rename(columns={"return": "asymptotic_return"})
    return _scored(runs, meta, "asymptotic").drop(columns="fraction").reset_index(drop=True)


def best_checkpoint_runs(table: pd.DataFrame, meta: ReportMeta) -> pd.DataFrame:
    """One row for each run that got to the full budget, with its best evaluation, at whatever share of it that was.

    The best is chosen by the very episodes that it is then judged by, so it flatters, and more so the more evaluations
    there are.

    Columns: `RUN`, ``fraction`` (of the best evaluation), ``best_checkpoint_return``, ``best_checkpoint_score``.
    """
    evaluations = _evaluations(table)
    finished = evaluations.groupby(list(RUN))["fraction"].transform("max") >= 1.0
    best = evaluations[finished].sort_values("return", ascending=False, kind="stable").groupby(list(RUN)).head(1)
    runs = best.rename(columns={"return": "best_checkpoint_return"}).sort_values(list(RUN))
    return _scored(runs, meta, "best_checkpoint").reset_index(drop=True)


def strata(runs: pd.DataFrame, column: str) -> dict[str, list[np.ndarray]]:
    """`column` of each policy's seeds, an array a dataset; the datasets are in the same order for all policies.

    Args:
        runs: of `asymptotic_runs` or `best_checkpoint_runs`, all of one preset, metric and algorithm.
        column: one of theirs. Datasets where it is NaN for every run, for want of a reference return, are left out.

    A policy that has not finished on every dataset is left out: a mean over other tasks is no comparison.
    """
    datasets = [
        dataset.groupby("policy")[column].apply(np.asarray)
        for _, dataset in runs.groupby(list(DATASET), sort=True)
        if dataset[column].notna().any()
    ]
    complete = set.intersection(*(set(dataset.index) for dataset in datasets)) if datasets else set()
    return {policy: [dataset[policy] for dataset in datasets] for policy in sorted(complete, key=policy_order)}


def aggregate(runs: pd.DataFrame, column: str, *, seed: int = 0) -> pd.DataFrame:
    """Mean and interquartile mean of `column` over datasets and seeds, with stratified bootstrap 95% intervals.

    The mean weighs datasets alike; the interquartile mean is over all runs of all datasets.

    Returns:
        A row for each tier and policy, and of `ALL_TIERS` where there are several. Columns: ``tier``, ``policy``,
        ``measure`` (that is, `column`), ``datasets``, ``runs``, and ``mean`` and ``iqm``, each an `Interval`.
    """
    rng = np.random.default_rng(seed)
    tiers = [(tier, runs[runs["tier"] == tier]) for tier in sorted(runs["tier"].unique(), key=tier_order)]
    rows = []
    for tier, selected in tiers if len(tiers) < 2 else [*tiers, (ALL_TIERS, runs)]:
        for policy, samples in strata(selected, column).items():
            row = {"tier": tier, "policy": policy, "measure": column, "datasets": len(samples)}
            row["runs"] = sum(map(len, samples))
            for statistic in ("mean", "iqm"):
                row[statistic] = bootstrap_interval(samples, rng, statistic=statistic)
            rows.append(row)
    return pd.DataFrame(rows, columns=["tier", "policy", "measure", "datasets", "runs", "mean", "iqm"])


def performance_profile(samples: Sequence[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """Share of runs whose score is above each threshold, every dataset weighing alike (Agarwal et al. 2021, 4.2).

    Args:
        samples: scores of one policy, an array a dataset, as `strata` gives them.
        thresholds: (T,).

    Returns:
        (T,) in 0 to 1, never rising where the thresholds rise.
    """
    return np.mean([(scores[:, None] > thresholds).mean(axis=0) for scores in samples], axis=0)


def probability_of_improvement(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], rng: np.random.Generator
) -> Interval:
    """Mean over datasets of P(X > Y) + P(X = Y)/2, X a run of `first` and Y one of `second` (Agarwal et al. 2021, 4.3).

    Args:
        first: scores or returns of one policy, an array a dataset, as `strata` gives them.
        second: of the other policy, on the same datasets.
        rng: draws the resamples of the interval.
    """

    def function(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        pairs = zip(samples[: len(first)], samples[len(first) :], strict=True)
        by_dataset = []
        for xs, ys in pairs:
            difference = np.moveaxis(xs, axis, -1)[..., :, None] - np.moveaxis(ys, axis, -1)[..., None, :]
            by_dataset.append((0.5 + 0.5 * np.sign(difference)).mean(axis=(-2, -1)))
        return np.mean(by_dataset, axis=0)

    return bootstrap_interval([*first, *second], rng, statistic=function)


def improvement_matrix(samples: Mapping[str, Sequence[np.ndarray]], *, seed: int = 0) -> pd.DataFrame:
    """`probability_of_improvement` of each row's policy over each column's; None of a policy over itself."""
    rng = np.random.default_rng(seed)
    rows = {
        first: [
            None if first == second else probability_of_improvement(samples[first], samples[second], rng)
            for second in samples
        ]
        for first in samples
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(samples), dtype=object)


def per_task(summary: pd.DataFrame, column: str = "mean") -> pd.DataFrame:
    """Rows `DATASET`, columns policy: `column` at the full budget, NaN where a policy has not finished.

    Args:
        summary: of `harness.reporting.statistics.summarize`, one preset, metric and algorithm.
        column: of `summary`.
    """
    table = asymptotic(summary).pivot(index=list(DATASET), columns="policy", values=column)
    table = table.loc[sorted(table.index, key=lambda dataset: (*dataset[:2], tier_order(dataset[2])))]
    return table[sorted(table.columns, key=policy_order)]


def early_share(summary: pd.DataFrame, fraction: float = EARLY_FRACTION) -> pd.DataFrame:
    """Rows task, columns policy: `share_of_best` at `fraction` of the budget, by `mean_over` bins and tiers."""
    table = mean_over(summary[np.isclose(summary["fraction"], fraction)], "share", "task")
    return table[sorted(table.columns, key=policy_order)]


def minutes_to_target(summary: pd.DataFrame, by: Literal["tier", "bins"] = "tier") -> pd.DataFrame:
    """Rows `by`, columns policy: minutes to the target of `time_to_target`, by `mean_over` whatever else varies.

    NaN where that is, or one of them; infinite where one was not reached.
    """
    times = time_to_target(summary)
    table = mean_over(times.assign(minutes=times["seconds"] / 60), "minutes", by)
    rows = sorted(table.index, key=tier_order) if by == "tier" else table.index
    return table.loc[rows, sorted(table.columns, key=policy_order)]


def by_asm_length(summary: pd.DataFrame, meta: ReportMeta) -> pd.DataFrame:
    """The rows at the full budget of policies called like ``spin-asm-20%``.

    Adds ``base`` (``spin``), ``percent`` (20.0: of the full length of ASM pre-training) and ``epochs`` (as many, or NaN
    where `meta` does not know the full length).
    """
    full = asymptotic(summary)
    found = full["policy"].astype(str).str.extract(_ASM_LENGTH).astype({"percent": float})
    rows = full.join(found)[found["base"].notna()]
    whole = [meta.asm_epochs.get((row.preset, row.task, int(row.bins), row.tier), np.nan) for row in rows.itertuples()]
    return rows.assign(epochs=np.array(whole, dtype=float) * rows["percent"] / 100)


def agreement(summary: pd.DataFrame) -> pd.DataFrame:
    """How estimates order the policies where there are returns of the same trainings beside them.

    Args:
        summary: of `harness.reporting.statistics.summarize`, at the full budget or not.

    Returns:
        A row for each preset, algorithm, dataset and estimate with at least two policies. Columns: those, ``metric``,
        ``policies`` (how many), ``tau`` (Kendall's rank correlation with the return: 1 the same order, -1 the reverse;
        NaN where all are tied) and ``regret`` (how much less the policy with the best estimate returns than the best
        policy).
    """
    full, keys = asymptotic(summary), ["preset", "algorithm", *DATASET]
    rows = []
    for values, group in full.groupby(keys, sort=True):
        by_metric = group.pivot(index="policy", columns="metric", values="mean")
        for metric in sorted(set(by_metric) - {RETURN}) if RETURN in by_metric else ():
            pair = by_metric[[RETURN, metric]].dropna()
            if len(pair) > 1:
                tau = stats.kendalltau(pair[RETURN], pair[metric]).statistic
                regret = pair[RETURN].max() - pair[RETURN][pair[metric].idxmax()]
                rows.append([*values, metric, len(pair), tau, regret])
    return pd.DataFrame(rows, columns=[*keys, "metric", "policies", "tau", "regret"])


def _evaluations(table: pd.DataFrame) -> pd.DataFrame:
    """Mean return over episodes, by run and fraction."""
    return table.groupby([*RUN, "fraction"], as_index=False, sort=True)["return"].mean()


def _scored(runs: pd.DataFrame, meta: ReportMeta, measure: str) -> pd.DataFrame:
    def score(row: pd.Series) -> float:
        reference = meta.references.get((row["task"], int(row["bins"]))) if row["metric"] == RETURN else None
        value = row[f"{measure}_return"]
        return normalized_score(value, reference.random, reference.expert) if reference else float("nan")

    scores = [score(row) for _, row in runs.iterrows()]
    return runs.assign(**{f"{measure}_score": np.array(scores, dtype=float)})
