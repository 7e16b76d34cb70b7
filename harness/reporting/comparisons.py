"""Comparisons of policies over tasks and seeds, as pure functions of the table in `harness.records`.

A *run* is a line with one seed, a *dataset* a task with its bins and tier. Datasets are the strata and seeds the units
of every interval, as in Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
The return at the full budget is called asymptotic, that of the best evaluation on the way best-checkpoint: they come
from two functions, under different column names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs
import numpy as np
import pandas as pd

from harness.records import RETURN
from harness.reporting.paper_numbers import EARLY_FRACTION
from harness.reporting.returns import ReportMeta
from harness.reporting.statistics import (
    LINE,
    Interval,
    asymptotic,
    bootstrap_interval,
    iqm,
    mean_interval,
    mean_over,
    normalized_score,
    policy_order,
    tier_order,
    time_to_target,
    units,
)

DATASET = ("task", "bins", "tier")
RUN = (*LINE, "seed")
ALL_TIERS = "all tiers"
_ASM_LENGTH = r"^(?P<base>.+)-asm-(?P<percent>\d+(?:\.\d+)?)%$"  # as gin/experiments/asm_epochs.gin names its policies


def asymptotic_runs(table: pd.DataFrame, meta: ReportMeta) -> pd.DataFrame:
    """One row for each run that reached the full budget, with its return there.

    Columns: `RUN`, ``asymptotic_return`` (mean over episodes), ``asymptotic_score`` (NaN without reference return).
    """
    runs = asymptotic(_evaluations(table)).rename(columns={"return": "asymptotic_return"})
    return _scored(runs, meta, "asymptotic").drop(columns="fraction").reset_index(drop=True)


def best_checkpoint_runs(table: pd.DataFrame, meta: ReportMeta) -> pd.DataFrame:
    """One row for each run that reached the full budget, with its best evaluation at any share of the budget.

    The best evaluation is chosen by the same episodes by which it is judged, so it is biased upwards, and more so with
    more evaluations.

    Columns: `RUN`, ``fraction`` (of the best evaluation), ``best_checkpoint_return``, ``best_checkpoint_score``.
    """
    evaluations = _evaluations(table)
    finished = evaluations.groupby(list(RUN))["fraction"].transform("max") >= 1.0
    best = evaluations[finished].sort_values("return", ascending=False, kind="stable").groupby(list(RUN)).head(1)
    runs = best.rename(columns={"return": "best_checkpoint_return"}).sort_values(list(RUN))
    return _scored(runs, meta, "best_checkpoint").reset_index(drop=True)


def strata(runs: pd.DataFrame, column: str) -> dict[str, list[np.ndarray]]:
    """Values of `column` for each policy: one array of seeds per dataset, datasets in the same order for all policies.

    Args:
        runs: table of `asymptotic_runs` or `best_checkpoint_runs`, of one preset, metric and algorithm.
        column: a column of it. Datasets for which it is NaN in every run (no reference return) are left out.

    A policy that has not finished on every dataset is left out, since means over different tasks do not compare.
    """
    datasets = [
        dataset.groupby("policy")[column].apply(np.asarray)
        for _, dataset in runs.groupby(list(DATASET), sort=True)
        if dataset[column].notna().any()
    ]
    complete = set.intersection(*(set(dataset.index) for dataset in datasets)) if datasets else set()
    return {policy: [dataset[policy] for dataset in datasets] for policy in sorted(complete, key=policy_order)}


def aggregate(runs: pd.DataFrame, column: str, *, seed: int = 0) -> pd.DataFrame:
    """Mean and interquartile mean of `column` over datasets and seeds, with 95% intervals stratified by dataset.

    The mean weighs datasets alike; the interquartile mean is over all runs of all datasets.

    Returns:
        A row for each tier and policy, and rows of `ALL_TIERS` if there are several. Columns: ``tier``, ``policy``,
        ``measure`` (that is, `column`), ``datasets``, ``runs``, and ``mean`` and ``iqm``, each an `Interval`.
    """
    rng = np.random.default_rng(seed)
    tiers = [(tier, runs[runs["tier"] == tier]) for tier in sorted(runs["tier"].unique(), key=tier_order)]
    rows = []
    for tier, selected in tiers if len(tiers) < 2 else [*tiers, (ALL_TIERS, runs)]:
        for policy, samples in strata(selected, column).items():
            counts = {"datasets": len(samples), "runs": sum(map(len, samples))}
            means = {"mean": mean_interval(samples, rng), "iqm": bootstrap_interval(samples, rng, iqm)}
            rows.append({"tier": tier, "policy": policy, "measure": column, **counts, **means})
    return pd.DataFrame(rows, columns=["tier", "policy", "measure", "datasets", "runs", "mean", "iqm"])


def performance_profile(samples: Sequence[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """Share of runs whose score is above each threshold, every dataset weighing alike (Agarwal et al. 2021, 4.2).

    Args:
        samples: scores of one policy, one array per dataset, from `strata`.
        thresholds: (T,) scores.

    Returns:
        (T,) shares in 0 to 1, one for each threshold.
    """
    return np.mean([(scores[:, None] > thresholds).mean(axis=0) for scores in samples], axis=0)


def probability_of_improvement(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], rng: np.random.Generator
) -> Interval:
    """Mean over datasets of P(X > Y) + P(X = Y)/2, X a run of `first` and Y one of `second` (Agarwal et al. 2021, 4.3).

    Args:
        first: scores or returns of one policy, one array per dataset, from `strata`.
        second: those of the other policy, on the same datasets.
        rng: generator for the resamples of the interval.
    """

    def function(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        pairs = zip(samples[: len(first)], samples[len(first) :], strict=True)
        by_dataset = []
        for xs, ys in pairs:
            difference = np.moveaxis(xs, axis, -1)[..., :, None] - np.moveaxis(ys, axis, -1)[..., None, :]
            by_dataset.append((0.5 + 0.5 * np.sign(difference)).mean(axis=(-2, -1)))
        return np.mean(by_dataset, axis=0)

    return bootstrap_interval([*first, *second], rng, function)


def improvement_matrix(samples: Mapping[str, Sequence[np.ndarray]], *, seed: int = 0) -> pd.DataFrame:
    """`probability_of_improvement` of each row's policy over each column's; None on the diagonal."""
    rng = np.random.default_rng(seed)
    rows = {
        first: [
            None if first == second else probability_of_improvement(samples[first], samples[second], rng)
            for second in samples
        ]
        for first in samples
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(samples), dtype=object)


def differences(table: pd.DataFrame, reference: str, *, seed: int = 0) -> pd.DataFrame:
    """Difference of each policy's return at the full budget to that of `reference`, with 95% intervals.

    Seeds are not paired (Welch's interval). The policies of one seed share the data and the episodes' starts, not their
    initial weights or batches; over the stored study of three seeds their means correlate by anything from -0.6 to
    0.8, and pairing would leave two degrees of freedom in place of up to four.

    Args:
        table: table of returns as in `harness.records`, of one preset, metric and algorithm.
        reference: policy to compare with.
        seed: seed of the resamples.

    Returns:
        Rows `DATASET`, and if there are several a last row ``all`` with the mean over the datasets that every policy in
        the table has finished; columns policy, without `reference`; cells `Interval` or None. If both policies have one
        seed, the interval is over episodes; if only one of them does, it has no bounds.
    """
    rng, full = np.random.default_rng(seed), asymptotic(table)
    samples = {
        key: units(group["return"], group["seed"]) for key, group in full.groupby([*DATASET, "policy"], sort=True)
    }
    datasets = sorted(
        {key[:3] for key in samples if key[3] == reference}, key=lambda key: (*key[:2], tier_order(key[2]))
    )
    policies = sorted({key[3] for key in samples} - {reference}, key=policy_order)

    def difference(policy: str, chosen: list[tuple]) -> Interval | None:
        pairs = [(samples.get((*dataset, policy)), samples[*dataset, reference]) for dataset in chosen]
        if not pairs or any(ours is None for ours, _ in pairs):
            return None
        flat = [sample for pair in pairs for sample in pair if sample is not None]
        values, weights = [sample for sample, _ in flat], [1 / len(pairs), -1 / len(pairs)] * len(pairs)
        kinds = {over for _, over in flat}
        if len(kinds) > 1:  # means of seeds and returns of episodes vary differently
            values = [np.array([sample.mean()]) for sample in values]
        return mean_interval(values, rng, weights=weights, over=min(kinds))

    rows = [[difference(policy, [dataset]) for policy in policies] for dataset in datasets]
    if len(datasets) > 1:
        rows.append([difference(policy, datasets) for policy in policies])
        datasets = [*datasets, ("all", 0, "")]
    index = pd.MultiIndex.from_tuples(datasets, names=DATASET) if datasets else pd.Index([])
    return pd.DataFrame(rows, index=index, columns=policies, dtype=object)


def per_task(summary: pd.DataFrame, column: str = "mean") -> pd.DataFrame:
    """Rows `DATASET`, columns policy: `column` at the full budget, NaN where a policy has not finished.

    Args:
        summary: table of `harness.reporting.statistics.summarize`, of one preset, metric and algorithm.
        column: a column of `summary`.
    """
    table = asymptotic(summary).pivot(index=list(DATASET), columns="policy", values=column)
    table = table.loc[sorted(table.index, key=lambda dataset: (*dataset[:2], tier_order(dataset[2])))]
    return table[sorted(table.columns, key=policy_order)]


def early_share(summary: pd.DataFrame, fraction: float = EARLY_FRACTION) -> pd.DataFrame:
    """Rows task, columns policy: `share_of_best` at `fraction` of the budget, by `mean_over` bins and tiers."""
    table = mean_over(summary[np.isclose(summary["fraction"], fraction)], "share", "task")
    return table[sorted(table.columns, key=policy_order)]


@attrs.frozen
class Targets:
    """Times until the target of `time_to_target`; the tables have rows `by` (tier or bins) and columns policy.

    Attributes:
        reached: number of datasets on which the target was reached; NaN for a policy that lacks one of them.
        minutes: restricted mean time over datasets, where a dataset not reached counts as `longest`.
        datasets: number of datasets in each row.
        longest: minutes of pre-training and training of the longest line.
    """

    reached: pd.DataFrame
    minutes: pd.DataFrame
    datasets: int
    longest: float


def targets(summary: pd.DataFrame, by: Literal["tier", "bins"] = "tier") -> Targets:
    """`Targets` of a summary of one preset, metric and algorithm, averaged by `mean_over` over all but `by`."""
    times = time_to_target(summary)
    minutes, longest = times["seconds"] / 60, float(times["spent"].max() / 60)
    times = times.assign(minutes=minutes.clip(upper=longest), reached=np.isfinite(minutes).where(minutes.notna()) * 1.0)
    datasets = len(times[[name for name in DATASET if name != by]].drop_duplicates())
    tables = [mean_over(times, column, by) for column in ("reached", "minutes")]
    rows = sorted(tables[0].index, key=tier_order if by == "tier" else None)
    reached, mean = (table.loc[rows, sorted(table.columns, key=policy_order)] for table in tables)
    return Targets(reached * datasets, mean, datasets, longest)


def by_asm_length(summary: pd.DataFrame, meta: ReportMeta) -> pd.DataFrame:
    """Rows at the full budget of policies with a length of ASM pre-training in their name, e.g. ``spin-asm-20%``.

    Adds ``base`` (``spin``), ``percent`` (20.0, of the full length of ASM pre-training) and ``epochs`` (that length in
    epochs, NaN if `meta` lacks the full length).
    """
    full = asymptotic(summary)
    found = full["policy"].astype(str).str.extract(_ASM_LENGTH).astype({"percent": float})
    rows = full.join(found)[found["base"].notna()]
    whole = [meta.asm_epochs.get((row.preset, row.task, int(row.bins), row.tier), np.nan) for row in rows.itertuples()]
    return rows.assign(epochs=np.array(whole, dtype=float) * rows["percent"] / 100)


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
