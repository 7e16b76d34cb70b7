"""The figure of estimates against returns: a point for each policy."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.records import LIKELIHOOD, metric_name, setting_name
from harness.reporting.estimates import DATASET, judgements
from harness.reporting.figures import RC, Styles, file_stem, legend_below
from harness.reporting.statistics import policy_order, tier_order


def truth_figures(table: pd.DataFrame, styles: Styles) -> Iterator[tuple[str, Figure]]:
    """Pairs of file stem and figure ``estimates_against_returns_…`` for each preset that has both.

    Args:
        table: table of returns as in `harness.records`.
        styles: result of `harness.reporting.figures.policy_styles` for all policies.
    """
    known = judgements(table).dropna(subset=["truth", "value"])
    for preset, points in known.groupby("preset", sort=True):
        yield file_stem("estimates_against_returns", str(preset), "return"), against_returns(points, styles)


def against_returns(points: pd.DataFrame, styles: Styles) -> Figure:
    """A column for each dataset and a row for each estimate; a larger point is a longer training.

    Args:
        points: rows of `harness.reporting.estimates.judgements` that have a truth and a value.
        styles: result of `harness.reporting.figures.policy_styles`.
    """
    datasets = sorted(points[list(DATASET[1:])].drop_duplicates().itertuples(index=False, name=None),
                      key=lambda each: (*each[:2], tier_order(each[2])))  # fmt: skip
    metrics = sorted(points["metric"].unique())
    with plt.rc_context(RC):
        size = (1.0 + 2.5 * len(datasets), 1.0 + 2.3 * len(metrics))
        figure, grid = plt.subplots(len(metrics), len(datasets), figsize=size, squeeze=False, layout="constrained")
        for column, (task, bins, tier) in enumerate(datasets):
            grid[0, column].set_title(f"{setting_name(task, bins)}\n{tier}", fontsize=9)
            grid[-1, column].set_xlabel("discounted return")
            of = points[(points["task"] == task) & (points["bins"] == bins) & (points["tier"] == tier)]
            for row, metric in enumerate(metrics):
                _panel(grid[row, column], of[of["metric"] == metric], styles)
        for row, metric in enumerate(metrics):
            grid[row, 0].set_ylabel(metric_name(metric))
        names = sorted(points["policy"].unique(), key=policy_order)
        for name in names:  # one entry for each policy, whichever panels it is in
            colour, _, marker = styles[name]
            grid[0, 0].plot([], [], marker, color=colour, ms=5, label=name)
        legend_below(figure, grid[0, 0])
    return figure


def _panel(axes: Axes, points: pd.DataFrame, styles: Styles) -> None:
    if points.empty:
        axes.text(0.5, 0.5, "withheld", ha="center", va="center", color="0.5", transform=axes.transAxes)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    for (policy, fraction), group in points.groupby(["policy", "fraction"]):
        colour, _, marker = styles[str(policy)]
        below, above = (group["value"] - group["low"]).clip(lower=0), (group["high"] - group["value"]).clip(lower=0)
        axes.errorbar(
            group["truth"], group["value"], yerr=[below, above], fmt=marker, color=colour, alpha=0.8, elinewidth=0.7,
            ms=3 + 3 * float(fraction) ** 0.3,  # type: ignore[arg-type]
        )  # fmt: skip
    if points["metric"].iloc[0] != LIKELIHOOD:
        low, high = points["truth"].min(), points["truth"].max()
        axes.plot([low, high], [low, high], color="0.6", lw=0.8, ls=":", zorder=0)
