import math

import attrs
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.records import CellKey, Evaluation
from harness.reporting.returns import Reference, ReportMeta, from_frame, merge, read_csv, to_csv, to_frame
from harness.reporting.statistics import (
    Interval,
    bootstrap_interval,
    iqm,
    mean_interval,
    normalized_score,
    policy_order,
    share_of_best,
    summarize,
    tier_by_policy,
    time_to_target,
    units,
)

META = ReportMeta(experiment="x", references={("t", 3): Reference(10.0, 110.0)})


def key(policy: str = "spin", tier: str = "expert", seed: int = 0, task: str = "t") -> CellKey:
    return CellKey(task=task, bins=3, tier=tier, policy=policy, algorithm="iql", seed=seed)


def evaluation(fraction: float, *returns: float, asm: float = 0.0, train: float = 0.0) -> Evaluation:
    return Evaluation(
        gradient_step=round(100 * fraction),
        fraction=fraction,
        returns=returns,
        asm_seconds=asm,
        train_seconds=train,
        evaluation_seconds=1.0,
    )


def table(*results: tuple[CellKey, Evaluation]) -> pd.DataFrame:
    return to_frame(results, preset="laptop")


def test_normalized_score() -> None:
    assert normalized_score(4.54, 4.54, 711.9) == 0
    assert normalized_score(711.9, 4.54, 711.9) == 100
    assert normalized_score(35.0, 10.0, 110.0) == 25


def test_iqm_leaves_out_the_outer_quarters() -> None:
    values = np.array([-1000.0, 1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0, 9999.0])
    assert iqm(*values) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert iqm(np.array([7.0])) == 7


def test_an_interval_is_over_seeds_and_for_one_seed_over_its_episodes() -> None:
    returns, seeds = pd.Series([1.0, 3.0, 10.0, 20.0]), pd.Series([0, 0, 1, 1])
    (of_two, over_seeds), (of_one, over_episodes) = units(returns, seeds), units(returns[:2], seeds[:2])
    assert (of_two.tolist(), over_seeds) == ([2.0, 15.0], "seeds")
    assert (of_one.tolist(), over_episodes) == ([1.0, 3.0], "episodes")


def interval(*strata: list[float], seed: int = 0, **options: object) -> Interval:
    arrays = [np.array(stratum, dtype=float) for stratum in strata]
    return mean_interval(arrays, np.random.default_rng(seed), **options)  # type: ignore[arg-type]


def test_the_interval_of_few_seeds_is_students() -> None:
    found = interval([2, 15])
    assert found.value == 8.5 and found.high - 8.5 == pytest.approx(12.7062 * 6.5, rel=1e-4)  # t of one degree
    expected = stats.t.interval(0.95, 2, loc=4, scale=stats.sem([1, 3, 8]))
    assert (interval([1, 3, 8]).low, interval([1, 3, 8]).high) == pytest.approx(expected)


def test_an_interval_of_a_difference_is_welchs() -> None:
    first, second = [451.0, 431.0, 499.0], [298.0, 311.0, 231.0]
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    found = interval(first, second, weights=[1, -1])
    assert found.value == pytest.approx(np.mean(first) - np.mean(second))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_stratified_interval_weighs_datasets_alike() -> None:
    found = interval([0, 0, 0, 0], [10, 20])
    assert found.value == 7.5  # the first dataset does not vary, so that the second one's degree of freedom is left
    assert found.high - 7.5 == pytest.approx(12.7062 * 5 / 2, rel=1e-4)


def test_an_interval_needs_two_values_and_constants_have_no_width() -> None:
    alone = interval([5], [1, 2])
    assert alone.value == 3.25 and math.isnan(alone.low) and math.isnan(alone.high)
    assert (interval([5, 5]).low, interval([5, 5]).high) == (5, 5)
    assert math.isnan(interval([5, np.nan]).value)


def test_fewer_than_ten_runs_give_no_interval_of_a_statistic_that_is_no_mean() -> None:
    few, enough = np.arange(9.0), np.arange(10.0)
    assert math.isnan(bootstrap_interval([enough, few], np.random.default_rng(0), iqm).low)
    found = bootstrap_interval([enough, enough], np.random.default_rng(0), iqm)
    assert found.low < found.value == 4.5 < found.high
    assert math.isnan(bootstrap_interval([np.array([5.0, np.nan] * 5)], np.random.default_rng(0), iqm).value)


DRAWS = {"normal": (lambda rng, shape: rng.normal(0, 1, shape), 0.0),
         "skewed": (lambda rng, shape: rng.exponential(1, shape), 1.0)}  # fmt: skip


@pytest.mark.parametrize("returns", list(DRAWS))
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_an_interval_covers_the_truth_as_often_as_it_says(seeds: int, returns: str) -> None:
    rng = np.random.default_rng(0)
    draw, truth = DRAWS[returns]
    found = [mean_interval([sample], rng, resamples=500) for sample in draw(rng, (1000, seeds))]
    covered = np.mean([each.low <= truth <= each.high for each in found])
    # Of returns as skewed as an exponential distribution, which means over episodes never are, Student's t of three
    # and five seeds covers 0.88; a percentile bootstrap would cover 0.69 and 0.76 (0.75 and 0.84 if normal).
    assert covered >= (0.93 if returns == "normal" else 0.86)


def test_the_interval_over_datasets_and_that_of_a_difference_cover_too() -> None:
    rng = np.random.default_rng(0)
    spreads, weights = (1, 2, 5, 20), [0.5, -0.5, 0.5, -0.5]  # two datasets, two policies, three seeds each
    found = [
        mean_interval([rng.normal(3, spread, 3) for spread in spreads], rng, weights=chosen)
        for chosen in (None, weights)
        for _ in range(500)
    ]
    for truth, some in ((3, found[:500]), (0, found[500:])):
        assert np.mean([each.low <= truth <= each.high for each in some]) >= 0.93


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12), st.integers(0, 99))
def test_an_interval_holds_its_estimate_and_repeats(values: list[float], seed: int) -> None:
    first, second = (interval(values, seed=seed, resamples=50) for _ in range(2))
    assert first == second
    assert math.isnan(first.low) or first.low <= first.high


def test_a_summary_row_by_hand() -> None:
    rows = table(
        (key(seed=0), evaluation(1.0, 50.0, 70.0, asm=10, train=4)),
        (key(seed=1), evaluation(1.0, 80.0, 100.0, asm=20, train=6)),
    )
    (row,) = summarize(rows, META).itertuples()
    assert (row.mean, row.over) == (75, "seeds") and row.high - 75 == pytest.approx(12.7062 * 15, rel=1e-4)
    assert (row.seeds, row.episodes, row.gradient_step) == (2, 4, 100)
    assert row.normalized == 65 and row.share == 100
    assert (row.asm_seconds, row.train_seconds) == (15, 5)


def test_a_task_without_reference_is_not_normalized() -> None:
    (row,) = summarize(table((key(task="unknown"), evaluation(1.0, 5.0))), META).itertuples()
    assert math.isnan(row.normalized)


def test_share_of_best_is_of_the_best_final_return_not_of_the_best_checkpoint() -> None:
    rows = table(
        (key("factored"), evaluation(0.01, 20.0)),
        (key("factored"), evaluation(1.0, 80.0)),
        (key("spin"), evaluation(0.01, 150.0)),  # higher than any final return
        (key("spin"), evaluation(1.0, 100.0)),
        (key("spin", "medium"), evaluation(0.01, 30.0)),  # never finished: its tier has no best
    )
    shares = summarize(rows, META).set_index(["policy", "tier", "fraction"])["share"]
    assert shares["factored", "expert", 0.01] == 20
    assert shares["factored", "expert", 1.0] == 80
    assert shares["spin", "expert", 0.01] == 150
    assert math.isnan(shares["spin", "medium", 0.01])


def test_a_share_of_a_best_that_is_not_positive_means_nothing() -> None:
    summary = summarize(table((key(), evaluation(1.0, -5.0))), META)
    assert share_of_best(summary).isna().all()


def test_time_to_target_counts_asm_and_training_to_the_first_evaluation_that_reaches_it() -> None:
    rows = table(
        (key("factored"), evaluation(0.5, 120.0, train=50)),  # a lucky checkpoint does not raise the target
        (key("factored"), evaluation(1.0, 100.0, train=100)),
        (key("spin"), evaluation(0.01, 94.9, asm=30, train=1)),
        (key("spin"), evaluation(0.1, 95.0, asm=30, train=10)),
        (key("spin"), evaluation(1.0, 99.0, asm=30, train=100)),
        (key("saint"), evaluation(1.0, 94.0, train=500)),
        (key("spin", "medium"), evaluation(1.0, 94.0)),
    )
    times = time_to_target(summarize(rows, META)).set_index(["policy", "tier"])
    assert times.loc[("spin", "expert"), "target"] == 95
    assert times.loc[("spin", "expert"), "seconds"] == 40
    assert times.loc[("factored", "expert"), "seconds"] == 50
    assert times.loc[("saint", "expert"), "seconds"] == math.inf  # never
    assert math.isnan(times.loc[("spin", "medium"), "seconds"])  # nothing to compare with
    assert math.isnan(times.loc[("spin", "medium"), "target"])


def test_a_target_that_an_unfinished_training_has_not_reached_is_not_one_it_never_will() -> None:
    rows = table((key("factored"), evaluation(1.0, 100.0)), (key("spin"), evaluation(0.5, 90.0)))
    assert math.isnan(time_to_target(summarize(rows, META)).set_index("policy").loc["spin", "seconds"])


def test_costs_give_no_target() -> None:
    rows = table((key("factored"), evaluation(1.0, -400.0)), (key("spin"), evaluation(1.0, -390.0)))
    times = time_to_target(summarize(rows, META))
    assert times["target"].isna().all() and times["seconds"].isna().all()


def test_tables_in_the_papers_order() -> None:
    rows = table(
        (key("spin", "expert"), evaluation(0.01, 40.0)),
        (key("spin", "expert"), evaluation(1.0, 100.0)),
        (key("spin", "medium"), evaluation(1.0, 50.0)),
        (key("factored", "expert"), evaluation(1.0, 90.0)),
        (key("factored", "expert", task="u"), evaluation(1.0, 70.0)),
    )
    summary = summarize(rows, META)
    by_policy = tier_by_policy(summary)
    assert list(by_policy.columns) == ["factored", "spin"]
    assert list(by_policy.index) == ["medium", "expert", "average"]
    assert by_policy.loc["expert", "factored"] == 80  # mean over the tasks t and u
    assert math.isnan(by_policy.loc["expert", "spin"])  # it lacks the task u
    assert math.isnan(by_policy.loc["average", "factored"])  # it lacks medium
    assert math.isnan(by_policy.loc["medium", "spin"])  # nobody has the task u there
    alone = tier_by_policy(summarize(rows[(rows["task"] == "t") & (rows["policy"] == "spin")], META))
    assert alone.loc["average", "spin"] == 75


def test_variants_of_a_policy_follow_it_with_their_numbers_in_order() -> None:
    expected = ["factored", "factored after imitation", "saint", "saint-9000", "spin", "spin-asm-5%", "spin-asm-20%"]
    assert sorted(["other", *reversed(expected)], key=policy_order) == [*expected, "other"]


def test_an_empty_table_has_an_empty_summary() -> None:
    summary = summarize(to_frame([], preset="laptop"), META)
    assert summary.empty and tier_by_policy(summary).empty and time_to_target(summary).empty


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=30)
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    st.lists(finite, min_size=1, max_size=5),
    finite,
)
def test_a_table_survives_csv_exactly(tier: str, returns: list[float], seconds: float) -> None:
    given_ = evaluation(0.1, *returns, asm=seconds, train=seconds)
    frame = read_csv(to_csv(table((key(tier=tier), given_))))
    assert from_frame(frame) == [(key(tier=tier), given_)]


def test_evaluations_and_meta_survive_json() -> None:
    one = evaluation(0.1, 1.5, 2.5)
    assert Evaluation.from_plain(one.to_plain()) == one
    meta = attrs.evolve(META, asm_epochs={("laptop", "t", 3, "expert"): 5.12})
    assert ReportMeta.from_json(meta.to_json()) == meta


def test_a_broken_table_is_refused_by_column() -> None:
    with pytest.raises(ValueError, match="no column seed, return"):
        read_csv(table().drop(columns=["seed", "return"]).to_csv(index=False))
    text = to_csv(table((key(), evaluation(1.0, 5.0)))).replace(",5.0,", ",five,")
    with pytest.raises(ValueError, match="wrong type"):
        read_csv(text)


def test_a_rerun_replaces_a_cell_whole_unless_it_stopped_early() -> None:
    old = table((key(), evaluation(0.5, 1.0)), (key(), evaluation(1.0, 1.0)), (key("saint"), evaluation(1.0, 3.0)))
    stopped = table((key(), evaluation(0.5, 9.0)))
    newer = table((key(), evaluation(1.0, 2.0, 2.0)))
    kept = merge([old, stopped])
    assert sorted(kept["return"]) == [1, 1, 3]
    assert sorted(merge([old, stopped, newer])["return"]) == [2, 2, 3]
    assert merge([]).empty


def test_a_trial_of_a_few_steps_replaces_no_training_and_estimates_stay_with_their_returns() -> None:
    whole = table((key(), evaluation(1.0, 500.0)), (key(), attrs.evolve(evaluation(1.0, 0.1), metric="fitted_q")))
    trial = table((key(), evaluation(1.0, 4.0))).assign(gradient_step=1)
    assert set(merge([whole, trial])["return"]) == {500.0, 0.1}
    again = table((key(), evaluation(1.0, 480.0)))
    assert set(merge([whole, again])["return"]) == {480.0}
