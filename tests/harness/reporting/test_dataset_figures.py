"""Figures of datasets of all kinds are drawn, and show what the numbers say."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from harness.reporting.dataset_figures import observation_ranges, overview
from harness.reporting.figures import save
from spinrl.data.description import ActionStatistics, EpisodeStatistics, ObservationStatistics, mutual_information


def action_numbers(nvec: tuple[int, ...], steps: int = 400, transitions: int | None = None) -> ActionStatistics:
    rng = np.random.default_rng(0)
    actions = rng.integers(0, nvec, (steps, len(nvec)))
    actions[:, 0] = 0  # one choice is all that it ever takes
    return ActionStatistics(
        nvec=nvec,
        transitions=transitions or steps,
        sampled=steps,
        counts=[np.bincount(column, minlength=n) for column, n in zip(actions.T, nvec, strict=True)],
        mutual_information=mutual_information(actions, nvec),
        chance=mutual_information(rng.permuted(actions, axis=0), nvec),
    )


EPISODES = EpisodeStatistics(
    returns={"medium": np.arange(30.0), "expert, 5% random": np.arange(20.0) + 50, "none": np.array([])},
    lengths={"medium": np.full(30, 1000), "expert, 5% random": np.full(20, 1000), "none": np.array([], dtype=int)},
    terminated=0,
)


@pytest.mark.parametrize("nvec", [(3,), (3, 3, 3), (2, 3, 5, 100), (10,) * 6])
def test_every_kind_of_action_is_drawn_and_saved(nvec: tuple[int, ...], tmp_path: Path) -> None:
    plt.close("all")  # whatever other tests left open
    paths = save(overview(EPISODES, action_numbers(nvec), "a title"), tmp_path, "overview")
    assert [path.name for path in paths] == ["overview.png", "overview.svg"]
    text = paths[1].read_text()
    assert "a title" in text and "expert, 5% random (20 episodes)" in text and "× never taken" in text
    assert "mutual information beyond chance (bits)" in text and not plt.get_fignums()


def test_the_panels_show_the_numbers() -> None:
    actions = action_numbers((3, 2, 4), transitions=400)
    figure = overview(EPISODES, actions, "t")
    returns, lengths, covered, bars, shared, *_ = figure.axes
    assert returns.get_legend() is not None and "1000" in [tick.get_text() for tick in lengths.get_xticklabels()]
    np.testing.assert_allclose(np.ma.filled(covered.images[0].get_array(), np.nan), 100 * actions.shares)
    assert covered.texts[0].get_text() == "100"
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], actions.entropy)
    np.testing.assert_allclose(np.ma.filled(shared.images[0].get_array(), np.nan), actions.beyond_chance)
    plt.close(figure)


def test_a_sample_is_said_to_be_one() -> None:
    figure = overview(EPISODES, action_numbers((3, 3), steps=400, transitions=1000), "t")
    assert any("from 400 transitions" in axes.get_title() for axes in figure.axes)
    plt.close(figure)


def test_ranges_mark_constant_entries(tmp_path: Path) -> None:
    low = np.array([-1.0, 2.0, np.nan])
    numbers = ObservationStatistics(
        low=low, high=np.array([5.0, 2.0, np.nan]), mean=low, std=np.array([1, 0, np.nan]), nonfinite=np.zeros(3, int)
    )
    text = save(observation_ranges(numbers, "ranges"), tmp_path, "o")[1].read_text()
    assert "constant" in text and "lowest to highest" in text
