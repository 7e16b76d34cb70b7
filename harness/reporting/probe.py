"""Results of the linear probe as tables and figures."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.records import setting_name
from harness.reporting.figures import RC, legend_below, light_grid
from harness.reporting.statistics import mean_interval
from harness.reporting.tables import NamedTable

RESULTS_FILE = "probe.csv"
SETTING = ["preset", "task", "bins", "tier"]
SHARES = {
    "slot_accuracy": "per slot",
    "majority_accuracy": "majority",
    "independence": "independence",
    "exact_match": "exact match",
}
NOTES = (
    "Sees others: the observation and all sub-actions but the slot's own. Sees observation: nothing else.",
    "Majority: always answering a slot's most frequent choice. Independence: the product of the slots' accuracies.",
    "All in percent of what is held out: the mean over seeds, ± half of Student's 95% interval.",
)
# For dog-trot with its 38 sub-actions; arXiv 2601.04441 does not state the input of its probe or the tier of its data.
_PAPER_ROWS = pd.DataFrame(
    [
        ["trained, dog (paper)", "–", "90.0", "–", "1.83", "4.52"],
        ["random, dog (paper)", "–", "76.6", "–", "–", "0.10"],
    ],
    columns=["ASM", "sees", *SHARES.values()],
)
_STYLES = {
    ("trained", "others"): ("#D55E00", "o"),
    ("trained", "observation"): ("#E69F00", "^"),
    ("random", "others"): ("#0072B2", "s"),
    ("random", "observation"): ("#56B4E9", "D"),
}


def probe_tables(table: pd.DataFrame, *, with_paper: bool = False) -> Iterator[NamedTable]:
    """A table for each dataset, averaged over seeds.

    Args:
        table: table of `harness.probe`: a row for each ASM, input and seed.
        with_paper: whether to add the paper's numbers for dog-trot.
    """
    for values, group in table.groupby(SETTING, sort=False):
        preset, task, bins, tier = values
        seeds, tested = group["seed"].nunique(), group["tested"].min()
        counts = f"{seeds} seed{'' if seeds == 1 else 's'}, {tested:,} held-out transitions"
        rows = [
            {"ASM": asm, "sees": what, **{name: _percent(each[share]) for share, name in SHARES.items()}}
            for (asm, what), each in group.groupby(["asm", "input"], sort=False)
        ]
        rendered = pd.DataFrame(rows)
        if with_paper:
            rendered = pd.concat([rendered, _PAPER_ROWS], ignore_index=True)
        yield f"{setting_name(task, bins)}, {tier}, {preset} preset: {counts}", rendered


def probe_figures(table: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """The accuracy in every slot, a figure for each dataset, with its file stem."""
    for values, group in table.groupby(SETTING, sort=False):
        preset, task, bins, tier = values
        slots = [name for name in group if name.startswith("slot_accuracy_") and group[name].notna().all()]
        with plt.rc_context(RC):
            figure, axes = plt.subplots(figsize=(max(5.0, 1.5 + 0.3 * len(slots)), 3.4), layout="constrained")
            for (asm, what), each in group.groupby(["asm", "input"], sort=False):
                colour, marker = _STYLES[asm, what]
                label = f"{asm} ASM, sees {what}"
                axes.plot(100 * each[slots].mean().to_numpy(), marker, color=colour, ms=4.5, label=label)
            axes.set(xlabel="sub-action", ylabel="accuracy in %", ylim=(0, 101), xticks=range(len(slots)))
            axes.set_title(f"{setting_name(task, bins)}, {tier}: one linear classifier per slot")
            axes.tick_params(axis="x", labelsize=7)
            light_grid(axes)
            legend_below(figure, axes)
        yield f"probe_{task}_{bins}bins_{tier}_{preset}", figure


def _percent(shares: pd.Series) -> str:
    found = mean_interval([100 * shares.to_numpy()], np.random.default_rng(0))
    return f"{found.value:.2f}" + ("" if np.isnan(found.low) else f" ± {(found.high - found.low) / 2:.2f}")
