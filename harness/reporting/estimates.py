"""Estimates beside what they estimate: how well they know the returns, and what they say where there are none."""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
import numpy as np
import pandas as pd
from scipy import stats

from harness.records import LIKELIHOOD, RETURN, metric_name, setting_name
from harness.reporting.returns import trained
from harness.reporting.statistics import Interval, policy_order
from spinrl.evaluation.importance import percentile_interval

DATASET = ("preset", "task", "bins", "tier")
_POINT = (*DATASET, "policy", "algorithm", "seed", "gradient_step", "fraction")
_RESAMPLES = 1000
_FEW = 4  # policies below which a bootstrap over them says nothing


def judgements(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each estimate: a point is one policy of one seed after a share of its training.

    Args:
        table: table of returns as in `harness.records`.

    Returns:
        Columns: dataset, policy, algorithm, ``seed``, ``gradient_step``, ``fraction``, ``metric``; ``value``, NaN where
        it was withheld, with ``low``, ``high``, ``effective_episodes``, ``remark`` and the figures of its details; and
        ``truth``, the mean discounted return of the same policy in the simulator, NaN without one. Tables of before
        version 0.3 have undiscounted returns alone, which take its place.
    """
    rows = trained(table)
    by_metric = rows["metric"] == RETURN
    returned = rows[by_metric]
    worth = returned["discounted"].fillna(returned["return"])
    truth = worth.groupby([returned[name] for name in _POINT]).mean().rename("truth")
    first = ("low", "high", "effective_episodes", "remark", "details")
    found = rows[~by_metric].groupby([*_POINT, "metric"], as_index=False, sort=True)
    found = found.agg(value=("return", "mean"), **{name: (name, "first") for name in first})
    details = pd.DataFrame([json.loads(text or "{}") for text in found.pop("details")], index=found.index)
    found = found.join(details)
    return found.assign(truth=np.nan) if found.empty or truth.empty else found.join(truth, on=list(_POINT))


@attrs.frozen
class Agreement:
    """How well an estimate knows the returns of the policies of a dataset; NaN where it has no meaning.

    Attributes:
        points: policies of which it says something, over all seeds.
        withheld: policies of which it says nothing.
        tau, rho: Kendall's and Spearman's rank correlation with the truth, the mean over seeds, with 95% intervals by a
            bootstrap over policies.
        regret: return lost by choosing the policy of the best estimate, in percent of the best; the mean over seeds.
        covered: percent of its 95% intervals that hold the truth.
        error: root mean square error, in units of the standard deviation of the true returns over policies.
        minutes: mean time of an estimate.
    """

    points: int
    withheld: int
    tau: Interval
    rho: Interval
    regret: float
    covered: float
    error: float
    minutes: float


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """`Agreement` of each estimate on each dataset that has returns too.

    Args:
        table: table of returns as in `harness.records`.

    Returns:
        A row for each dataset and estimate. Columns: ``preset``, ``task``, ``bins``, ``tier``, ``metric`` and the
        attributes of `Agreement`.
    """
    known = judgements(table).dropna(subset="truth")
    rows = [
        dict(zip((*DATASET, "metric"), values, strict=True)) | attrs.asdict(_agreement(points), recurse=False)
        for values, points in known.groupby([*DATASET, "metric"], sort=True)
    ]
    columns = [*DATASET, "metric", *(field.name for field in attrs.fields(Agreement))]
    return pd.DataFrame(rows, columns=columns)


def _agreement(points: pd.DataFrame) -> Agreement:
    said = points.dropna(subset="value")
    parts = [(each["value"].to_numpy(), each["truth"].to_numpy()) for _, each in said.groupby("seed")]
    parts = [(value, truth) for value, truth in parts if len(value) > 1]
    best = points.groupby("seed")["truth"].max()
    chosen = said.loc[said.groupby("seed")["value"].idxmax()].set_index("seed")["truth"]
    regret = 100 * (best - chosen)[best > 0] / best  # of seeds with a choice
    is_return = bool(len(said)) and said["metric"].iloc[0] != LIKELIHOOD
    bounded = said.dropna(subset=["low", "high"])
    inside = bounded["truth"].between(bounded["low"], bounded["high"])
    spread = points["truth"].std(ddof=0)
    error = np.sqrt(((said["value"] - said["truth"]) ** 2).mean())
    return Agreement(
        points=len(said),
        withheld=len(points) - len(said),
        tau=_correlation(parts, kendall),
        rho=_correlation(parts, spearman),
        regret=float(regret.mean()),
        covered=100 * float(inside.mean()) if is_return and len(bounded) else np.nan,
        error=float(error / spread) if is_return and spread > 0 else np.nan,
        minutes=float(points["seconds"].mean() / 60) if "seconds" in points else np.nan,
    )


def _correlation(
    seeds: list[tuple[np.ndarray, np.ndarray]], statistic: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Interval:
    """The mean over seeds of a rank correlation, with its interval by a bootstrap over the policies of each."""
    if not seeds:
        return Interval(np.nan)
    found = _mean([statistic(value[None], truth[None]) for value, truth in seeds])
    if min(len(value) for value, _ in seeds) < _FEW:
        return Interval(float(found[0]))
    rng, draws = np.random.default_rng(0), []
    for value, truth in seeds:
        chosen = rng.integers(0, len(value), (_RESAMPLES, len(value)))
        draws.append(statistic(value[chosen], truth[chosen]))
    low, high = percentile_interval(_mean(draws), 0.95)
    return Interval(float(found[0]), low, high, "policies")


def _mean(found: list[np.ndarray]) -> np.ndarray:
    """(R,) the mean over seeds (S of R), of those that have an order; NaN where none has."""
    stacked = np.stack(found)
    known = np.isfinite(stacked)
    total, count = np.where(known, stacked, 0.0).sum(0), known.sum(0)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(R, P), (R, P) → (R,) Kendall's τ-b of each row; NaN where all of a row are tied."""
    pairs = [np.sign(each[:, :, None] - each[:, None, :]).reshape(len(each), -1) for each in (x, y)]
    return _cosine(*pairs)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(R, P), (R, P) → (R,) Spearman's ρ of each row; NaN where all of a row are tied."""
    ranks = [stats.rankdata(each, axis=1) for each in (x, y)]
    return _cosine(*(each - each.mean(1, keepdims=True) for each in ranks))


def _cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    size = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.divide((x * y).sum(1), size, out=np.full(len(x), np.nan), where=size > 0)


def remarks(table: pd.DataFrame) -> pd.DataFrame:
    """What estimates do not say, and what they suffer from.

    Args:
        table: table of returns as in `harness.records`.

    Returns:
        A row for each dataset, estimate and policy with a remark. Columns: ``task``, ``bins``, ``tier``, ``metric``,
        ``policy``, ``withheld`` (how many of its ``estimates``), and ``remark``, that of the last one with any.
    """
    found = judgements(table).sort_values(["gradient_step", "seed"])
    found = found.assign(withheld=found["value"].isna(), said=found["remark"].where(found["remark"] != ""))
    grouped = found.groupby(["task", "bins", "tier", "metric", "policy"], as_index=False, sort=True)
    rows = grouped.agg(withheld=("withheld", "sum"), estimates=("withheld", "size"), remark=("said", "last"))
    return rows.dropna(subset="remark").reset_index(drop=True)


def choice(table: pd.DataFrame) -> list[str]:
    """Which policy the estimates favour on each dataset without a simulator, in sentences, at the full budget.

    Args:
        table: table of returns as in `harness.records`.
    """
    found = judgements(table)
    found = found[(found["fraction"] >= 1) & found["truth"].isna() & (found["metric"] != LIKELIHOOD)]
    several = found["algorithm"].nunique() > 1
    found = found.assign(name=found["policy"] + (" by " + found["algorithm"].str.upper() if several else ""))
    told = []
    for values, dataset in found.groupby(list(DATASET), sort=True):
        _, task, bins, tier = values
        said = [_favoured(str(metric), group) for metric, group in dataset.groupby("metric", sort=True)]
        told.append(f"On {setting_name(str(task), int(bins))} ({tier}): {' '.join(said)}")  # type: ignore[call-overload]
    return told


def _favoured(metric: str, group: pd.DataFrame) -> str:
    """What one estimate says of the policies of a dataset."""
    name = metric_name(metric).removeprefix("estimated ")
    withheld = group[group["value"].isna()]
    silent = "; ".join(
        f"of {', '.join(sorted(part['name'].unique(), key=policy_order))}: {reason}"
        for reason, part in withheld.groupby("remark", sort=True)
    )
    unsaid = f" It says nothing {silent}." if silent else ""
    means = group.dropna(subset="value").groupby("name")[["value", "low", "high"]].mean()
    means = means.sort_values("value", ascending=False)
    if means.empty:
        return f"{name} favours none.{unsaid}"
    best = means.iloc[0]
    text = f"{name} favours {means.index[0]}, {_bounds(best)}"
    if len(means) > 1:
        second = means.iloc[1]
        text += f", {best['value'] - second['value']:.3g} more than {means.index[1]}, {_bounds(second)}"
        if np.isnan([best["low"], second["high"]]).any():
            text += "; there are no intervals to compare"
        elif best["low"] > second["high"]:
            text += "; their intervals do not overlap"
        else:
            text += "; their intervals overlap, so that this does not decide between them"
    cautions = sorted({remark for remark in group.loc[group["value"].notna(), "remark"] if remark})
    caution = f" Beware: {'; '.join(cautions)}." if cautions else ""
    return f"{text}.{caution}{unsaid}"


def _bounds(row: pd.Series) -> str:
    bounds = "" if np.isnan(row["low"]) else f" [{row['low']:.4g}, {row['high']:.4g}]"
    return f"{row['value']:.4g}{bounds}"
