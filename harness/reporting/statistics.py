"""The numbers of a report, as pure functions of the table in `harness.records`.

A *line* is the set of rows with one preset, metric, algorithm, task, bins, tier and policy: one curve of a figure.
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

SETTING = ("preset", "metric", "algorithm", "task", "bins", "tier")  # policies are compared within one of these
LINE = (*SETTING, "policy")
REFERENCE_POLICY = "factored"
ENOUGH = 10  # from so many values in every stratum on, intervals are bootstrapped


@attrs.frozen
class Interval:
    """An estimate and its bounds.

    Attributes:
        value: the estimate.
        low: lower bound; NaN if there are too few values.
        high: upper bound; NaN if there are too few values.
        over: units of the interval: ``seeds``, ``episodes`` of a single seed, or ``data`` of an estimate.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")
    over: str = "seeds"


def normalized_score(value: float, random_return: float, expert_return: float) -> float:
    """100 · (value − random) / (expert − random): 0 is the random policy, 100 the expert."""
    return 100.0 * (value - random_return) / (expert_return - random_return)


def iqm(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean of all values: without the lowest and the highest quarter (Agarwal et al. 2021, 4.3)."""
    return stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)


def units(returns: np.ndarray | pd.Series, seeds: np.ndarray | pd.Series) -> tuple[np.ndarray, str]:
    """The units of an interval and their name: the means of the seeds, or the episodes of a single seed.

    Episodes of one seed share a policy, so pooling them over seeds would count one training several times.
    """
    values, of = np.asarray(returns, dtype=float), np.asarray(seeds)
    means = np.array([values[of == seed].mean() for seed in np.unique(of)])
    return (means, "seeds") if len(means) > 1 else (values, "episodes")


def mean_interval(
    strata: Sequence[np.ndarray],
    rng: np.random.Generator,
    *,
    weights: Sequence[float] | None = None,
    over: str = "seeds",
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Interval of a weighted sum of the strata's means.

    With fewer than `ENOUGH` values in a stratum it is Student's t, whose variance is the sum of the strata's own
    (Welch) with Satterthwaite's degrees of freedom. A percentile bootstrap of two, three and five values would cover
    51, 75 and 84% of normal means in place of 95%. From `ENOUGH` values on it is the studentised bootstrap (Efron and
    Tibshirani 1993, 12.5), which follows skewed values, and covers where the percentile bootstrap of ten has 89%.

    Args:
        strata: `units` of each dataset (one array for a single dataset), (n_d,) each.
        rng: generator for the resamples; the same state gives the same interval.
        weights: one weight per stratum; equal by default, 1 and −1 give the difference of two strata.
        over: name of the units, for `Interval.over`.
        confidence: coverage of the interval.
        resamples: number of bootstrap resamples.

    Returns:
        The interval; its bounds are NaN if a stratum has fewer than two values.
    """
    weights = [1 / len(strata)] * len(strata) if weights is None else weights
    value = float(sum(weight * sample.mean() for weight, sample in zip(weights, strata, strict=True)))
    sizes = [len(sample) for sample in strata]
    if min(sizes) < 2 or np.isnan(value):
        return Interval(value, over=over)
    parts = np.array([w**2 * s.var(ddof=1) / len(s) for w, s in zip(weights, strata, strict=True)])
    error = float(np.sqrt(parts.sum()))
    if error == 0:
        return Interval(value, value, value, over)
    tail = (1 - confidence) / 2
    if min(sizes) < ENOUGH:
        freedom = 1 / sum((parts / parts.sum()) ** 2 / (np.array(sizes) - 1))
        reach = float(stats.t.ppf(1 - tail, freedom)) * error
        return Interval(value, value - reach, value + reach, over)
    shift, variance = np.full(resamples, -value), np.zeros(resamples)
    for weight, sample in zip(weights, strata, strict=True):
        drawn = sample[rng.integers(0, len(sample), (resamples, len(sample)))]
        shift += weight * drawn.mean(axis=1)
        variance += weight**2 * drawn.var(axis=1, ddof=1) / len(sample)
    low, high = np.quantile(shift[variance > 0] / np.sqrt(variance[variance > 0]), [tail, 1 - tail])
    return Interval(value, value - float(high) * error, value - float(low) * error, over)


def bootstrap_interval(
    strata: Sequence[np.ndarray],
    rng: np.random.Generator,
    statistic: Callable[..., np.ndarray],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Percentile bootstrap interval of a statistic that is not a mean, resampled within each stratum.

    Args:
        strata: values of each dataset.
        rng: generator for the resamples.
        statistic: function of one array per stratum and the keyword ``axis``, which it reduces.
        confidence: coverage of the interval.
        resamples: number of bootstrap resamples.

    Returns:
        The interval; its bounds are NaN if a stratum has fewer than `ENOUGH` values, since bootstrap intervals of few
        values are far too narrow.
    """
    if any(np.isnan(sample).any() for sample in strata):  # trimming would count NaN as the highest value
        return Interval(float("nan"))
    value = float(statistic(*strata))
    if min(map(len, strata)) < ENOUGH:
        return Interval(value)
    if all(np.ptp(sample) == 0 for sample in strata):
        return Interval(value, value, value)
    result = stats.bootstrap(
        tuple(strata), statistic, n_resamples=resamples, confidence_level=confidence, method="percentile", rng=rng
    )
    return Interval(value, float(result.confidence_interval.low), float(result.confidence_interval.high))


def summarize(table: pd.DataFrame, meta: ReportMeta, *, seed: int = 0) -> pd.DataFrame:
    """One row for each line and fraction.

    Columns: those of `LINE`, ``fraction``, ``gradient_step``, ``seeds``, ``episodes``, ``mean``, ``low``, ``high``
    (95%), ``over`` (see `Interval`), ``normalized`` (score of the mean; NaN without a reference), ``share`` (see
    `share_of_best`), the mean over seeds of each of `SECONDS`, and whether a training ended early there.
    """
    rng, table = np.random.default_rng(seed), trained(table)
    known = ("return", "seed", "gradient_step", "low", "high", "ended_early", *SECONDS)
    of = {name: table[name].to_numpy() for name in known}
    rows = []
    for values, at in sorted(table.groupby([*LINE, "fraction"]).indices.items()):  # slices of frames would be slow
        line = dict(zip([*LINE, "fraction"], values, strict=True))
        said = at[np.isfinite(of["return"][at])]  # an estimate may have been withheld
        value, low, high = (float(of[name][(*said, *at)[0]]) for name in ("return", "low", "high"))
        interval = Interval(value, low, high, "data")
        if len(said) > 1 or line["metric"] == RETURN:
            sample, over = units(of["return"][said], of["seed"][said])
            interval = mean_interval([sample], rng, over=over)
        reference = meta.references.get((line["task"], int(line["bins"]))) if line["metric"] == RETURN else None
        score = normalized_score(interval.value, reference.random, reference.expert) if reference else float("nan")
        seeds, first = np.unique(of["seed"][at], return_index=True)
        rows.append(
            {
                **line,
                "gradient_step": int(of["gradient_step"][at].max()),
                "seeds": len(seeds),
                "episodes": len(at),
                "mean": interval.value,
                **{name: getattr(interval, name) for name in ("low", "high", "over")},
                "normalized": score,
                **{name: float(of[name][at][first].mean()) for name in SECONDS},
                "ended_early": bool(of["ended_early"][at].any()),
            }
        )
    columns = [*LINE, "fraction", "gradient_step", "seeds", "episodes", "mean", "low", "high", "over", "normalized"]
    summary = pd.DataFrame(rows, columns=[*columns, *SECONDS, "ended_early"])
    summary["share"] = share_of_best(summary)
    return summary


def during_pretraining(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each line and evaluation of its ASM before the training (`Evaluating.during_pretraining`), in order.

    Columns: those of `LINE`, ``asm_share`` of the pre-training, ``asm_seconds`` (mean over seeds), and ``mean``,
    ``low``, ``high`` (95%) of the return.
    """
    rng = np.random.default_rng(0)
    rows = []
    for values, group in table[table["gradient_step"] == 0].groupby([*LINE, "asm_share"], sort=True):
        sample, over = units(group["return"], group["seed"])
        interval = mean_interval([sample], rng, over=over)
        rows.append((*values, group["asm_seconds"].mean(), interval.value, interval.low, interval.high))
    return pd.DataFrame(rows, columns=[*LINE, "asm_share", "asm_seconds", "mean", "low", "high"])


def asymptotic(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows at the full budget; a line that has not reached it has none."""
    return summary[summary["fraction"] >= 1.0]


def share_of_best(summary: pd.DataFrame) -> pd.Series:
    """100 · mean / best, where best is the highest asymptotic return of any policy on the same dataset and algorithm.

    NaN if no policy finished, or if the best is not positive (a share of it has no meaning).
    """
    best = asymptotic(summary).groupby(list(SETTING))["mean"].max()
    index = pd.MultiIndex.from_frame(summary[list(SETTING)])
    reference = best.reindex(index).to_numpy(dtype=float)
    return 100.0 * summary["mean"] / np.where(reference > 0, reference, np.nan)


def time_to_target(
    summary: pd.DataFrame, *, share: float = 0.95, reference_policy: str = REFERENCE_POLICY
) -> pd.DataFrame:
    """Seconds until each line first reached `share` of the reference policy's asymptotic return.

    The seconds are those of ASM pre-training, of starts and of training at the first evaluation whose mean return is at
    least the target; evaluation is not counted (arXiv 2601.04441, time to target). The reference policy reaches its
    own target by construction.

    Returns:
        One row a line: `LINE`, ``target`` (return; NaN without a finished reference policy in the same setting),
        ``seconds`` (infinite if the full budget did not reach it, NaN without a target and for a line that has not
        finished) and ``spent`` (seconds of the whole line). A return that is not positive gives no target.
    """
    finished = asymptotic(summary[summary["policy"].str.casefold() == reference_policy.casefold()])
    targets = finished[finished["mean"] > 0].set_index(list(SETTING))["mean"] * share
    rows = []
    for values, line in summary.groupby(list(LINE), sort=True):
        target = float(targets.get(values[:-1], float("nan")))
        times = learning_seconds(line).to_numpy(dtype=float)
        reached = times[line["mean"].to_numpy() >= target]
        unknown = np.isnan(target) or asymptotic(line).empty
        rows.append([*values, target, min(reached, default=np.nan if unknown else np.inf), max(times)])
    return pd.DataFrame(rows, columns=[*LINE, "target", "seconds", "spent"])


def shown_fractions(summary: pd.DataFrame, most: int = 12) -> list[float]:
    """The shares of the budget that tables and axes show, rising: all if there are few, else those nearest to the
    protocol's.

    The paper evaluates every 5,000 of 1M steps, which is 200 shares; curves are drawn through all of them.
    """
    fractions = sorted(summary["fraction"].unique())
    if len(fractions) <= most:
        return fractions
    return sorted({min(fractions, key=lambda share: abs(share - mark)) for mark in PROTOCOL_FRACTIONS})


def tier_by_policy(summary: pd.DataFrame, column: str = "mean") -> pd.DataFrame:
    """Rows tier and a last row ``average``, columns policy: `column` at the full budget, averaged over tasks.

    NaN in a tier for a policy that lacks one of the tasks that any policy has finished in any tier, and then also in
    the average, since means over different tasks do not compare.
    """
    table = mean_over(asymptotic(summary), column, "tier")
    table = table.loc[sorted(table.index, key=tier_order)]
    if not table.empty:
        table.loc["average"] = table.mean(axis=0, skipna=False)
    return table[sorted(table.columns, key=policy_order)]


def mean_over(rows: pd.DataFrame, column: str, by: str) -> pd.DataFrame:
    """Rows `by` (one of task, bins and tier), columns policy: the mean of `column` over the others of the three.

    NaN for a policy that lacks one of the combinations of those others that exist for any policy and any `by`.
    """
    others = [name for name in ("task", "bins", "tier") if name != by]
    table = rows.pivot(index=[by, *others], columns="policy", values=column)
    pairs = itertools.product(sorted(set(rows[by])), sorted(set(rows[others].itertuples(index=False, name=None))))
    whole = [(first, *rest) for first, rest in pairs]
    table = table.reindex(pd.MultiIndex.from_tuples(whole, names=[by, *others]) if whole else table.index)
    return table.groupby(level=by, sort=True).agg(lambda values: values.mean(skipna=False))


def tier_order(tier: str) -> tuple[int, str]:
    """Sort key: the paper's order of tiers, others after it by name, numbers in names by value."""
    known, lowered = ("random", "medium", "medium-expert", "random-medium-expert", "expert"), tier.casefold()
    return (known.index(lowered) if lowered in known else len(known), _by_number(lowered))


def policy_order(policy: str) -> tuple[int, str]:
    """Sort key: the paper's order of policies, each followed by its variants, numbers in names by value."""
    known, lowered = ("factored", "autoregressive", "saint", "spin"), policy.casefold()
    place = next((place for place, name in enumerate(known) if re.match(rf"{name}\b", lowered)), len(known))
    return place, _by_number(lowered)


def _by_number(name: str) -> str:
    return re.sub(r"\d+", lambda digits: digits.group().zfill(9), name)
