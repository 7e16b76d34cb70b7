"""Figures of a dataset: episodes, frequencies of choices, dependence of sub-actions, ranges of observations."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from harness.reporting.figures import RC, ink, legend_below, light_grid, policy_styles
from spinrl.data.description import ActionStatistics, EpisodeStatistics, ObservationStatistics

_MISSING = "0.85"  # grey of cells without a value
_BAR = "#0072B2"
_NEVER = "#D55E00"
_NUMBERED = 6  # choices up to which shares stand as numbers in their cells


def overview(episodes: EpisodeStatistics, actions: ActionStatistics, title: str) -> Figure:
    """Returns and lengths above; coverage, entropy and mutual information of the sub-actions below."""
    count = len(actions.nvec)
    with plt.rc_context(RC):
        figure = plt.figure(figsize=(12, 5.2 + 0.11 * max(count, 8)), layout="constrained")
        grid = figure.add_gridspec(2, 6, height_ratios=(2.4, 2.0 + 0.13 * max(count, 8)))
        returns, lengths = figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3:])
        _histograms(returns, episodes.returns, "episode return")
        _histograms(lengths, episodes.lengths, "episode length (steps)")
        returns.set_ylabel("share of the source's episodes (%)")
        returns.legend(frameon=False)
        covered = figure.add_subplot(grid[1, :2])
        _coverage(covered, actions)
        _entropy(figure.add_subplot(grid[1, 2], sharey=covered), actions)
        _mutual_information(figure.add_subplot(grid[1, 3:]), actions)
        figure.suptitle(title, fontsize=11)
    return figure


def observation_ranges(observations: ObservationStatistics, title: str) -> Figure:
    """Lowest to highest value of every observation entry, its mean and standard deviation; constant ones marked."""
    size = len(observations.low)
    entries = np.arange(size)
    with plt.rc_context(RC):
        figure, axes = plt.subplots(figsize=(max(6.0, min(16.0, 0.14 * size)), 3.8), layout="constrained")
        axes.vlines(entries, observations.low, observations.high, color="0.6", lw=1, label="lowest to highest")
        axes.errorbar(
            entries, observations.mean, observations.std, fmt="o", ms=2.5, lw=2, color=_BAR, label="mean ± deviation"
        )
        constant = observations.constant
        if constant:
            axes.plot(constant, observations.low[constant], "x", ms=6, color=_NEVER, label="constant", zorder=3)
        axes.set_yscale("symlog", linthresh=1)
        axes.set(xlabel="observation entry", ylabel="value (linear to ±1, then logarithmic)", xlim=(-1, size))
        axes.set_title(title)
        light_grid(axes)
        legend_below(figure, axes)
    return figure


def _histograms(axes: Axes, values: Mapping[str, np.ndarray], label: str) -> None:
    """One histogram outline per source over common bins, as a share of the source's episodes."""
    pooled = np.concatenate(list(values.values()))
    low, high = float(pooled.min()), float(pooled.max())
    axes.ticklabel_format(axis="x", useOffset=False)
    if low == high:
        axes.set_xticks([low])
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 42).tolist()
    for name, (colour, dashes, _) in policy_styles(list(values)).items():
        mine = values[name]
        if len(mine):
            axes.hist(
                mine,
                edges,
                weights=np.full(len(mine), 100 / len(mine)),
                histtype="stepfilled",
                facecolor=(colour, 0.15),
                edgecolor=colour,
                linestyle=dashes,
                linewidth=1.6,
                label=f"{name} ({len(mine):,} episodes)",
            )
    axes.set_xlabel(label)
    light_grid(axes)


def _coverage(axes: Axes, actions: ActionStatistics) -> None:
    shares = 100 * actions.shares
    if shares.shape[1] <= _NUMBERED:
        image = _heat(axes, shares, Normalize(0, np.nanmax(shares)), bar=False)
        for (i, j), share in np.ndenumerate(shares):
            if share > 0:
                axes.text(j, i, f"{share:.0f}", ha="center", va="center", fontsize=7, color=ink(image, share))
        axes.set_xticks(range(shares.shape[1]))
    else:  # sub-actions of 2 and of 100 choices beside each other need a logarithmic scale
        _heat(axes, np.where(shares > 0, shares, np.nan), LogNorm(np.nanmin(shares[shares > 0]), np.nanmax(shares)))
    for i, never in enumerate(actions.never_taken):
        axes.plot(never, [i] * len(never), "x", ms=4, color=_NEVER)
    some = " (× never taken)" if any(actions.never_taken) else ""
    axes.set(xlabel="choice", ylabel="sub-action", title=f"share of transitions (%){some}")


def _entropy(axes: Axes, actions: ActionStatistics) -> None:
    rows = np.arange(len(actions.nvec))
    axes.barh(rows, actions.entropy, height=0.7, color=_BAR)
    axes.plot(np.log2(actions.nvec), rows, "|", color="black", ms=7)
    axes.set_xlim(0, 1.08 * np.log2(max(actions.nvec)))
    axes.set(xlabel="bits (| uniform)", title="entropy")
    axes.tick_params(labelleft=False)


def _mutual_information(axes: Axes, actions: ActionStatistics) -> None:
    bits, pairs = actions.beyond_chance, ~np.eye(len(actions.nvec), dtype=bool)
    some = f", from {actions.sampled:,} transitions" if actions.sampled < actions.transitions else ""
    title = f"mutual information beyond chance (bits){some}"
    if pairs.any():
        title += f"\nmean {bits[pairs].mean():.2g}, highest {bits[pairs].max():.2g}; "
        title += f"chance itself {actions.chance[pairs].mean():.2g}"
    _heat(axes, bits, Normalize(0, max(bits[pairs].max(initial=0), 1e-9)))
    axes.set(xlabel="sub-action", ylabel="sub-action", title=title)


def _heat(axes: Axes, values: np.ndarray, norm: Normalize, bar: bool = True) -> AxesImage:
    """A table of coloured cells, grey where there is no value."""
    image = axes.imshow(values, cmap="cividis", norm=norm, aspect="auto", interpolation="nearest")
    axes.set_facecolor(_MISSING)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if bar:
        axes.get_figure().colorbar(image, ax=axes, shrink=0.9)  # type: ignore[union-attr]
    return image
