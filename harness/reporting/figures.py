"""Figures of a report: return curves, and the tier × fraction table as a heat table.

Each policy has one colour, line style and marker (Okabe-Ito palette), so that figures read the same everywhere,
in print and to colour-blind readers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # never opens a window, wherever it runs
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from harness.records import RETURN, metric_name, setting_name
from harness.reporting.cells import algorithm_title, half_width
from harness.reporting.returns import Reference, ReportMeta, learning_seconds
from harness.reporting.statistics import policy_order, shown_fractions, tier_order

PANEL = ["preset", "metric", "algorithm", "task", "bins"]  # what one figure shows
_STYLES = {
    "factored": ("#555555", "--", "s"),
    "autoregressive": ("#E69F00", "-.", "^"),
    "saint": ("#0072B2", ":", "D"),
    "spin": ("#D55E00", "-", "o"),
}
_OTHERS = [
    ("#009E73", "-", "v"),
    ("#CC79A7", "--", "P"),
    ("#56B4E9", "-.", "X"),
    ("#000000", ":", "*"),
    ("#009E73", ":", "<"),
    ("#CC79A7", "-", ">"),
    ("#56B4E9", "--", "p"),
    ("#000000", "-.", "d"),
]
RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 160,
    "svg.fonttype": "none",  # text stays text
}


Styles = dict[str, tuple[str, str, str]]


def policy_styles(policies: Iterable[str]) -> Styles:
    """Colour, line style and marker of each policy; unknown ones take theirs by alphabetical order.

    All figures of a report use the result of one call, so that a policy looks the same in each.
    """
    policies = list(policies)
    unknown = sorted(policy for policy in policies if policy.casefold() not in _STYLES)
    others = {policy: _OTHERS[index % len(_OTHERS)] for index, policy in enumerate(unknown)}
    return {policy: _STYLES.get(policy.casefold()) or others[policy] for policy in policies}


def figures(
    summary: pd.DataFrame, meta: ReportMeta, styles: Styles, before: pd.DataFrame | None = None
) -> Iterator[tuple[str, Figure]]:
    """Pairs of file stem and figure for a report; the caller saves and closes the figures.

    Args:
        summary: table of `harness.reporting.statistics.summarize`.
        meta: source of the reference lines.
        styles: result of `policy_styles` for all policies.
        before: table of `harness.reporting.statistics.during_pretraining`; none draws no such lines.
    """
    for values, panel in summary.groupby(PANEL, sort=True):
        preset, metric, algorithm, task, bins = values
        title = f"{setting_name(task, bins)}, {algorithm_title(preset, metric, algorithm)}"
        stem = file_stem(task, f"{bins}bins", algorithm, preset, metric)
        if metric == RETURN:
            reference = meta.references.get((str(task), int(bins)))
            begun = None if before is None else before[(before[PANEL] == list(values)).all(axis=1)]
            yield f"curves_{stem}", return_curves(panel, styles, reference, title, "Episode return", begun)
            yield f"table_{stem}", heat_table(panel, title, "Episode return")
        elif (panel := panel.dropna(subset="mean"))["fraction"].nunique() > 1:  # some may have been withheld, or all
            yield f"estimates_{stem}", return_curves(panel, styles, None, title, metric_name(metric).capitalize())


def file_stem(*parts: str) -> str:
    """Name of a figure's files; the last part is the metric, left out if it is ``return``."""
    return "_".join(parts[:-1] if parts[-1] == RETURN else parts)


def save(figure: Figure, directory: Path, stem: str) -> list[Path]:
    """Write ``<stem>.png`` and ``<stem>.svg`` into `directory` and close the figure."""
    paths = [directory / f"{stem}{suffix}" for suffix in (".png", ".svg")]
    with plt.rc_context(RC):
        for path in paths:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
            figure.set_layout_engine("none")  # laid out once is enough
    plt.close(figure)
    return paths


def return_curves(
    panel: pd.DataFrame,
    styles: Styles,
    reference: Reference | None,
    title: str,
    ylabel: str,
    before: pd.DataFrame | None = None,
) -> Figure:
    """Mean return with its 95% band: a column per tier, against gradient steps above and time below, both logarithmic.

    Lines go through every evaluation; markers and ticks are at those of `shown_fractions`. Against time, the line of a
    policy that was evaluated as its ASM pre-trained begins there, thinner (`before`). A ring marks where a training
    ended early. The legend has the number of seeds of each line, and says if a band is over the episodes of a single
    seed.
    """
    tiers = sorted(panel["tier"].unique(), key=tier_order)
    marked = set(shown_fractions(panel))
    policies = sorted(panel["policy"].unique(), key=policy_order)
    unit, unit_name = _time_unit(float(learning_seconds(panel).max()))
    with plt.rc_context(RC):
        figure, grid = plt.subplots(
            2, len(tiers), figsize=(1.2 + 2.7 * len(tiers), 5.6), sharey=True, squeeze=False, layout="constrained"
        )
        for column, tier in enumerate(tiers):
            for policy in policies:
                colour, dashes, marker = styles[policy]
                line = panel[(panel["tier"] == tier) & (panel["policy"] == policy)].sort_values("gradient_step")
                times = learning_seconds(line) / unit
                at = np.flatnonzero(line["fraction"].isin(marked)).tolist()
                label = legend_label(policy, panel.loc[panel["policy"] == policy, "seeds"])
                style = {"color": colour, "marker": marker, "markevery": at, "ms": 4, "lw": 1.6, "label": label}
                for axes, x in ((grid[0, column], line["gradient_step"]), (grid[1, column], times)):
                    axes.plot(x, line["mean"], dashes, **style)
                    axes.fill_between(x, line["low"], line["high"], color=colour, alpha=0.15, lw=0)
                    if line["ended_early"].any():
                        axes.plot(x.iloc[-1:], line["mean"].iloc[-1:], "o", mfc="none", mec=colour, ms=9)
                if before is not None:
                    begun = before[(before["tier"] == tier) & (before["policy"] == policy)]
                    _draw_before(grid[1, column], begun, line, unit, colour)
            grid[0, column].set_title(tier)
            steps = panel.loc[panel["tier"] == tier].set_index("fraction")["gradient_step"]
            ticks = steps[steps.index.isin(marked)]
            _step_axis(grid[0, column], steps if ticks.empty else ticks)  # a tier may only have begun
            _time_axis(grid[1, column], f"ASM pre-training + training ({unit_name})")
        for axes in grid.flat:
            _reference_lines(axes, reference)
            light_grid(axes)
        bottom, top = mean_limits(panel)  # bands of few seeds can be wider than all returns
        if reference is not None:  # its name needs room below the title
            top = max(top, reference.expert + 0.1 * (reference.expert - bottom))
        grid[0, 0].set_ylim(bottom, top)
        for axes in grid[:, 0]:
            axes.set_ylabel(ylabel)
        legend_below(figure, grid[0, 0])
        figure.suptitle(title, fontsize=11)
    return figure


def _draw_before(axes: Axes, before: pd.DataFrame, line: pd.DataFrame, unit: int, colour: str) -> None:
    """The evaluations of an ASM on its way, against time, up to the first one of the training that follows."""
    if before.empty:
        return
    first = line.iloc[:1]
    spent = before["asm_seconds"] / unit
    times = pd.concat([spent, learning_seconds(first) / unit])
    axes.plot(times, pd.concat([before["mean"], first["mean"]]), "-", color=colour, marker=".", ms=4, lw=0.8)
    axes.fill_between(spent, before["low"], before["high"], color=colour, alpha=0.1, lw=0)


def legend_label(policy: str, seeds: pd.Series) -> str:
    """A policy with its number of seeds; a single seed is marked, since its interval is over episodes."""
    low, high = int(seeds.min()), int(seeds.max())
    if high == 1:
        return f"{policy} (1 seed: episodes)"
    return f"{policy} ({high if low == high else f'{low} to {high}'} seeds)"


def mean_limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Limits of an axis of returns: from 0, or the lowest mean if that is less, to a fifth above the highest mean."""
    bottom, top = min(0.0, rows["mean"].min()), max(0.0, rows["mean"].max())
    return float(bottom), float(top + 0.2 * (top - bottom or 1.0))


def heat_table(panel: pd.DataFrame, title: str, ylabel: str) -> Figure:
    """Tier × fraction for each policy: the mean return and half the width of its interval, coloured by score."""
    cells = {(row.policy, row.tier, row.fraction): row for row in panel.itertuples()}
    rows = sorted({key[:2] for key in cells}, key=lambda pair: (policy_order(pair[0]), tier_order(pair[1])))
    fractions = shown_fractions(panel)
    column = "normalized" if panel["normalized"].notna().any() else "mean"
    with plt.rc_context(RC):
        figure, axes = plt.subplots(figsize=(3.2 + 0.95 * len(fractions), 1.4 + 0.36 * len(rows)), layout="constrained")
        values = np.array(
            [[getattr(cells.get((*row, fraction)), column, np.nan) for fraction in fractions] for row in rows]
        )
        lowest = float(np.nanmin([0.0, *values.flat]))  # below 0 where a simulator's rewards are costs
        highest = 100.0 if column == "normalized" else float(np.nanmax([0.0, *values.flat]))
        image = axes.imshow(values, cmap="cividis", vmin=lowest, vmax=highest, aspect="auto")
        for (i, row), (j, fraction) in itertools.product(enumerate(rows), enumerate(fractions)):
            text = half_width(cells[*row, fraction]).replace("±", " ± ") if (*row, fraction) in cells else "–"
            axes.text(j, i, text, ha="center", va="center", color=ink(image, float(values[i, j])), fontsize=8)
        axes.set_xticks(range(len(fractions)), [f"{100 * fraction:g}%" for fraction in fractions])
        axes.set_yticks(range(len(rows)), [f"{policy}  {tier}" for policy, tier in rows])
        for i in range(1, len(rows)):
            if rows[i][0] != rows[i - 1][0]:
                axes.axhline(i - 0.5, color="white", lw=3)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("share of the budget of gradient steps")
        single = "; e: over the episodes of one seed" if (panel["seeds"] == 1).any() else ""
        axes.set_title(f"{title}\n{ylabel.lower()}, mean ± half of the 95% interval{single}", fontsize=10)
        figure.colorbar(image, ax=axes, label="normalized score" if column == "normalized" else ylabel, shrink=0.9)
    return figure


def ink(image: AxesImage, value: float) -> str:
    """Colour of text that is readable on a heat table's cell of that value."""
    return "black" if np.isnan(value) or float(image.norm(value)) > 0.55 else "white"  # type: ignore[arg-type]


def light_grid(axes: Axes) -> None:
    """Thin horizontal lines behind everything."""
    axes.grid(axis="y", color="0.9", lw=0.6)
    axes.set_axisbelow(True)


def legend_below(figure: Figure, axes: Axes) -> None:
    """The legend of `axes` below the whole figure, in as many rows as it needs."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, int(figure.get_figwidth() / (0.5 + 0.075 * max(map(len, labels)))))
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), frameon=False)


def _reference_lines(axes: Axes, reference: Reference | None) -> None:
    if reference is None:
        return
    # Curves begin low on the left and end high on the right: each name lies where they are not.
    for value, name, side in ((reference.expert, "expert", "left"), (reference.random, "random", "right")):
        axes.axhline(value, color="0.45", lw=0.9, ls=(0, (1, 2)), zorder=1)
        axes.annotate(
            f"benchmark {name}",
            (float(side == "right"), value),
            xycoords=("axes fraction", "data"),
            xytext=(3 if side == "left" else -3, 2),
            textcoords="offset points",
            ha=side,
            va="bottom",
            color="0.35",
            fontsize=7,
        )


def _step_axis(axes: Axes, steps: pd.Series) -> None:
    """Logarithmic, with a tick at each of `steps`: the first per cent of the budget is what the method is about."""
    ticks = sorted(set(steps))
    positive = [tick for tick in ticks if tick > 0]
    if len(positive) > 1:
        if ticks[0] <= 0:
            axes.set_xscale("symlog", linthresh=positive[0])
        else:
            axes.set_xscale("log")
    labels = [_thousands(tick) for tick in ticks]
    axes.set_xticks(ticks, labels, rotation=45 if max(map(len, labels)) > 4 else 0)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("gradient steps")


def _time_axis(axes: Axes, name: str) -> None:
    """Logarithmic, so that minutes of pre-training do not hide what happens within seconds."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(name)


def _time_unit(longest: float) -> tuple[int, str]:
    """Seconds in the unit that suits a time of `longest` seconds, and its name."""
    return next(((size, name) for size, name in ((3600, "h"), (60, "min")) if longest >= 3 * size), (1, "s"))


def _thousands(value: float) -> str:
    for size, suffix in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"
