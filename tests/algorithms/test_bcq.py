"""BCQ with every policy keeps the contract of algorithms, and acts within what the imitation policy allows."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spinrl import testing as contracts
from spinrl.algorithms import BCQ
from spinrl.algorithms.base import transition
from spinrl.algorithms.losses import ensemble_mse, td_target
from spinrl.policies import SPIN, gumbel_noise
from spinrl.specs import NEXT_OBSERVATION, OBSERVATION, ActionSpec
from tests.algorithms.policy_samples import POLICIES

SMALL = BCQ(hidden=[16, 16])


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_contract(policy):
    contracts.check_algorithm(SMALL, policy)


@settings(max_examples=20, deadline=None)
@given(threshold=st.floats(0.01, 1.0), seed=st.integers(0, 1000))
@example(threshold=0.7289630834867675, seed=0)  # a choice at the threshold
def test_it_takes_the_best_of_the_likely_choices(threshold, seed):
    spec = ActionSpec([2, 5, 3])
    algorithm = contracts.build_algorithm(BCQ(hidden=[16], threshold=threshold), POLICIES["factored"], spec).eval()
    observation = contracts.random_batch(spec, 8, seed=seed)[OBSERVATION]
    with torch.no_grad():
        action = algorithm.acting_policy().mode(observation)
        probabilities = algorithm.policy.log_probs(observation).exp()
        values = algorithm.qvalue.per_choice(observation).amin(0)
    for row in range(8):
        for slot, choices in enumerate(spec.nvec):
            chances = probabilities[row, slot, :choices]
            # Rounding decides of a choice that is just as likely as it has to be.
            surely, perhaps = (
                [k for k in range(choices) if chances[k] >= about * threshold * chances.max()]
                for about in (1.0001, 0.9999)
            )
            assert action[row, slot] in perhaps
            assert all(values[row, slot, action[row, slot]] >= values[row, slot, k] for k in surely)


def test_critics_are_trained_on_what_the_imitation_policy_allowed_before_its_step():
    """As in the public code, which trains the critics first."""
    spec = ActionSpec([3, 3])
    algorithm = contracts.build_algorithm(BCQ(hidden=[16], threshold=0.9), POLICIES["factored"], spec).eval()
    algorithm.policy_optimizer.param_groups[0]["lr"] = 1.0  # a step after which it allows other choices
    batch = contracts.random_batch(spec, 16)
    observation, action, reward, terminated, next_observation = transition(batch)

    def loss():
        with torch.no_grad():
            target = td_target(reward, terminated, algorithm._next_value(batch, next_observation), 0.99)
            return ensemble_mse(algorithm.qvalue(observation, action), target)

    before, critics = loss(), {name: value.clone() for name, value in algorithm.qvalue.state_dict().items()}
    torch.testing.assert_close(algorithm.update(batch)["loss_qvalue"], before)
    algorithm.qvalue.load_state_dict(critics)
    assert abs(loss() - before) > 0.01 * before


@pytest.mark.parametrize("name", ["factored", "autoregressive"])
def test_it_makes_no_forbidden_choice(name):
    for spec in contracts.SPECS:
        algorithm = contracts.build_algorithm(BCQ(hidden=[16], candidates=3), POLICIES[name], spec).eval()
        with torch.no_grad():
            contracts.check_forbidden_choices(algorithm.acting_policy(), spec)


@pytest.mark.parametrize("name", ["factored", "autoregressive"])
def test_the_chances_of_allowed_choices_sum_to_one(name):
    """Also where none of the choices that are likely without masks is allowed."""
    spec = contracts.SPECS[1]
    algorithm = contracts.build_algorithm(BCQ(hidden=[16], threshold=1.0), POLICIES[name], spec).eval()
    batch = contracts.random_batch(spec, masked=True)
    for action in (None, batch["action"]):
        log_probs = algorithm.acting_policy().log_probs(batch[OBSERVATION], action, batch["allowed"])
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(8, 3))
        assert (log_probs[~batch["allowed"]] == -torch.inf).all()


def test_of_dependent_sub_actions_it_takes_the_best_sample():
    spec = ActionSpec([2, 5, 3])
    algorithm = contracts.build_algorithm(BCQ(hidden=[16], candidates=64), POLICIES["autoregressive"], spec).eval()
    acting = algorithm.acting_policy()
    observation = contracts.random_batch(spec, 200)[OBSERVATION]
    noise = gumbel_noise((200, 3, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        best, one = acting.sample(observation, noise), algorithm.policy.sample(observation, noise)
        values = [algorithm.qvalue(observation, action).amin(0) for action in (best, one)]
        assert (values[0] >= values[1]).float().mean() > 0.95
        assert torch.equal(best, acting.sample(observation, noise))
        assert torch.equal(acting.mode(observation), acting.mode(observation))


@pytest.mark.parametrize("config", [SMALL, BCQ(hidden=[16, 16], candidates=1)], ids=["best", "one candidate"])
def test_each_candidate_is_a_sample_of_the_policy(config):
    """With one candidate, acting is sampling: choices come as often as their probabilities say."""
    spec = ActionSpec([4])
    algorithm = contracts.build_algorithm(config, POLICIES["autoregressive"], spec).eval()
    many = 4000
    observation = contracts.random_batch(spec, 1)[OBSERVATION].expand(many, -1)
    noise = gumbel_noise((many, 1, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        counts = algorithm.acting_policy().sample(observation, noise)[:, 0].bincount(minlength=4) / many
        chances = algorithm.policy.log_probs(observation[:1])[0, 0].exp()
        value = algorithm.qvalue.per_choice(observation[:1]).amin(0)[0, 0]
    if config.candidates == 1:
        torch.testing.assert_close(counts, chances, rtol=0, atol=0.04)
    else:
        assert counts[value.argmax()] > chances[value.argmax()] + 0.1


@pytest.mark.parametrize("masked", [False, True])
def test_the_target_looks_at_what_was_computed_of_the_next_observations(masked):
    spec = ActionSpec([2, 5, 3])
    fixed = SPIN(slot_queries="mask_tokens", query_share=0.0, frozen_dropout=False, cached=True)
    losses = []
    for given_along in (False, True):
        algorithm = contracts.build_algorithm(SMALL, fixed, spec).eval()
        batch = contracts.random_batch(spec, masked=masked)
        if given_along:
            frozen = algorithm.policy.frozen_input()
            batch["policy_input"] = frozen.encode(batch[OBSERVATION]).detach()
            batch["next", "policy_input"] = frozen.encode(batch[NEXT_OBSERVATION]).detach()
        losses.append(algorithm.update(batch))
    torch.testing.assert_close(losses[0].to_dict(), losses[1].to_dict())
