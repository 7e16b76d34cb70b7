"""A seed's return is its own: the same alone, beside others, in rounds, and in worker processes."""

import pytest
import torch

from spinrl.evaluation import episode_seeds, evaluate
from spinrl.nn import standardizers
from spinrl.policies import Autoregressive, Factored
from spinrl.tasks import BatchedEnvironment, ParallelEnvironment, get_task

TASK = get_task("cheetah-run")
POLICIES = (Factored(), Autoregressive(state_width=16, lstm_width=16))


def build(config):
    return config.build(TASK.observation_size, TASK.action_spec(3), seed=0)


@pytest.mark.parametrize("config", POLICIES, ids=lambda config: type(config).__name__)
@pytest.mark.parametrize("action", ["sample", "mode"])
def test_returns_do_not_depend_on_the_batch(config, action):
    policy, seeds = build(config), episode_seeds(3, 5)

    def returns(seeds, num_envs):
        return evaluate(policy, BatchedEnvironment(TASK, 3, num_envs), seeds, action=action, steps=40)

    together = returns(seeds, 5)
    assert len(set(together)) == 5
    assert returns(seeds, 2) == together  # three rounds
    assert returns(seeds[3:4], 1) == together[3:4]


def test_worker_processes_change_nothing():
    policy, seeds = build(Factored()), episode_seeds(0, 3)
    parallel = ParallelEnvironment(TASK, 3, 3, workers=2)
    try:
        assert evaluate(policy, parallel, seeds, steps=20) == evaluate(
            policy, BatchedEnvironment(TASK, 3, 3), seeds, steps=20
        )
    finally:
        parallel.close()


def test_the_first_seeds_are_the_same_for_any_number_of_episodes():
    assert episode_seeds(7, 10)[:3] == episode_seeds(7, 3)
    assert episode_seeds(7, 3) != episode_seeds(8, 3)


def test_the_policy_keeps_its_mode_and_acts_without_dropout():
    policy = build(Factored())
    policy.train()
    environment = BatchedEnvironment(TASK, 3, 1)
    first = evaluate(policy, environment, [1], action="mode", steps=30)
    assert policy.training
    assert evaluate(policy, environment, [1], action="mode", steps=30) == first


def test_a_policy_trained_on_standard_units_sees_them():
    policy, seeds = build(Factored()), episode_seeds(0, 2)
    environment = BatchedEnvironment(TASK, 3, 2)
    plain = evaluate(policy, environment, seeds, action="mode", steps=30)
    standardizers(policy)[0].set(torch.full((TASK.observation_size,), 3.0), torch.full((TASK.observation_size,), 9.0))
    assert evaluate(policy, environment, seeds, action="mode", steps=30) != plain
