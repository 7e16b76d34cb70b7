import math

import attrs
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.records import CellKey, Evaluation
from harness.reporting import paper_numbers
from harness.reporting.comparisons import (
    ALL_TIERS,
    aggregate,
    asymptotic_runs,
    best_checkpoint_runs,
    by_asm_length,
    differences,
    early_share,
    improvement_matrix,
    per_task,
    performance_profile,
    probability_of_improvement,
    strata,
    targets,
)
from harness.reporting.returns import Reference, ReportMeta, to_frame
from harness.reporting.statistics import summarize

META = ReportMeta(experiment="x", references={(task, 3): Reference(10.0, 110.0) for task in ("t", "u")})
Rows = dict[float, tuple[float, ...]]  # returns by fraction


def cell(
    policy: str, rows: Rows, *, task: str = "t", tier: str = "expert", seed: int = 0, minutes: float = 0.0
) -> list[tuple[CellKey, Evaluation]]:
    """The evaluations of one cell; training took `minutes` in all, and ASM pre-training as much again."""
    key = CellKey(task=task, bins=3, tier=tier, policy=policy, algorithm="iql", seed=seed)
    return [
        (
            key,
            Evaluation(
                gradient_step=round(100 * fraction),
                fraction=fraction,
                returns=returns,
                asm_seconds=60 * minutes,
                train_seconds=60 * minutes * fraction,
                evaluation_seconds=1000.0,
            ),
        )
        for fraction, returns in rows.items()
    ]


def table(*cells: list[tuple[CellKey, Evaluation]]) -> pd.DataFrame:
    return to_frame([result for one in cells for result in one], preset="laptop")


def finished(policy: str, *scores: float, task: str = "t", tier: str = "expert") -> list[tuple[CellKey, Evaluation]]:
    """Cells, one a seed, with these normalised scores under `META`."""
    return [
        row
        for seed, score in enumerate(scores)
        for row in cell(policy, {1.0: (score + 10,)}, task=task, tier=tier, seed=seed)
    ]


def test_the_asymptotic_return_is_the_last_and_the_best_checkpoints_the_highest() -> None:
    rows = table(
        cell("spin", {0.5: (90.0, 110.0), 1.0: (50.0, 70.0)}),
        cell("spin", {0.5: (20.0, 20.0), 1.0: (30.0, 40.0)}, seed=1),
        cell("spin", {0.5: (900.0, 900.0)}, seed=2),  # was stopped half-way, and counts in neither
    )
    last = asymptotic_runs(rows, META)
    assert last["seed"].tolist() == [0, 1]
    assert last["asymptotic_return"].tolist() == [60, 35]
    assert last["asymptotic_score"].tolist() == [50, 25]
    best = best_checkpoint_runs(rows, META)
    assert best["best_checkpoint_return"].tolist() == [100, 35]
    assert best["best_checkpoint_score"].tolist() == [90, 25]
    assert best["fraction"].tolist() == [0.5, 1.0]
    assert not [name for name in last if "best" in name] and not [name for name in best if "asymptotic" in name]


def test_strata_hold_what_can_be_compared() -> None:
    rows = table(
        finished("spin", 1, 2),
        finished("spin", 3, 4, task="u"),
        finished("factored", 5, task="u"),
        finished("factored", 6, 7),
        finished("saint", 8),  # has not finished u
        finished("spin", 9, task="v"),  # has no reference return
    )
    samples = strata(asymptotic_runs(rows, META), "asymptotic_score")
    assert {policy: [list(scores) for scores in datasets] for policy, datasets in samples.items()} == {
        "factored": [[6, 7], [5]],
        "spin": [[1, 2], [3, 4]],
    }
    assert list(samples) == ["factored", "spin"]
    assert strata(asymptotic_runs(table(), META), "asymptotic_score") == {}


def test_aggregates_by_hand() -> None:
    rows = table(
        finished("spin", 0, 0, 0, 0),
        finished("spin", 10, 20, task="u"),
        finished("spin", 90, 90, tier="medium"),
        finished("spin", 90, 90, task="u", tier="medium"),
    )
    summary = aggregate(asymptotic_runs(rows, META), "asymptotic_score").set_index(["tier", "policy"])
    assert list(summary.index) == [("medium", "spin"), ("expert", "spin"), (ALL_TIERS, "spin")]
    expert = summary.loc[("expert", "spin")]
    assert (expert["datasets"], expert["runs"], expert["measure"]) == (2, 6, "asymptotic_score")
    # Tasks weigh alike: (0 + 15) / 2, half of Student's interval of 10 and 20 on either side.
    assert expert["mean"].value == 7.5 and expert["mean"].high - 7.5 == pytest.approx(12.7062 * 2.5, rel=1e-4)
    # Of the six runs the lowest and the highest go: (0 + 0 + 0 + 10) / 4.
    assert expert["iqm"].value == 2.5 and math.isnan(expert["iqm"].low)
    assert summary.loc[("medium", "spin")]["mean"].low == 90
    # Four datasets: (0 + 15 + 90 + 90) / 4. Ten runs, two off either end: (0 + 0 + 10 + 20 + 90 + 90) / 6.
    assert summary.loc[(ALL_TIERS, "spin")]["mean"].value == 48.75
    assert summary.loc[(ALL_TIERS, "spin")]["iqm"].value == pytest.approx(35)


def test_a_performance_profile_weighs_datasets_alike() -> None:
    samples = [np.array([0.0, 50.0, 100.0]), np.array([50.0, 150.0])]
    profile = performance_profile(samples, np.array([-1.0, 50.0, 99.0, 150.0]))
    assert profile == pytest.approx([1, (1 / 3 + 1 / 2) / 2, (1 / 3 + 1 / 2) / 2, 0])  # above, not at, the threshold


def test_a_probability_of_improvement_by_hand() -> None:
    first = [np.array([1.0, 2.0]), np.array([3.0])]
    second = [np.array([1.0, 0.0]), np.array([5.0, 3.0])]
    # Pairs of the first task: a tie and three wins; of the second: a loss and a tie.
    improvement = probability_of_improvement(first, second, np.random.default_rng(0))
    assert improvement.value == ((0.5 + 3) / 4 + 0.5 / 2) / 2
    assert math.isnan(improvement.low)
    matrix = improvement_matrix({"spin": first, "factored": second})
    assert matrix.loc["spin", "spin"] is None
    assert matrix.loc["spin", "factored"].value + matrix.loc["factored", "spin"].value == 1


def test_an_interval_of_a_probability_of_improvement() -> None:
    few = probability_of_improvement([np.array([0.0, 2.0] * 2)], [np.ones(10)], np.random.default_rng(0))
    assert few.value == 0.5 and math.isnan(few.low)
    # Ten wins and losses of equal odds: between two and eight of them, but for one resample in twenty.
    ten = probability_of_improvement([np.array([0.0, 2.0] * 5)], [np.ones(10)], np.random.default_rng(0))
    assert (ten.value, ten.low, ten.high) == (0.5, pytest.approx(0.2), pytest.approx(0.8))


def test_per_task_and_early_shares() -> None:
    rows = table(
        cell("factored", {0.01: (10.0,), 1.0: (50.0,)}),
        cell("factored", {0.01: (10.0,), 1.0: (20.0,)}, tier="medium"),
        cell("spin", {0.01: (80.0,), 1.0: (100.0,)}),
        cell("spin", {0.01: (20.0,), 1.0: (40.0,)}, tier="medium"),
        cell("spin", {0.01: (5.0,)}, task="u"),  # nobody has finished there
    )
    summary = summarize(rows, META)
    returns = per_task(summary)
    assert list(returns.index) == [("t", 3, "medium"), ("t", 3, "expert")]
    assert returns["spin"].tolist() == [40, 100] and returns["factored"].tolist() == [20, 50]
    shares = early_share(summary)
    assert shares.loc["t", "factored"] == pytest.approx((100 * 10 / 100 + 100 * 10 / 40) / 2)
    assert shares.loc["t", "spin"] == pytest.approx((100 * 80 / 100 + 100 * 20 / 40) / 2)
    assert shares.loc["u"].isna().all()


def test_times_to_target_are_counted_and_restricted() -> None:
    rows = table(
        cell("factored", {0.5: (10.0,), 1.0: (100.0,)}, minutes=10),
        cell("factored", {0.5: (96.0,), 1.0: (100.0,)}, task="u", minutes=10),
        cell("spin", {0.5: (96.0,), 1.0: (96.0,)}, minutes=4),
        cell("spin", {0.5: (10.0,), 1.0: (96.0,)}, task="u", minutes=4),
        cell("saint", {1.0: (96.0,)}, minutes=4),
        cell("saint", {1.0: (10.0,)}, task="u", minutes=4),
        cell("spin", {1.0: (96.0,)}, tier="medium", minutes=4),  # without a target
    )
    found = targets(summarize(rows, META))
    assert (found.datasets, found.longest) == (2, 20)  # ten minutes of pre-training and ten of training
    assert found.reached.loc["expert"].to_dict() == {"factored": 2, "saint": 1, "spin": 2}
    minutes = {"factored": (20 + 15) / 2, "saint": (8 + 20) / 2, "spin": (6 + 8) / 2}
    assert found.minutes.loc["expert"].to_dict() == minutes
    assert found.minutes.loc["medium"].isna().all() and found.reached.loc["medium"].isna().all()


def test_differences_are_of_seeds_or_of_the_episodes_of_one() -> None:
    rows = table(
        finished("factored", 10, 20, 30),
        finished("spin", 110, 120, 130),
        finished("factored", 1, 2, 3, task="u"),
        finished("spin", 4, 6, 8, task="u"),
        finished("saint", 50, 60, task="u"),
        cell("factored after imitation", {1.0: (24.0, 26.0)}),  # one seed beside three: no interval
        finished("spin", 5, task="v"),  # without the reference policy
    )
    found = differences(rows, "factored")
    assert list(found.columns) == ["factored after imitation", "saint", "spin"]
    assert list(found.index) == [("t", 3, "expert"), ("u", 3, "expert"), ("all", 0, "")]
    expected = stats.ttest_ind([110, 120, 130], [10, 20, 30], equal_var=False).confidence_interval(0.95)
    spin = found["spin"].tolist()
    assert (spin[0].value, spin[0].low, spin[0].high) == pytest.approx((100, expected.low, expected.high))
    assert spin[2].value == pytest.approx((100 + 4) / 2) and spin[2].low < 52 < spin[2].high
    assert found["saint"].tolist()[0] is None and found["saint"].tolist()[2] is None  # it lacks a dataset
    mixed = found["factored after imitation"].tolist()[0]
    assert mixed.value == pytest.approx(25 - 30) and math.isnan(mixed.low)
    single = table(cell("factored", {1.0: (1.0, 2.0, 3.0)}), cell("spin", {1.0: (7.0, 8.0, 9.0)}))
    (alone,) = differences(single, "factored")["spin"]
    assert (alone.value, alone.over) == (6, "episodes") and alone.low < 6 < alone.high
    assert differences(single, "saint").empty


def test_lengths_of_pretraining_are_read_from_names() -> None:
    rows = table(
        cell("spin-asm-20%", {1.0: (50.0,)}), cell("spin-asm-2.5%", {1.0: (30.0,)}), cell("spin", {1.0: (60.0,)})
    )
    lengths = by_asm_length(summarize(rows, META), META).sort_values("percent")
    assert lengths[["base", "percent", "mean"]].to_numpy().tolist() == [["spin", 2.5, 30], ["spin", 20, 50]]


@pytest.mark.parametrize("name", ["RETURNS", "MINUTES", "SHARE_OF_BEST", "CARDINALITY"])
def test_the_papers_numbers_agree_with_their_own_last_row(name: str) -> None:
    numbers = getattr(paper_numbers, name)
    *rows, last = numbers.index
    expected = numbers.loc[rows].sum() if last == "total" else numbers.loc[rows].mean()
    assert numbers.loc[last].to_numpy() == pytest.approx(expected.to_numpy(), abs=0.11)


def estimated(metric: str, **values: float) -> list[tuple[CellKey, Evaluation]]:
    """One estimate for each policy at the full budget."""
    rows = [row for policy, value in values.items() for row in cell(policy, {1.0: (value,)})]
    return [(key, attrs.evolve(evaluation, metric=metric)) for key, evaluation in rows]


def test_estimates_are_not_scored() -> None:
    summary = summarize(table(finished("a", 10.0), estimated("other", a=5.0)), META)
    assert summary.set_index("metric")["normalized"].isna().to_dict() == {"other": True, "return": False}
    runs = asymptotic_runs(table(finished("a", 10.0), estimated("other", a=5.0)), META)
    assert runs.set_index("metric")["asymptotic_score"].isna().to_dict() == {"other": True, "return": False}
