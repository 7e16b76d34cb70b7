"""Estimates by importance weights as components: held to cases by hand, and withheld where a log cannot tell."""

from __future__ import annotations

import itertools
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

from spinrl.algorithms import BCQ, IQL, Imitation
from spinrl.asm import ASMEncoder, Masking, Pretraining
from spinrl.data import Episode, SourceRecord, Store, StoreWriter
from spinrl.evaluation import (
    ASMBehavior,
    Estimate,
    EstimationData,
    FittedQ,
    ImitatedBehavior,
    PerDecisionWIS,
    WeightedDoublyRobust,
    estimators,
)
from spinrl.machine import Machine
from spinrl.policies import SPIN, Autoregressive, Factored
from spinrl.specs import ActionSpec

SPEC, SIZE, GAMMA = ActionSpec((3, 2)), 2, 0.9
BEHAVIOR = np.array([[0.5, 0.25, 0.25], [0.75, 0.25, 0.0]])  # of each choice of each sub-action, whatever is observed
POLICY = np.array([[0.25, 0.5, 0.25], [0.25, 0.75, 0.0]])
WIS = PerDecisionWIS(gamma=GAMMA, least_effective=1)
QUICK = FittedQ(gamma=GAMMA, start_steps=150, gradient_steps=400, learning_rate=3e-3, polyak_rate=0.05, hidden=(32,))


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch):
    monkeypatch.setattr(estimators, "_KEPT", {})


def policy_of(probabilities: np.ndarray = POLICY):
    """An algorithm whose policy makes each choice with these probabilities, in every state."""
    policy = Factored(hidden=(4,)).build(SIZE, SPEC, seed=0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
        bias = next(each for name, each in reversed(list(policy.named_parameters())) if "bias" in name)
        bias.view(SPEC.num_sub_actions, -1).copy_(torch.from_numpy(np.log(probabilities.clip(1e-30))))
    return IQL(hidden=(4,)).build(policy, SIZE, SPEC, seed=0, machine=Machine(device="cpu").resolve())


def log(path: Path, actions, rewards, *, propensities="right", ended=True, behavior=BEHAVIOR) -> Store:
    """A log of episodes, each with actions (L, N) and rewards (L,)."""
    extras = {"right": ("propensities",), "joint": ("propensity",), None: ()}.get(propensities, ("propensities",))
    with StoreWriter(
        path,
        task="own",
        bins=None,
        action_spec=SPEC,
        observation_size=SIZE,
        tier="logged",
        sources=[SourceRecord(behavior="known")],
        extras=extras,
    ) as writer:
        for taken, earned in zip(map(np.array, actions), rewards, strict=True):
            last = np.arange(len(taken)) == len(taken) - 1
            chances = behavior[np.arange(2), taken]
            if propensities == "joint":
                chances = chances.prod(1)
            if propensities == "zero":
                chances[0, 0] = 0
            writer.append(
                Episode(
                    observations=np.linspace([0] * SIZE, [1] * SIZE, len(taken) + 1, dtype=np.float32),  # the time
                    actions=taken,
                    rewards=np.array(earned, dtype=float),
                    terminated=last & ended,
                    truncated=last & (not ended),
                    propensity=chances if extras else None,
                )
            )
    return Store.open(path)


def drawn(path: Path, episodes: int, length: int, behavior=BEHAVIOR, **options) -> Store:
    """A log of the behaviour, whose reward is 1 where the first choice is 1 and the second too: of both at once."""
    rng = np.random.default_rng(0)
    actions = (rng.random((episodes, length, 2, 1)) > behavior.cumsum(1)).sum(-1)
    rewards = (actions == 1).all(-1)
    return log(path, list(actions), list(rewards), behavior=behavior, **options)


def estimate(estimator, store: Store, algorithm=None, action="sample") -> Estimate:
    return estimator.estimate(
        algorithm or policy_of(), EstimationData(training=store, held_out=None), seed=0, action=action,
        progress=lambda _done, _total: None,
    )  # fmt: skip


def reason(estimator, store: Store, algorithm=None, action="sample") -> str:
    found = estimate(estimator, store, algorithm, action)
    assert found.value is None and np.isnan([found.low, found.high]).all() and str(found).startswith(found.metric)
    assert found.details["seconds"] > 0
    return found.remark


@pytest.mark.parametrize("propensities", ["right", "joint"])
def test_three_steps_by_hand(tmp_path: Path, propensities) -> None:
    actions = [[[1, 1], [0, 0], [2, 0]], [[0, 0], [1, 0]]]
    store = log(tmp_path / "log", actions, [[1, 0, 2], [0, 3]], propensities=propensities)
    # Ratios 2 · 3, 1/2 · 1/3 and 1 · 1/3; then 1/2 · 1/3 and 2 · 1/3. The ended episode keeps its weight.
    first, second = np.cumprod([6, 1 / 6, 1 / 3]), np.cumprod([1 / 6, 2 / 3, 1])
    expected = sum(GAMMA**t * (first[t] * (1, 0, 2)[t] + second[t] * (0, 3, 0)[t]) / (first[t] + second[t])
                   for t in range(3))  # fmt: skip
    found = estimate(attrs.evolve(WIS, least_covered=0), store)
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert 1 <= found.effective_episodes <= 2 and found.details["bounded"] == 0
    bounded = estimate(attrs.evolve(WIS, bound=2.5, least_covered=0), store)
    assert (bounded.details["bounded"] > 0) and bounded.details["bound"] == 2.5 and bounded.value != found.value


@pytest.mark.parametrize("length", [1, 4])
def test_estimates_are_of_the_policy_and_not_of_the_behavior(tmp_path: Path, length: int) -> None:
    """The policy earns 0.375 a step, the behaviour 0.0625; episodes of one step are a contextual bandit."""
    store = drawn(tmp_path / "log", 2000, length)
    truth = 0.375 * sum(GAMMA**t for t in range(length))
    robust = WeightedDoublyRobust(gamma=GAMMA, fitted_q=QUICK)
    weighed, doubly, fitted = (estimate(each, store) for each in (WIS, robust, QUICK))
    for found in (weighed, doubly):
        assert found.low < truth < found.high
        assert found.value == pytest.approx(truth, rel=0.3) and 20 < found.effective_episodes < 2000
    assert doubly.high - doubly.low < weighed.high - weighed.low  # what the values are for
    assert fitted.value == pytest.approx(truth, rel=0.1)


def test_a_log_of_the_policy_itself_gives_its_mean_return(tmp_path: Path) -> None:
    store = drawn(tmp_path / "log", 50, 3, behavior=POLICY)
    rewards = store.data["transitions", "reward"].numpy().reshape(50, 3)
    found = estimate(WIS, store)
    assert found.value == pytest.approx((rewards @ GAMMA ** np.arange(3)).mean(), rel=1e-5)
    assert found.effective_episodes == pytest.approx(50) and found.details["covered"] == pytest.approx(1)


def test_without_propensities_the_estimate_says_what_to_type(tmp_path: Path) -> None:
    store = drawn(tmp_path / "log", 30, 2, propensities=None)
    assert "--column propensities=" in reason(WIS, store) and "ASMBehavior" in reason(WIS, store)


def test_a_propensity_of_nothing_is_refused(tmp_path: Path) -> None:
    assert "a propensity of 0" in reason(WIS, drawn(tmp_path / "log", 30, 2, propensities="zero"))


@pytest.mark.parametrize("action", ["sample", "mode"])
def test_a_deterministic_behavior_says_nothing_of_another_policy(tmp_path: Path, action) -> None:
    always = np.array([[1.0, 0, 0], [1.0, 0, 0]])
    store = drawn(tmp_path / "log", 60, 3, behavior=always)
    told = reason(attrs.evolve(WIS, least_effective=20), store, action=action)
    assert ("is not in the log" if action == "sample" else "takes the logged actions of no episode") in told


def test_a_single_episode_is_too_few(tmp_path: Path) -> None:
    store = drawn(tmp_path / "log", 1, 40, ended=False)
    assert "only 1.0 of 1 episodes count" in reason(PerDecisionWIS(least_covered=0), store)
    fitted = estimate(QUICK.smaller(), store)
    assert fitted.value is not None and np.isnan([fitted.low, fitted.high]).all()


def test_long_episodes_are_withheld_and_not_given_as_a_number(tmp_path: Path) -> None:
    store = drawn(tmp_path / "log", 100, 400, ended=False)
    for estimator in (PerDecisionWIS(), WeightedDoublyRobust(fitted_q=QUICK.smaller())):
        assert "episodes count in effect, 20 are asked for" in reason(estimator, store)


def test_a_policy_whose_choice_the_data_never_has(tmp_path: Path) -> None:
    """It all but always makes choice 2 of the first sub-action, which was never made in the log."""
    never = np.array([[0.5, 0.5, 0], [0.75, 0.25, 0]])
    store = drawn(tmp_path / "log", 60, 3, behavior=never)
    elsewhere = policy_of(np.array([[1e-9, 1e-9, 1.0], [0.5, 0.5, 0]]))
    assert "a choice that the data never has" in reason(QUICK, store, elsewhere)
    assert "is not in the log" in reason(WIS, store, elsewhere)
    assert "takes the logged actions of no episode" in reason(WIS, store, elsewhere, "mode")
    assert "never has" in reason(
        WeightedDoublyRobust(gamma=GAMMA, least_effective=1, least_covered=0, fitted_q=QUICK), store, elsewhere
    )


def test_a_policy_whose_probabilities_nobody_knows_is_withheld(tmp_path: Path) -> None:
    policy = Autoregressive(state_width=8, lstm_width=8).build(SIZE, SPEC, seed=0)
    around = BCQ(hidden=(8,)).build(policy, SIZE, SPEC, seed=0, machine=Machine(device="cpu").resolve())
    assert "nobody knows the probabilities" in reason(WIS, drawn(tmp_path / "log", 30, 2), around)


def test_rewards_after_a_cut_are_said_to_be_missing(tmp_path: Path) -> None:
    found = estimate(WIS, drawn(tmp_path / "log", 50, 3, behavior=POLICY, ended=False))
    assert "after an episode was cut" in found.remark and found.value is not None


SOURCE = Pretraining(
    encoder=ASMEncoder(d_model=8, num_blocks=1, num_heads=1, dropout=0.0),
    masking=Masking(share="per_sample", least=0.0, mask=1.0, random=0.0),
    epochs=None,
    steps=150,
    batch_size=64,
    learning_rate=5e-3,
)


@pytest.mark.parametrize("order", ["chain", "marginal"])
def test_the_asm_gives_joint_probabilities_that_sum_to_one(tmp_path: Path, order) -> None:
    """In chain order, each sub-action is predicted with those before it shown: dependent ones are told apart."""
    every = [list(each) for each in itertools.product(range(3), range(2))]
    same = [[0, 0], [1, 1]] * 100  # the second sub-action follows the first
    store = log(tmp_path / "log", [[each] for each in every + same], [[0]] * (len(every) + len(same)))
    data = EstimationData(training=store, held_out=None)
    found = ASMBehavior(pretraining=SOURCE, order=order).log_probs(data, torch.arange(6), 0, False)
    joint = dict(zip(map(tuple, every), np.exp(found.sum(1)), strict=True))
    assert sum(joint.values()) == pytest.approx(1, abs=1e-4)
    if order == "chain":
        assert joint[0, 0] > 0.35 and joint[1, 1] > 0.35
    else:
        assert joint[0, 0] == pytest.approx(joint[1, 1], abs=0.15) and joint[0, 1] > 0.1


@pytest.mark.parametrize("policy", [Factored(hidden=(8,)), Autoregressive(state_width=8, lstm_width=8)])
def test_an_imitation_stands_in_for_propensities(tmp_path: Path, policy) -> None:
    store = drawn(tmp_path / "log", 400, 2)
    estimated = ImitatedBehavior(policy=policy, imitation=Imitation(steps=300, batch_size=128, learning_rate=1e-2))
    state = torch.get_rng_state()
    found = estimate(attrs.evolve(WIS, behavior=estimated), store)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.value == pytest.approx(estimate(WIS, store).value, rel=0.15)
    with pytest.raises(ValueError, match="without an ASM"):
        ImitatedBehavior(policy=SPIN())
