"""AWAC with every policy keeps the contract of algorithms; its pieces are what its equations say."""

import pytest
import torch

from spinrl import testing as contracts
from spinrl.algorithms import AWAC
from spinrl.machine import ResolvedMachine
from spinrl.policies import IndependentPolicy, gumbel_noise
from spinrl.specs import OBSERVATION, ActionSpec
from tests.algorithms.policy_samples import POLICIES

SMALL = AWAC(hidden=[16, 16])


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_contract(policy):
    contracts.check_algorithm(SMALL, policy)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_the_expected_minimum_is_the_mean_over_sampled_actions(policy):
    """Exact for independent sub-actions, by sampling for the others; choices that do not exist do not count."""
    spec = ActionSpec([2, 5, 3])
    built = contracts.build_policy(policy, spec).eval()
    observation = contracts.random_batch(spec, 1)[OBSERVATION]
    values = torch.randn(2, 1, 3, 5, generator=torch.Generator().manual_seed(0)).masked_fill(~spec.valid(), -torch.inf)
    many = 20_000
    noise = gumbel_noise((many, 3, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        action = built.sample(observation.expand(many, -1), noise)  # (many, N)
        sums = values.expand(-1, many, -1, -1).gather(-1, action.expand(2, -1, -1)[..., None]).sum((-1, -2))
        # As the public code: independent sub-actions have an expectation for each critic, sampled actions a worst one.
        sampled = sums.mean(1).amin(0) if isinstance(built, IndependentPolicy) else sums.amin(0).mean()
        assert abs(sums.mean(1).amin(0) - sums.amin(0).mean()) > 0.3  # so that the two are told apart
        torch.manual_seed(0)
        expected = built.expected_minimum(observation, values, samples=10_000)
    assert expected.shape == (1,)
    torch.testing.assert_close(expected[0], sampled, rtol=0, atol=0.08)


def test_the_value_follows_the_policy_and_not_the_data():
    """With critics held still, V goes to what they say of the policy's own actions."""
    spec = ActionSpec([3, 3])
    algorithm = contracts.build_algorithm(AWAC(hidden=[16], learning_rate=0.01), POLICIES["factored"], spec).eval()
    batch = contracts.random_batch(spec, 4)
    for optimizer in (algorithm.qvalue_optimizer, algorithm.policy_optimizer):
        optimizer.param_groups[0]["lr"] = 0.0
    for _ in range(300):
        algorithm.update(batch)
    with torch.no_grad():
        values = algorithm.target_qvalue.per_choice(batch[OBSERVATION])
        expected = algorithm.policy.expected_minimum(batch[OBSERVATION], values, 0)
        torch.testing.assert_close(algorithm.value(batch[OBSERVATION]), expected, rtol=0, atol=0.02)


def test_critics_stay_in_full_precision(monkeypatch):
    """Only networks of the policy run in the machine's precision."""
    spec = ActionSpec([3, 3])
    machine = ResolvedMachine(precision="bf16")
    algorithm = contracts.build_algorithm(SMALL, POLICIES["factored"], spec, machine=machine)
    lowered = []
    outputs = algorithm.target_qvalue.outputs
    monkeypatch.setattr(
        algorithm.target_qvalue,
        "outputs",
        lambda observation: lowered.append(torch.is_autocast_enabled("cpu")) or outputs(observation),
    )
    algorithm.update(contracts.random_batch(spec))
    assert lowered == [False]
