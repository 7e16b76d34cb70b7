"""Environments of Gymnasium as simulators: their episodes, their ends, and what cannot be one."""

import os

import attrs
import numpy as np
import pytest
from gymnasium import spaces

from spinrl.evaluation import evaluate
from spinrl.policies import Autoregressive, Factored
from spinrl.specs import ActionSpec
from spinrl.tasks import Gymnasium, SimulatorError

COUNTER = Gymnasium(id="Counter-v0", module="tests.tasks.own_environment")


def counter(**options):
    return attrs.evolve(COUNTER, options=options)


def ward(action=None, observation=None, **options):
    return Gymnasium(
        id="Ward-v0",
        module="tests.tasks.own_environment",
        options=dict(action=action, observation=observation) | options,
    )


def test_an_episode_that_has_ended_gives_no_more_reward():
    environment = COUNTER.build(2)
    assert environment.action_spec == ActionSpec((3, 2))
    first = [environment.reset(index, seed=7) for index in range(2)]
    assert np.array_equal(*first) and first[0].shape == (4,) and first[0].dtype == np.float32
    _, rewards = environment.step(np.array([[2, 0], [1, 1]]))
    assert rewards.tolist() == [2, 1] and not environment.over(range(2)) and environment.over([1])
    before, rewards = environment.step(np.array([[2, 0], [2, 0]]))
    assert rewards.tolist() == [2, 0]
    for _ in range(3):
        after, _ = environment.step(np.array([[0, 0], [0, 0]]))
    assert environment.over(range(2))  # the other by its time limit
    assert np.array_equal(before[1], after[1]) and not np.array_equal(before[0], after[0])
    environment.reset(1, seed=8)
    assert not environment.over([1])
    environment.close()


def test_options_and_seeds_reach_the_environment():
    environment = counter(length=1).build(1)
    one, other, again = (environment.reset(0, seed=seed) for seed in (1, 2, 1))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    environment.step(np.array([[0, 0]]))
    assert environment.over([0])


def test_evaluation_ends_with_the_episodes():
    policy = Factored().build(4, ActionSpec((3, 2)), seed=0)
    returns = evaluate(policy, COUNTER.build(3), [1, 2, 3], steps=1000)
    assert len(returns) == 3 and all(0 <= value <= 10 for value in returns)
    assert evaluate(policy, COUNTER.build(1), [2], steps=1000) == returns[1:2]


BOX = spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize(
    ("action", "observation", "nvec", "size"),
    [
        (spaces.MultiDiscrete([3, 2], start=[1, -2]), None, (3, 2), 4),
        (spaces.MultiDiscrete([3, 2, 5], dtype=np.int8), spaces.Box(0, 255, (2, 3), np.uint8), (3, 2, 5), 6),
        (spaces.MultiDiscrete([[3, 2], [4, 5]]), spaces.Dict(a=BOX, b=spaces.Discrete(4, start=-1)), (3, 2, 4, 5), 6),
        (spaces.Tuple((spaces.Discrete(3, start=5), spaces.MultiBinary((1, 2)))), spaces.Discrete(7), (3, 2, 2), 7),
        (spaces.Dict(b=spaces.Discrete(2), a=spaces.MultiDiscrete([3, 4])), spaces.MultiBinary(5), (3, 4, 2), 5),
        (spaces.Discrete(6), spaces.Tuple((BOX, spaces.MultiDiscrete([2, 3]))), (6,), 7),
        (spaces.Tuple((spaces.Discrete(1, start=4), spaces.MultiDiscrete([3, 1]))), None, (1, 3, 1), 4),
    ],
    ids=str,
)
def test_actions_are_of_the_environments_own_space_and_observations_are_flat(action, observation, nvec, size):
    environment = ward(action, observation, array_reward=True).build(1)  # asserts that its space contains each action
    assert environment.action_spec == ActionSpec(nvec)
    assert environment.reset(0, seed=0).shape == (size,)
    choices = np.array([np.array(nvec) - 1])
    observations, rewards = environment.step(choices)
    assert observations.shape == (1, size) and observations.dtype == np.float32 and rewards.tolist() == [0.5]
    assert environment.allowed([0]) is None


def test_an_observation_that_is_not_of_its_space_is_named():
    environment = ward(observation=spaces.Dict(ward=spaces.Discrete(4)), observed={"ward": 4}).build(1)
    with pytest.raises(SimulatorError, match=r"Ward-v0: observation\['ward'\], row 0: expected 0 to 3, found 4"):
        environment.reset(0, seed=0)


def test_discrete_actions_are_one_sub_action():
    environment = Gymnasium(id="CartPole-v1").build(1)
    assert environment.action_spec == ActionSpec((2,))
    environment.reset(0, seed=0)
    observations, rewards = environment.step(np.array([[1]]))
    assert observations.shape == (1, 4) and rewards.tolist() == [1.0]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Gymnasium(id="Nothing-v0"), "cannot make 'Nothing-v0'"),
        (Gymnasium(id="Counter-v0", module="no_such_module"), f"no module 'no_such_module', .* in {os.getcwd()}, on"),
        (counter(size=1), "cannot make"),
        (counter(fails="make"), "cannot make 'Counter-v0': LookupError: the patient is not there"),
        (Gymnasium(id="Pendulum-v1"), r"Pendulum-v1: action is Box.*can be MultiDiscrete"),
        (
            ward(spaces.MultiDiscrete([1, 1])),
            r"Ward-v0: action is MultiDiscrete\(\[1 1\]\), of which no part has two choices",
        ),
        (ward(spaces.Dict(dose=spaces.Discrete(3), x=spaces.Box(0, 1))), r"Ward-v0: action\['x'\] is Box"),
        (ward(observation=spaces.Dict(a=spaces.Text(3))), r"Ward-v0: observation\['a'\] is Text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_a_simulator_is_refused_in_one_line(config, reason):
    with pytest.raises(SimulatorError, match=reason) as refusal:
        config.build(1)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("call", ["reset", "step"])
def test_whatever_an_environment_raises_is_one_line_that_names_it(call):
    environment = counter(fails=call).build(1)
    with pytest.raises(SimulatorError, match=f"Counter-v0 cannot .*{call}.*: LookupError: the patient is") as failure:
        environment.reset(0, seed=0)
        environment.step(np.array([[2, 0]]))
    assert "\n" not in str(failure.value) and isinstance(failure.value.__cause__, LookupError)


def test_a_reward_that_is_no_number_is_no_result():
    environment = counter(fails="reward").build(1)
    environment.reset(0, 0)
    with pytest.raises(SimulatorError, match=r"Counter-v0 answers the step \[1, 0\] with a reward"):
        environment.step(np.array([[1, 0]]))


@pytest.mark.parametrize("mask", [([1, 0, 1], [0, 1]), np.array([1, 0, 1, 0, 1], dtype=np.int8)], ids=["own", "flat"])
@pytest.mark.parametrize("by", ["info", "method"])
def test_masks_of_allowed_choices_are_those_of_the_latest_reset_or_step(mask, by):
    environment = ward(spaces.MultiDiscrete([3, 2]), mask=mask, mask_by=by).build(2)
    environment.reset(0, seed=0), environment.reset(1, seed=0)
    expected = [[True, False, True], [False, True, False]]
    assert environment.allowed([0, 1]).tolist() == [expected, expected]
    environment.step(np.array([[2, 1]]), [1])
    assert environment.allowed([1]).tolist() == [expected]
    for _ in range(10):
        environment.step(np.array([[2, 1]]), [1])  # it ends
    assert environment.allowed([1]) is None
    assert environment.allowed([0, 1]).tolist() == [expected, [[True, True, True], [True, True, False]]]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.zeros(5), "Ward-v0: the action mask allows no choice of sub-action 0"),
        (np.ones(4), "Ward-v0: the action mask of MultiDiscrete.* has 4 entries; expected 5"),
    ],
)
def test_a_mask_that_cannot_be_is_refused(mask, reason):
    environment = ward(spaces.MultiDiscrete([3, 2]), mask=mask).build(1)
    environment.reset(0, seed=0)
    with pytest.raises(SimulatorError, match=reason):
        environment.allowed([0])


@pytest.mark.parametrize("action", ["sample", "mode"])
@pytest.mark.parametrize("config", [Factored(hidden=(16,)), Autoregressive(state_width=8, lstm_width=8)])
def test_evaluation_makes_no_choice_that_is_not_allowed(config, action, monkeypatch):
    environment = counter(masked=True, length=9).build(3)
    policy = config.build(4, environment.action_spec, seed=0)
    returns = evaluate(policy, environment, range(6), action=action)  # a forbidden choice is an error
    assert all(0 < value <= 2 * 9 for value in returns)
    monkeypatch.setattr(environment, "allowed", lambda indices: None)
    with pytest.raises(SimulatorError, match="a forbidden choice"):
        evaluate(policy, environment, range(6), action=action)


def test_evaluation_says_where_nothing_is_allowed():
    environment = ward(spaces.MultiDiscrete([3, 2]), mask=np.zeros(5)).build(1)
    policy = Factored(hidden=(16,)).build(4, environment.action_spec, seed=0)
    with pytest.raises(SimulatorError, match="Ward-v0: the action mask allows no choice of sub-action 0"):
        evaluate(policy, environment, [0])
