"""Figures of a report that compare whole policies: performance profiles, and the return against ASM pre-training."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.records import setting_name
from harness.reporting.cells import algorithm_title
from harness.reporting.comparisons import by_asm_length, performance_profile, strata
from harness.reporting.figures import PANEL, RC, Styles, file_stem, legend_below, legend_label, light_grid, mean_limits
from harness.reporting.returns import ReportMeta
from harness.reporting.statistics import asymptotic, tier_order
from harness.reporting.tables import GROUP


def comparison_figures(
    summary: pd.DataFrame, runs: pd.DataFrame, meta: ReportMeta, styles: Styles
) -> Iterator[tuple[str, Figure]]:
    """Pairs of file stem and figure: ``profile_…`` from two seeds on, ``asm_…`` if lengths of pre-training vary.

    Args:
        summary: table of `harness.reporting.statistics.summarize`.
        runs: table of `harness.reporting.comparisons.asymptotic_runs`.
        meta: source of the epochs of pre-training.
        styles: result of `harness.reporting.figures.policy_styles` for all policies.
    """
    for values, group in runs.groupby(GROUP, sort=True):
        preset, metric, algorithm = map(str, values)
        samples = strata(group, "asymptotic_score")
        if samples and group["seed"].nunique() > 1:
            title = f"Performance profiles, {algorithm_title(preset, metric, algorithm)}"
            yield file_stem("profile", algorithm, preset, metric), profiles(samples, styles, title)
    for values, panel in summary.groupby(PANEL, sort=True):
        preset, metric, algorithm, task, bins = map(str, values)
        if not by_asm_length(panel, meta).empty:
            title = f"{setting_name(task, int(bins))}, {algorithm_title(preset, metric, algorithm)}"
            stem = file_stem("asm", task, f"{bins}bins", algorithm, preset, metric)
            yield stem, asm_length_curve(panel, styles, title, meta)


def profiles(samples: dict[str, list[np.ndarray]], styles: Styles, title: str) -> Figure:
    """Share of runs above each normalised score, a curve a policy.

    Args:
        samples: asymptotic scores, from `harness.reporting.comparisons.strata`.
        styles: result of `harness.reporting.figures.policy_styles`.
        title: title of the figure.
    """
    pooled = np.concatenate([scores for datasets in samples.values() for scores in datasets])
    thresholds = np.linspace(min(0.0, pooled.min() - 1), max(100.0, pooled.max() + 1), 401)
    with plt.rc_context(RC):
        figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
        for policy, scores in samples.items():
            colour, dashes, marker = styles[policy]
            shares = 100 * performance_profile(scores, thresholds)
            label = f"{policy} ({sum(map(len, scores))} runs)"
            axes.plot(thresholds, shares, dashes, color=colour, marker=marker, ms=4, markevery=40, lw=1.6, label=label)
        axes.set_xlim(thresholds[0], thresholds[-1])
        axes.set_ylim(-2, 102)
        axes.set_xlabel("normalized score at the full budget")
        axes.set_ylabel("runs above that score (%)")
        axes.set_title(title)
        light_grid(axes)
        legend_below(figure, axes)
    return figure


def asm_length_curve(panel: pd.DataFrame, styles: Styles, title: str, meta: ReportMeta) -> Figure:
    """Return at the full budget against the length of ASM pre-training, a column per tier.

    Policies without a length in their name are levels to compare with, as the paper does with factored-IQL. The axis
    is in epochs where `meta` knows them of all columns, else in percent of the full length.
    """
    lengths = by_asm_length(panel, meta)
    known = lengths["epochs"].notna().all()
    x = "epochs" if known else "percent"
    others = asymptotic(panel)[lambda rows: ~rows["policy"].isin(lengths["policy"])]
    tiers = sorted(lengths["tier"].unique(), key=tier_order)
    with plt.rc_context(RC):
        figure, grid = plt.subplots(
            1, len(tiers), figsize=(max(4.8, 1.2 + 2.9 * len(tiers)), 3.6), sharey=True, squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for axes, tier in zip(grid[0], tiers, strict=True):
            for base, line in lengths[lengths["tier"] == tier].sort_values("percent").groupby("base"):
                colour, dashes, marker = styles[str(base)]
                label = legend_label(str(base), line["seeds"])
                axes.plot(line[x], line["mean"], dashes, color=colour, marker=marker, ms=4, lw=1.6, label=label)
                axes.fill_between(line[x], line["low"], line["high"], color=colour, alpha=0.15, lw=0)
            for policy, level in others[others["tier"] == tier].groupby("policy"):
                colour, dashes, _ = styles[str(policy)]
                label = legend_label(str(policy), level["seeds"])
                axes.axhline(level["mean"].item(), ls=dashes, color=colour, lw=1.4, label=label)
                axes.axhspan(level["low"].item(), level["high"].item(), color=colour, alpha=0.1, lw=0)
            axes.set_xlim(0, lengths.loc[lengths["tier"] == tier, x].max() * 1.03)
            axes.set_title(tier)
            axes.set_xlabel("epochs of ASM pre-training" if known else "ASM pre-training (% of its full length)")
            light_grid(axes)
        grid[0, 0].set_ylim(mean_limits(panel))
        grid[0, 0].set_ylabel("return at the full budget")
        legend_below(figure, grid[0, 0])
        figure.suptitle(title, fontsize=11)
    return figure
