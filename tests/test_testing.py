"""The checks of one's own policies and algorithms find what is wrong on purpose."""

import attrs
import pytest
import torch
from torch import nn

import spinrl
from spinrl.algorithms.iql import IQLAlgorithm
from spinrl.policies import IndependentPolicy, PolicyConfig
from spinrl.testing import check_algorithm, check_policy


class Sound(IndependentPolicy):
    def __init__(self, observation_size, action_spec):
        super().__init__(observation_size, action_spec)
        self.bias = nn.Parameter(0.1 * torch.randn(action_spec.num_sub_actions, action_spec.max_choices))

    def logits(self, observation, action=None):
        return self.bias.masked_fill(~self.action_spec.valid(), -torch.inf).expand(len(observation), -1, -1)


class OfWrongShape(Sound):
    def logits(self, observation, action=None):
        return super().logits(observation, action)[:, :, :-1]


class NotANumber(Sound):
    def logits(self, observation, action=None):
        return super().logits(observation, action) * torch.nan


class IgnoringAllowed(Sound):
    def decide(self, observation, noise, allowed=None):
        return super().decide(observation, noise)


class DrawingItself(Sound):
    def decide(self, observation, noise, allowed=None):
        return super().decide(observation, None if noise is None else noise + torch.rand_like(noise), allowed)


class DependingOnOtherRows(Sound):
    def logits(self, observation, action=None):
        return super().logits(observation, action) * (1 + len(observation))


@attrs.frozen(kw_only=True)
class Given(PolicyConfig):
    policy: type

    def build(self, observation_size, action_spec, *, asm=None, seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.policy(observation_size, action_spec)


def test_a_sound_policy_passes():
    check_policy(Given(policy=Sound))


@pytest.mark.parametrize(
    ("policy", "promise"),
    [
        (OfWrongShape, r"log_probs must be of shape \(8, 3, 3\); found \(8, 3, 2\)"),
        (NotANumber, "log_probs must be finite"),
        (IgnoringAllowed, "a choice that is not allowed must never be made"),
        (DrawingItself, "the same noise must give the same sample"),
        (DependingOnOtherRows, "log_prob must not depend on other rows"),
    ],
)
def test_a_policy_that_is_wrong_on_purpose_is_found(policy, promise):
    with pytest.raises(AssertionError, match=promise):
        check_policy(Given(policy=policy))


def test_an_algorithm_that_trains_nothing_or_changes_its_batch_is_found(monkeypatch):
    config, update = spinrl.IQL(hidden=(8,)), IQLAlgorithm.update
    monkeypatch.setattr(IQLAlgorithm, "update", lambda self, batch: {"loss_policy": torch.tensor(0.0)})
    with pytest.raises(AssertionError, match="bias must be trained"):
        check_algorithm(config, Given(policy=Sound))

    def spoil(self, batch):
        losses = update(self, batch)
        batch["observation"] += 1
        return losses

    monkeypatch.setattr(IQLAlgorithm, "update", spoil)
    with pytest.raises(AssertionError, match="update must leave its batch as it is"):
        check_algorithm(config, Given(policy=Sound))
