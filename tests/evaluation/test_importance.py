"""Importance-weighted estimates, held to cases whose truth is known."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinrl.evaluation.importance import (
    Steps,
    bounded_log_ratio,
    effective_episodes,
    per_decision_wis,
    percentile_interval,
    resample_counts,
    weighted_doubly_robust,
)

GAMMA = 0.9


def by_hand():
    """Two logged episodes, of three steps and of two; ratios 2, 1/2 and 1."""
    ratio = np.array([[2.0, 0.5, 1.0], [1.0, 2.0, 7.0]])
    valid = np.array([[True, True, True], [True, True, False]])
    reward = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, np.nan]])
    return Steps(reward=reward, log_ratio=np.log(ratio), valid=valid)


def test_per_decision_wis_by_hand():
    # Weights after each step: (2, 1, 1) and (1, 2, 2); the finished episode keeps its last and earns nothing.
    expected = 2 / 3 + 0.9 * (2 * 3) / 3 + 0.81 * (1 * 2) / 3
    assert per_decision_wis(by_hand(), GAMMA)[0] == pytest.approx(expected)


def test_weighted_doubly_robust_by_hand():
    q = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, np.nan]])
    v = np.array([[0.5, 1.5, 2.5], [3.5, 4.5, np.nan]])
    step0 = (0.5 + 3.5) / 2 + (2 * (1 - 1) + 1 * (0 - 4)) / 3
    step1 = (2 * 1.5 + 1 * 4.5) / 3 + (1 * (0 - 2) + 2 * (3 - 5)) / 3
    step2 = (1 * 2.5 + 2 * 0) / 3 + (1 * (2 - 3) + 2 * 0) / 3
    expected = step0 + 0.9 * step1 + 0.81 * step2
    assert weighted_doubly_robust(by_hand(), q, v, GAMMA)[0] == pytest.approx(expected)


def test_effective_episodes_by_hand():
    weights = by_hand().weight
    sizes = np.array([9 / 5, 9 / 5, 9 / 5])
    discount = GAMMA ** np.arange(3)
    assert effective_episodes(weights, GAMMA) == pytest.approx(discount @ sizes / discount.sum())


def test_a_ratio_is_bounded_for_each_sub_action_and_an_action_never_taken_is_not_brought_back():
    log_policy = np.log(np.array([[0.9, 0.5], [0.1, 0.1]]))
    log_policy[1, 1] = -np.inf
    log_behavior = np.log(np.array([[0.1, 0.5], [0.2, 0.5]]))
    total, share = bounded_log_ratio(log_policy, log_behavior, 4.0)
    assert total[0] == pytest.approx(np.log(4.0)) and total[1] == -np.inf
    assert share == 0.25
    with pytest.raises(ValueError, match="above 0"):
        bounded_log_ratio(log_policy, np.full((2, 2), -np.inf), 4.0)


def test_a_policy_that_no_episode_follows_has_no_estimate():
    steps = Steps(reward=np.ones((2, 2)), log_ratio=np.full((2, 2), -np.inf), valid=np.ones((2, 2), bool))
    assert np.isnan(per_decision_wis(steps, GAMMA)).all()
    assert effective_episodes(steps.weight, GAMMA) == 0


def test_weights_of_a_thousand_steps_do_not_overflow():
    rng = np.random.default_rng(0)
    steps = Steps(reward=rng.random((5, 1000)), log_ratio=rng.normal(3, 1, (5, 1000)), valid=np.ones((5, 1000), bool))
    assert np.isfinite(per_decision_wis(steps, 0.99)).all()
    assert 1 <= effective_episodes(steps.weight, 0.99) < 2


@pytest.mark.parametrize("valid", [[[False, True]], [[True, False, True]], [[True], [False]]])
def test_gaps_are_refused(valid):
    with pytest.raises(ValueError, match="valid must begin"):
        Steps(reward=np.ones(np.shape(valid)), log_ratio=np.zeros(np.shape(valid)), valid=np.array(valid))


class Tabular:
    """Three states, two sub-actions of two and three choices, at most four steps, real ends; solved exactly."""

    STATES, NVEC, HORIZON = 3, (2, 3), 4

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.joint = list(itertools.product(*(range(count) for count in self.NVEC)))
        shape = (self.STATES, len(self.joint))
        self.reward = rng.normal(size=shape)
        self.next = rng.dirichlet(np.ones(self.STATES), size=shape)
        self.ends = rng.random(shape) < 0.2
        self.policy = [rng.dirichlet(np.ones(count), size=self.STATES) for count in self.NVEC]
        # The behaviour gives every choice some probability, and is not too far from the policy.
        self.behavior = [0.5 * each + 0.5 / count for each, count in zip(self.policy, self.NVEC, strict=True)]

    def probabilities(self, factors):
        """(states, joint actions)."""
        return np.stack(
            [
                [np.prod([f[s, a] for f, a in zip(factors, each, strict=True)]) for each in self.joint]
                for s in range(self.STATES)
            ]
        )

    def values(self):
        """Q (T, S, A) and V (T, S) of the policy with so many steps gone, by backward induction."""
        chosen = self.probabilities(self.policy)
        v = np.zeros(self.STATES)
        qs, vs = [], []
        for _ in range(self.HORIZON):
            q = self.reward + GAMMA * ~self.ends * (self.next @ v)
            v = (chosen * q).sum(1)
            qs.append(q)
            vs.append(v)
        return np.stack(qs[::-1]), np.stack(vs[::-1])

    def log(self, episodes, seed):
        """Logged episodes: states and joint actions (E, T) beside `Steps`, with exact ratios."""
        rng = np.random.default_rng(seed)
        behave = self.probabilities(self.behavior)
        ratio = np.log(self.probabilities(self.policy)) - np.log(behave)
        state, going = np.zeros(episodes, int), np.ones(episodes, bool)
        states, actions, rewards, valid, ratios = [], [], [], [], []
        for _ in range(self.HORIZON):
            action = (rng.random((episodes, 1)) > behave[state].cumsum(1)).sum(1).clip(max=len(self.joint) - 1)
            states.append(state)
            actions.append(action)
            valid.append(going)
            rewards.append(self.reward[state, action])
            ratios.append(ratio[state, action])
            going = going & ~self.ends[state, action]
            state = (rng.random((episodes, 1)) > self.next[state, action].cumsum(1)).sum(1).clip(max=self.STATES - 1)
        steps = Steps(reward=np.stack(rewards, 1), log_ratio=np.stack(ratios, 1), valid=np.stack(valid, 1))
        return np.stack(states, 1), np.stack(actions, 1), steps


def at(values, states, actions=None):
    """(E, T) entries of Q (T, S, A) or V (T, S)."""
    time = np.arange(states.shape[1])[None]
    return values[time, states] if actions is None else values[time, states, actions]


@settings(max_examples=8)
@given(st.integers(0, 10_000))
def test_estimates_come_to_the_truth_as_data_grows(seed):
    task = Tabular(seed)
    q, v = task.values()
    truth = v[0, 0]
    states, actions, steps = task.log(20_000, seed)
    spread = np.abs(task.reward).max()
    assert per_decision_wis(steps, GAMMA)[0] == pytest.approx(truth, abs=0.12 * spread)
    assert weighted_doubly_robust(steps, at(q, states, actions), at(v, states), GAMMA)[0] == pytest.approx(
        truth, abs=0.08 * spread
    )


@settings(max_examples=8)
@given(st.integers(0, 10_000))
def test_doubly_robust_is_right_when_either_part_is(seed):
    task = Tabular(seed)
    q, v = task.values()
    states, actions, steps = task.log(20_000, seed + 1)
    spread = np.abs(task.reward).max()
    # Values of nothing, ratios exact.
    nothing = np.zeros(states.shape)
    assert weighted_doubly_robust(steps, nothing, nothing, GAMMA)[0] == pytest.approx(v[0, 0], abs=0.12 * spread)
    # Values exact, every ratio taken for 1.
    blind = Steps(reward=steps.reward, log_ratio=nothing, valid=steps.valid)
    found = weighted_doubly_robust(blind, at(q, states, actions), at(v, states), GAMMA)[0]
    assert found == pytest.approx(v[0, 0], abs=0.08 * spread)


@settings(max_examples=8)
@given(st.integers(0, 10_000), st.booleans())
def test_with_exact_values_doubly_robust_is_unbiased_however_few_episodes_there_are(seed, blind):
    """Weights, right or all taken for 1, do not know how a step goes on, and values of the first state have no error.

    Weighted importance sampling is only consistent: it divides by a sum that is random too.
    """
    task = Tabular(seed)
    q, v = task.values()
    states, actions, steps = task.log(4 * 3000, seed)
    found = []
    for rows in np.arange(4 * 3000).reshape(3000, 4):
        ratio = np.zeros((4, task.HORIZON)) if blind else steps.log_ratio[rows]
        few = Steps(reward=steps.reward[rows], log_ratio=ratio, valid=steps.valid[rows])
        found += weighted_doubly_robust(few, at(q, states[rows], actions[rows]), at(v, states[rows]), GAMMA).tolist()
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(v[0, 0], abs=4.5 * error + 1e-9)


def test_ordinary_data_of_the_policy_itself_gives_its_mean_return():
    rng = np.random.default_rng(0)
    valid = np.arange(6) < rng.integers(1, 7, 50)[:, None]
    steps = Steps(reward=rng.normal(size=(50, 6)), log_ratio=np.zeros((50, 6)), valid=valid)
    mean = (steps.earned @ GAMMA ** np.arange(6)).mean()
    assert per_decision_wis(steps, GAMMA)[0] == pytest.approx(mean)
    assert effective_episodes(steps.weight, GAMMA) == pytest.approx(50)


def test_bootstrap_intervals_cover():
    rng = np.random.default_rng(1)
    task = Tabular(3)
    _, v = task.values()
    covered = []
    for seed in range(100):
        _, _, steps = task.log(100, 1000 + seed)
        values = per_decision_wis(steps, GAMMA, resample_counts(100, 200, rng))
        low, high = percentile_interval(values, 0.95)
        covered.append(low <= v[0, 0] <= high)
    assert np.mean(covered) >= 0.85


def test_no_interval_is_made_of_one_value():
    assert np.isnan(percentile_interval(np.array([1.0, np.nan]), 0.95)).all()


def test_the_example_of_the_page_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "estimates.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(example, {})
    value, low, high = map(float, re.match(r"(\S+) \[(\S+), (\S+)\]", capsys.readouterr().out).groups())
    assert low < value < high and value == pytest.approx(sum(0.99**t for t in range(5)), abs=0.2)
