"""Two IQL steps agree with the public code: every loss of both steps, and every weight afterwards.

The files' `iql/*_before` networks are bit for bit their `*_after2` ones: the recorder kept references to weights
that went on training. So the start is searched for: the weights from which two of our steps lead to the recorded
end. The losses of both steps, which the search does not see, then tell whether our steps are the reference's.
The policies' starts and ends are recorded rightly and are compared directly.
"""

import functools

import golden
import pytest
import torch

from spinrl import reference
from spinrl.algorithms import IQL
from spinrl.machine import ResolvedMachine

_LOSSES = {"loss_value": "value_loss", "loss_qvalue": "critic_loss", "loss_policy": "actor_loss_total"}


def build(case, name):
    meta = case.meta
    config = IQL(
        gamma=meta["gamma"],
        polyak_rate=meta["target_update_rate"],
        learning_rate=meta["learning_rate"],
        expectile=meta["iql_expectile"],
        inverse_temperature=meta["iql_beta"],
        weight_clip=meta["iql_weight_clip"],
        hidden=[meta["hidden"]] * 2,
    )
    return config.build(case.policy(name), case.observation_size, case.spec, seed=0, machine=ResolvedMachine())


@functools.cache
def ends(case_name):
    """The recorded networks after two steps, as one flat state dict of ours."""
    case = golden.load(case_name)
    networks = {
        "qvalue": reference.critic_ensemble(case.weights("iql/critic_after2/")),
        "target_qvalue": reference.critic_ensemble(case.weights("iql/target_critic_after2/")),
        "value": reference.value_network(case.weights("iql/value_after2/")),
    }
    return {f"{network}.{name}": weight for network, weights in networks.items() for name, weight in weights.items()}


@functools.cache
def starts(case_name):
    """The networks before the two steps: the fixed point of start = start + (recorded end − our end)."""
    case, target = golden.load(case_name), ends(case_name)
    start = {name: weight.clone() for name, weight in target.items()}
    for _ in range(8):
        algorithm = build(case, "factored")
        algorithm.load_state_dict(start, strict=False)
        for _ in range(2):
            algorithm.update(case.batch())
        end = algorithm.state_dict()
        start = {name: weight + (target[name] - end[name]) for name, weight in start.items()}
    return start


@pytest.mark.parametrize("name", golden.POLICIES)
@pytest.mark.parametrize("case_name", golden.CASES)
def test_two_steps(case_name, name):
    case = golden.load(case_name)
    algorithm = build(case, name)
    algorithm.load_state_dict(starts(case_name), strict=False)
    for step in ("step1", "step2"):
        losses = algorithm.update(case.batch())
        for ours, theirs in _LOSSES.items():
            expected = case.arrays[f"iql/{name}/{step}/{theirs}"]
            torch.testing.assert_close(losses[ours].double(), expected, rtol=1e-5, atol=0)
    compare(algorithm.state_dict(), ends(case_name))
    compare(algorithm.policy.state_dict(), case.mapped_policy(name, f"iql/{name}/policy_after2/"))


def compare(ours, expected):
    for key, value in expected.items():
        # A softmax over keys does not see a shift that all keys share, so the gradient of this bias is rounding noise
        # and nothing else, which Adam blows up to the size of a step: no two implementations agree on it.
        if key.endswith("key.bias"):
            continue
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
