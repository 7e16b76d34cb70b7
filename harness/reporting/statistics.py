"""The numbers of a report, as pure functions of the table in `harness.records`.

A *line* is everything that shares preset, metric, algorithm, task, bins, tier and policy: one curve of a figure.
Only seeds and episodes vary within it. Asymptotic return always means the return at the full budget, never
that of the best checkpoint on the way.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

import attrs
import numpy as np
import pandas as pd
from scipy import stats

from harness.records import PROTOCOL_FRACTIONS, RETURN
from harness.reporting.returns import SECONDS, ReportMeta, learning_seconds, trained

SETTING = ("preset", "metric", "algorithm", "task", "bins", "tier")  # what policies are compared within
LINE = (*SETTING, "policy")
REFERENCE_POLICY = "factored"


@attrs.frozen
class Interval:
    """An estimate and its bounds; the bounds are NaN where there is nothing to resample."""

    value: float
    low: float
    high: float


def normalized_score(value: float, random_return: float, expert_return: float) -> float:
    """100 · (value − random) / (expert − random): 0 is the random policy, 100 the expert."""
    return 100.0 * (value - random_return) / (expert_return - random_return)


def iqm(values: Sequence[float] | np.ndarray) -> float:
    """Interquartile mean: the mean without the lowest and the highest quarter (Agarwal et al. 2021, section 4.3)."""
    return float(stats.trim_mean(np.asarray(values, dtype=float), 0.25))


def units(returns: pd.Series, seeds: pd.Series) -> np.ndarray:
    """What the bootstrap resamples: the mean return of each seed, or of one seed alone its episodes.

    Episodes of one seed share a policy, so pooling them over seeds would count one training several times.
    """
    by_seed = returns.groupby(seeds.to_numpy())
    return by_seed.mean().to_numpy() if by_seed.ngroups > 1 else returns.to_numpy(dtype=float)


def bootstrap_interval(
    strata: Sequence[np.ndarray],
    rng: np.random.Generator,
    *,
    statistic: str | Callable[..., np.ndarray] = "mean",
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Percentile bootstrap interval, resampled within each stratum.

    Args:
        strata: `units` of each task (one array where there is one task).
        rng: draws the resamples; the same generator state gives the same interval.
        statistic: ``mean``, the mean over strata of their means, ``iqm`` over all units of all strata, or a function
            of one array a stratum and of the keyword ``axis``, which it reduces.
        confidence: coverage of the interval.
        resamples: number of bootstrap resamples.
    """

    def mean(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean([sample.mean(axis=axis) for sample in samples], axis=0)

    def interquartile(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        return stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)

    function = {"mean": mean, "iqm": interquartile}[statistic] if isinstance(statistic, str) else statistic
    if any(np.isnan(sample).any() for sample in strata):  # trimming would count NaN as the highest value
        return Interval(float("nan"), float("nan"), float("nan"))
    value = float(function(*strata))
    if any(len(sample) < 2 for sample in strata):
        return Interval(value, float("nan"), float("nan"))
    if all(np.ptp(sample) == 0 for sample in strata):
        return Interval(value, value, value)
    result = stats.bootstrap(
        tuple(strata), function, n_resamples=resamples, confidence_level=confidence, method="percentile", rng=rng
    )
    return Interval(value, float(result.confidence_interval.low), float(result.confidence_interval.high))


def summarize(table: pd.DataFrame, meta: ReportMeta, *, seed: int = 0) -> pd.DataFrame:
    """One row for each line and fraction.

    Columns: those of `LINE`, ``fraction``, ``gradient_step``, ``seeds``, ``episodes``, ``mean``, ``low``, ``high``
    (95%), ``iqm``, ``normalized`` (score of the mean; NaN without a reference), ``share`` (see `share_of_best`),
    and the mean over seeds of each of `SECONDS`.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for values, group in trained(table).groupby([*LINE, "fraction"], sort=True):
        line = dict(zip([*LINE, "fraction"], values, strict=True))
        resampled = units(group["return"], group["seed"])
        interval = bootstrap_interval([resampled], rng)
        by_seed = group.groupby("seed")[list(SECONDS)].first().mean()
        reference = meta.references.get((line["task"], int(line["bins"]))) if line["metric"] == RETURN else None
        rows.append(
            {
                **line,
                "gradient_step": int(group["gradient_step"].max()),
                "seeds": group["seed"].nunique(),
                "episodes": len(group),
                "mean": interval.value,
                "low": interval.low,
                "high": interval.high,
                "iqm": iqm(resampled),
                "normalized": (
                    normalized_score(interval.value, reference.random, reference.expert) if reference else float("nan")
                ),
                **by_seed.to_dict(),
            }
        )
    columns = [*LINE, "fraction", "gradient_step", "seeds", "episodes", "mean", "low", "high", "iqm", "normalized"]
    summary = pd.DataFrame(rows, columns=[*columns, *SECONDS])
    summary["share"] = share_of_best(summary)
    return summary


def asymptotic(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows at the full budget; a line that did not get there has none."""
    return summary[summary["fraction"] >= 1.0]


def share_of_best(summary: pd.DataFrame) -> pd.Series:
    """100 · mean / best, best being the highest asymptotic return of any policy in the same setting.

    NaN where no policy finished, or where the best is not positive (a share would mean nothing).
    """
    best = asymptotic(summary).groupby(list(SETTING))["mean"].max()
    index = pd.MultiIndex.from_frame(summary[list(SETTING)])
    reference = pd.Series(best.reindex(index).to_numpy(dtype=float), index=summary.index)
    return 100.0 * summary["mean"] / reference.where(reference > 0)


def time_to_target(
    summary: pd.DataFrame, *, share: float = 0.95, reference_policy: str = REFERENCE_POLICY
) -> pd.DataFrame:
    """Seconds until each line first reached `share` of the reference policy's asymptotic return.

    The seconds are those of ASM pre-training, of starts and of training at the first evaluation whose mean return is at
    least the target; evaluation is not counted (paper, section on wall-clock time).

    Returns:
        One row a line: `LINE`, ``target`` (return; NaN without a finished reference policy in the same setting)
        and ``seconds``: infinite when the full budget did not get there, NaN without a target and while the line has
        not got to its full budget. There is no target without a positive return to take a share of.
    """
    finished = asymptotic(summary)
    finished = finished[finished["policy"].str.casefold() == reference_policy.casefold()]
    targets = finished[finished["mean"] > 0].set_index(list(SETTING))["mean"] * share
    rows = []
    for values, line in summary.groupby(list(LINE), sort=True):
        target = float(targets.get(values[:-1], float("nan")))
        reached = line[line["mean"] >= target].sort_values("gradient_step").head(1)
        if len(reached):
            seconds = float(learning_seconds(reached).iloc[0])
        else:
            seconds = np.nan if np.isnan(target) or asymptotic(line).empty else np.inf
        rows.append([*values, target, seconds])
    return pd.DataFrame(rows, columns=[*LINE, "target", "seconds"])


def shown_fractions(summary: pd.DataFrame, most: int = 12) -> list[float]:
    """The shares of the budget that tables and axes have room for, rising: all of a few, of many those next to
    the protocol's.

    The paper's evaluation every 5,000 of 1M steps makes two hundred; curves are drawn through them all.
    """
    fractions = sorted(summary["fraction"].unique())
    if len(fractions) <= most:
        return fractions
    return sorted({min(fractions, key=lambda share: abs(share - wanted)) for wanted in PROTOCOL_FRACTIONS})


def tier_by_policy(summary: pd.DataFrame, column: str = "mean") -> pd.DataFrame:
    """Rows tier and a last row ``average``, columns policy: `column` at the full budget, averaged over tasks.

    NaN for a policy that lacks a task in the tier that any has finished in any tier, and then of the average too: a
    mean over other tasks is no comparison.
    """
    table = mean_over(asymptotic(summary), column, "tier")
    table = table.loc[sorted(table.index, key=tier_order)]
    if not table.empty:
        table.loc["average"] = table.mean(axis=0, skipna=False)
    return table[sorted(table.columns, key=policy_order)]


def mean_over(rows: pd.DataFrame, column: str, by: str) -> pd.DataFrame:
    """Rows `by` (one of task, bins and tier), columns policy: the mean of `column` over the others of the three.

    NaN for a policy that lacks one of the others' combinations, of those that there are for any policy and any `by`.
    """
    others = [name for name in ("task", "bins", "tier") if name != by]
    table = rows.pivot(index=[by, *others], columns="policy", values=column)
    pairs = itertools.product(sorted(set(rows[by])), sorted(set(rows[others].itertuples(index=False, name=None))))
    whole = [(first, *rest) for first, rest in pairs]
    table = table.reindex(pd.MultiIndex.from_tuples(whole, names=[by, *others]) if whole else table.index)
    return table.groupby(level=by, sort=True).agg(lambda values: values.mean(skipna=False))


def tier_order(tier: str) -> tuple[int, str]:
    """Sort key: the paper's order of tiers, others after it by name, numbers in names by value."""
    return _position(("random", "medium", "medium-expert", "random-medium-expert", "expert"), tier)


def policy_order(policy: str) -> tuple[int, str]:
    """Sort key: the paper's order of policies, others after it by name, numbers in names by value."""
    return _position(("factored", "autoregressive", "saint", "spin"), policy)


def _position(known: Sequence[str], name: str) -> tuple[int, str]:
    lowered = name.casefold()
    padded = re.sub(r"\d+", lambda digits: digits.group().zfill(9), lowered)
    return (known.index(lowered) if lowered in known else len(known), padded)
