"""Figures of returns can be read, and say what their intervals are."""

import matplotlib.pyplot as plt
import pandas as pd

from harness.reporting.figures import figures, legend_label, mean_limits, policy_styles, return_curves
from harness.reporting.returns import Reference
from harness.reporting.statistics import during_pretraining, summarize
from tests.harness.synthetic import META, table


def test_the_name_of_the_expert_stays_clear_of_the_title():
    panel = pd.DataFrame(
        [
            dict(tier=tier, policy="spin", gradient_step=step, mean=mean, low=mean - 9, high=mean + 9, seeds=1)
            | dict(
                ended_early=False, asm_seconds=60.0, start_seconds=0.0, train_seconds=step / 10, fraction=step / 5000
            )
            for tier in ("medium", "medium-expert", "random-medium-expert", "expert")
            for step, mean in ((50, 9.0), (5000, 676.0))
        ]
    )
    figure = return_curves(panel, policy_styles(["spin"]), Reference(5.0, 711.9), "humanoid-stand", "Episode return")
    figure.canvas.draw()
    for axes in figure.axes[:4]:
        (name,) = [each for each in axes.texts if each.get_text() == "benchmark expert"]
        assert not name.get_window_extent().overlaps(axes.title.get_window_extent())
    minutes = figure.axes[4]
    assert minutes.get_xscale() == "log" and minutes.get_xlabel() == "ASM pre-training + training (min)"
    assert [text.get_text() for text in figure.legends[0].texts] == ["spin (1 seed: episodes)"]
    plt.close(figure)


def test_a_curve_against_time_begins_with_its_asm() -> None:
    rows = table(policies=("factored", "spin"), tiers=("expert",), seeds=2)
    first = rows[(rows["policy"] == "spin") & (rows["fraction"] == rows["fraction"].min())]
    asm = [
        first.assign(
            gradient_step=0,
            fraction=0.0,
            asm_share=share,
            asm_seconds=60 * share,
            train_seconds=0.0,
            **{"return": 100 * share},
        )
        for share in (0.25, 0.5)
    ]
    rows = pd.concat([*asm, rows.assign(ended_early=(rows["fraction"] == 1) & (rows["policy"] == "spin"))])
    summary = summarize(rows, META)
    spin = summary[summary["policy"] == "spin"]
    (_, figure), *_ = figures(summary, META, policy_styles(["factored", "spin"]), during_pretraining(rows))
    steps, seconds = figure.axes
    (begun,) = [line for line in seconds.lines if line.get_linewidth() == 0.8]
    assert begun.get_xdata().tolist()[:2] == [15, 30] and begun.get_ydata().tolist()[:2] == [25, 50]
    assert begun.get_ydata()[2] == spin["mean"].iloc[0]
    rings = [line for line in (*steps.lines, *seconds.lines) if line.get_markerfacecolor() == "none"]
    assert [ring.get_ydata().tolist() for ring in rings] == [[spin["mean"].iloc[-1]]] * 2
    plt.close("all")


def test_a_legend_counts_seeds():
    assert legend_label("spin", pd.Series([3, 3])) == "spin (3 seeds)"
    assert legend_label("spin", pd.Series([1, 3])) == "spin (1 to 3 seeds)"


def test_bands_wider_than_the_returns_do_not_set_the_limits():
    rows = pd.DataFrame({"mean": [100.0, 500.0], "low": [-900.0, 300.0], "high": [1100.0, 700.0]})
    assert mean_limits(rows) == (0, 600)
    assert mean_limits(rows.assign(mean=[-50.0, -20.0]))[0] == -50
