"""What reports say of estimates: beside returns, and where there are none."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.records import CellKey, Evaluation
from harness.reporting.cells import bounded
from harness.reporting.estimate_figures import truth_figures
from harness.reporting.estimates import agreement, choice, judgements, kendall, remarks, spearman
from harness.reporting.figures import figures, policy_styles, save
from harness.reporting.returns import ReportMeta, from_frame, read_csv, to_csv, to_frame
from harness.reporting.statistics import summarize
from harness.reporting.tables import estimate_tables
from spinrl.evaluation import Estimate

Result = tuple[CellKey, Evaluation]
TRUTHS = {"a": 10.0, "b": 20.0, "c": 30.0, "d": 40.0}


def result(policy: str, seed: int = 0, fraction: float = 1.0, tier: str = "expert", **fields: object) -> Result:
    key = CellKey(task="t", bins=3, tier=tier, policy=policy, algorithm="iql", seed=seed)
    spent = {"asm_seconds": 0.0, "train_seconds": 1.0, "evaluation_seconds": 1.0}
    return key, Evaluation(gradient_step=round(100 * fraction), fraction=fraction, **spent, **fields)  # type: ignore[arg-type]


def returned(policy: str, truth: float, **where: object) -> Result:
    """Two episodes whose mean discounted return is the truth; undiscounted ones order policies the other way round."""
    return result(policy, returns=(-truth, -truth), discounted=(truth - 1, truth + 1), **where)


def estimated(policy: str, value: float | None, metric: str = "fitted_q", remark: str = "", **where: object) -> Result:
    bounds = {} if value is None else {"low": value - 4, "high": value + 4, "effective_episodes": 7.0}
    found = Estimate(metric=metric, value=value, remark=remark, details={"seconds": 30.0}, **bounds)
    return result(policy, **where, **Evaluation.fields_of(found))


def table(*results: Result) -> pd.DataFrame:
    return to_frame(results, preset="laptop")


def both(values: dict[str, float | None], metric: str = "fitted_q", **where: object) -> list[Result]:
    truths = [returned(policy, truth, **where) for policy, truth in TRUTHS.items()]
    return truths + [estimated(policy, value, metric, **where) for policy, value in values.items()]


def test_estimates_survive_the_table_and_the_file() -> None:
    results = [
        estimated("a", 1.5, remark='it says "so", twice'),
        estimated("b", None, remark="too few"),
        returned("a", 2),
    ]
    assert sorted(from_frame(read_csv(to_csv(table(*results)))), key=str) == sorted(results, key=str)


def test_the_truth_is_the_discounted_return_of_the_same_policy() -> None:
    rows = table(
        returned("a", 10.0), estimated("a", 12.0), returned("a", 3.0, fraction=0.1), estimated("a", 5.0, fraction=0.1)
    )
    found = judgements(rows).sort_values("fraction")
    assert found["truth"].tolist() == [3.0, 10.0] and found["value"].tolist() == [5.0, 12.0]
    assert (found["seconds"] == 30).all()
    rows["discounted"] = np.nan  # as stored before returns were discounted
    assert judgements(rows)["truth"].tolist() == [-3.0, -10.0]


@pytest.mark.parametrize(
    ("values", "tau", "regret", "covered", "error"),
    [
        ({"a": 11.0, "b": 21.0, "c": 31.0, "d": 41.0}, 1.0, 0.0, 100.0, 1 / np.std(list(TRUTHS.values()))),
        ({"a": 40.0, "b": 30.0, "c": 20.0, "d": 10.0}, -1.0, 75.0, 0.0, 2.0),
        # One of six pairs the other way round: (5 - 1) / 6.
        ({"a": 10.0, "b": 20.0, "c": 42.0, "d": 40.0}, 2 / 3, 25.0, 75.0, np.sqrt(144 / 4) / np.sqrt(125)),
    ],
)
def test_agreement_by_hand(values, tau, regret, covered, error) -> None:
    (found,) = agreement(table(*both(values))).itertuples()
    assert (found.tau.value, found.regret, found.covered) == pytest.approx((tau, regret, covered))
    assert found.error == pytest.approx(error) and found.minutes == 0.5
    assert found.tau.low <= found.tau.value <= found.tau.high
    assert (found.points, found.withheld) == (4, 0)


def test_rank_correlations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (20, 8)).astype(float), rng.integers(0, 5, (20, 8)).astype(float)
    assert kendall(x, y) == pytest.approx([stats.kendalltau(*each).statistic for each in zip(x, y, strict=True)])
    assert spearman(x, y) == pytest.approx([stats.spearmanr(*each).statistic for each in zip(x, y, strict=True)])
    assert np.isnan([*kendall(np.ones((1, 3)), y[:1, :3]), *spearman(np.ones((1, 3)), y[:1, :3])]).all()


def test_seeds_are_not_compared_with_one_another() -> None:
    """Each seed in the right order, at quite other values."""
    right = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    far = {policy: 100 - 10 * 4 + value for policy, value in right.items()}
    (found,) = agreement(table(*both(right), *both(far, seed=1))).itertuples()
    assert found.tau.value == 1 and found.regret == 0 and found.points == 8


def test_what_is_withheld_is_counted_and_told() -> None:
    rows = table(
        *both({"a": 10.0, "b": 20.0}), *(estimated(policy, None, remark="too few episodes") for policy in ("c", "d"))
    )
    (found,) = agreement(rows).itertuples()
    assert (found.points, found.withheld, found.tau.value, found.regret) == (2, 2, 1.0, 50.0)
    told = remarks(rows)
    assert told["policy"].tolist() == ["c", "d"] and (told["remark"] == "too few episodes").all()
    assert (told["withheld"] == 1).all()
    tables = dict(estimate_tables(rows, summarize(rows, ReportMeta(experiment="x"))))
    (values,) = [rows for title, rows in tables.items() if "estimated fitted q" in title]
    cells = values.set_index("policy")["100%"].to_dict()
    assert cells == {"a": "10.00 [6.00, 14.00]", "b": "20.00 [16.00, 24.00]", "c": "withheld", "d": "withheld"}
    assert any("do not say" in title for title in tables)


def test_a_likelihood_is_only_of_an_order() -> None:
    (found,) = agreement(table(*both({"a": -4.0, "b": -3.0, "c": -2.0, "d": -1.0}, "log_likelihood"))).itertuples()
    assert found.tau.value == 1 and np.isnan(found.covered) and np.isnan(found.error)


def test_without_returns_or_estimates_there_is_no_agreement() -> None:
    assert agreement(table(estimated("a", 1.0), estimated("b", 2.0))).empty
    assert agreement(table(returned("a", 1.0), returned("b", 2.0))).empty


def test_several_seeds_have_an_interval_over_seeds() -> None:
    rows = table(*(estimated("a", value, seed=seed) for seed, value in enumerate((1.0, 2.0, 3.0))))
    (row,) = summarize(rows, ReportMeta(experiment="x")).itertuples()
    assert row.mean == 2.0 and row.over == "seeds" and row.low < 1.0
    assert "episodes" not in bounded(row)


def test_the_favoured_policy_is_told_with_how_sure_that_is() -> None:
    apart = [estimated("a", 30.0), estimated("b", 10.0), estimated("b", 15.0, fraction=0.1)]
    (text,) = choice(table(*apart))
    assert "On t, 3 bins (expert): fitted q favours a, 30 [26, 34], 20 more than b, 10 [6, 14]" in text
    assert "do not overlap" in text
    near = [estimated("a", 11.0), estimated("b", 10.0), estimated("c", None, remark="too few episodes")]
    likely = estimated("a", -1.0, "log_likelihood")
    (text,) = choice(table(*near, likely, estimated("a", None, "per_decision_wis", "no propensities")))
    assert "overlap, so that this does not decide" in text
    assert "It says nothing of c: too few episodes." in text
    assert "per decision wis favours none. It says nothing of a: no propensities." in text
    assert "likelihood" not in text
    (text,) = choice(table(estimated("a", 1.0, remark="has not converged")))
    assert "Beware: has not converged." in text
    assert not choice(table(*both({"a": 1.0})))  # a simulator says more


def test_a_panel_for_each_dataset_and_estimate() -> None:
    values = {"a": 10.0, "b": 20.0, "c": None, "d": 40.0}
    rows = table(*both(values), *both(values, tier="medium"), *both(values, "log_likelihood", tier="medium"))
    ((stem, figure),) = truth_figures(rows, policy_styles(TRUTHS))
    assert stem == "estimates_against_returns_laptop"
    assert len(figure.axes) == 4
    assert any(text.get_text() == "withheld" for axes in figure.axes for text in axes.texts)
    assert not list(truth_figures(table(estimated("a", 1.0)), policy_styles(["a"])))


def test_an_estimate_withheld_at_every_point_has_no_curve(tmp_path: Path) -> None:
    shares = (0.1, 1.0)
    silent = [estimated("a", None, "per_decision_wis", "too few", fraction=share) for share in shares]
    rows = table(*silent, *(estimated("a", 1.0, fraction=share) for share in shares))
    meta = ReportMeta(experiment="x")
    drawn = dict(figures(summarize(rows, meta), meta, policy_styles(["a"])))
    assert list(drawn) == ["estimates_t_3bins_iql_laptop_fitted_q"]
    assert all(save(figure, tmp_path, stem) for stem, figure in drawn.items())
