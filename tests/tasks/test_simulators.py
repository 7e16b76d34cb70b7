"""Environments of Gymnasium as simulators: their episodes, their ends, and what cannot be one."""

import attrs
import numpy as np
import pytest

from spinrl.evaluation import evaluate
from spinrl.policies import Factored
from spinrl.specs import ActionSpec
from spinrl.tasks import Gymnasium, SimulatorError

gymnasium = pytest.importorskip("gymnasium")
COUNTER = Gymnasium(id="Counter-v0", module="tests.tasks.own_environment")


def counter(**options):
    return attrs.evolve(COUNTER, options=options)


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
        (Gymnasium(id="Counter-v0", module="no_such_module"), "No module named 'no_such_module'"),
        (counter(size=1), "cannot make"),
        (counter(fails="make"), "cannot make 'Counter-v0': LookupError: the patient is not there"),
        (Gymnasium(id="Pendulum-v1"), "wants actions that are MultiDiscrete or Discrete from 0"),
        (counter(start=1), "Discrete from 0"),
        (Gymnasium(id="FrozenLake-v1"), "wants observations in a Box"),
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
