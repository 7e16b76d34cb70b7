"""Figures of returns can be read, and say what their intervals are."""

import matplotlib.pyplot as plt
import pandas as pd

from harness.reporting.figures import legend_label, mean_limits, policy_styles, return_curves
from harness.reporting.returns import Reference


def test_the_name_of_the_expert_stays_clear_of_the_title():
    panel = pd.DataFrame(
        [
            dict(tier=tier, policy="spin", gradient_step=step, mean=mean, low=mean - 9, high=mean + 9, seeds=1)
            | dict(asm_seconds=60.0, start_seconds=0.0, train_seconds=step / 10, fraction=step / 5000)
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


def test_a_legend_counts_seeds():
    assert legend_label("spin", pd.Series([3, 3])) == "spin (3 seeds)"
    assert legend_label("spin", pd.Series([1, 3])) == "spin (1 to 3 seeds)"


def test_bands_wider_than_the_returns_do_not_set_the_limits():
    rows = pd.DataFrame({"mean": [100.0, 500.0], "low": [-900.0, 300.0], "high": [1100.0, 700.0]})
    assert mean_limits(rows) == (0, 600)
    assert mean_limits(rows.assign(mean=[-50.0, -20.0]))[0] == -50
