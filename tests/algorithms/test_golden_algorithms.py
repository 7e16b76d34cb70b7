"""Two steps of each algorithm agree with the public code: every loss of both steps, and every weight afterwards.

The files' `*_before` networks of critics and values are bit for bit what they are after the two steps: the recorder
kept references to weights that went on training. So the start is searched for: the weights from which two of our
steps lead to the recorded end. The losses of both steps, which the search does not see, then tell whether our steps
are the reference's. The policies' starts and ends are recorded rightly and are compared directly.

Our steps are taken in double precision. In single precision an entry whose gradient is rounding noise moves by as much
as any other under Adam, and by another amount on another processor (1.2e-5 apart on an AMD, in one entry of 2,048);
so what is compared is our arithmetic with the record, not one processor with another.

Where a hidden unit switches on or off within the two steps, several starts lead to the same end, and the search finds
the recorded one from another first guess only (`GUESSES`).
"""

import functools
from collections.abc import Callable

import attrs
import golden
import pytest
import torch

from spinrl.algorithms import AWAC, BCQ, IQL, AlgorithmConfig
from spinrl.machine import ResolvedMachine


@attrs.frozen
class Recorded:
    """How an algorithm is set up as the recorder's, and under which names the recorder kept things."""

    config: Callable[[dict], AlgorithmConfig]
    losses: dict[str, str]  # ours → theirs
    networks: dict[str, tuple[str, Callable]]  # ours → (theirs after two steps, mapping of names)
    policies: tuple[str, ...]


def common(meta):
    return {
        "gamma": meta["gamma"],
        "polyak_rate": meta["target_update_rate"],
        "learning_rate": meta["learning_rate"],
        "hidden": [meta["hidden"]] * 2,
    }


RECORDED = {
    "iql": Recorded(
        lambda meta: IQL(
            **common(meta),
            expectile=meta["iql_expectile"],
            inverse_temperature=meta["iql_beta"],
            weight_clip=meta["iql_weight_clip"],
        ),
        {"loss_value": "value_loss", "loss_qvalue": "critic_loss", "loss_policy": "actor_loss_total"},
        {
            "qvalue": ("critic_after2", golden.critic_ensemble),
            "target_qvalue": ("target_critic_after2", golden.critic_ensemble),
            "value": ("value_after2", golden.value_network),
        },
        golden.POLICIES,
    ),
    "awac": Recorded(
        lambda meta: AWAC(**common(meta), temperature=meta["awac_lambda"], weight_clip=meta["awac_weight_clip"]),
        {"loss_value": "value_loss", "loss_qvalue": "critic_loss", "loss_policy": "actor_loss_total"},
        {
            "qvalue": ("critic_after2", golden.critic_ensemble),
            "target_qvalue": ("target_critic_before", golden.critic_ensemble),
            "value": ("value_after2", golden.value_network),
            "target_value": ("target_value_before", golden.value_network),
        },
        ("saint",),
    ),
    "bcq": Recorded(
        lambda meta: BCQ(**common(meta), threshold=meta["bcq_threshold"], candidates=meta["bcq_candidates"]),
        {"loss_policy": "imitation_loss", "loss_qvalue": "critic_loss"},
        {
            "qvalue": ("critic_after2", golden.critic_ensemble),
            "target_qvalue": ("target_critic_before", golden.critic_ensemble),
        },
        ("saint",),
    ),
}
GUESSES = {("uniform_bins", "awac"): 7}  # seed of the noise on the first guess, where there is any
CASES = [(case, name, policy) for case in golden.CASES for name, each in RECORDED.items() for policy in each.policies]


def build(case, name, policy, device="cpu"):
    machine = ResolvedMachine(device=device)
    config = RECORDED[name].config(case.meta)
    return config.build(case.policy(policy), case.observation_size, case.spec, seed=0, machine=machine).double()


def batch_of(case, device="cpu"):
    return case.batch().apply(lambda each: each.double() if each.is_floating_point() else each).to(device)


@functools.cache
def ends(case_name, name):
    """The recorded critics and values after two steps, as one flat state dict of ours."""
    case = golden.load(case_name)
    return {
        f"{network}.{weight}": value.double()
        for network, (theirs, mapping) in RECORDED[name].networks.items()
        for weight, value in mapping(case.weights(f"{name}/{theirs}/")).items()
    }


@functools.cache
def starts(case_name, name):
    """The networks before the two steps: the fixed point of start = start + (recorded end − our end)."""
    case, target = golden.load(case_name), ends(case_name, name)
    policy = "factored" if name == "iql" else "saint"  # IQL's critics do not see the policy
    start = {key: weight.clone() for key, weight in target.items()}
    if (seed := GUESSES.get((case_name, name))) is not None:
        generator = torch.Generator().manual_seed(seed)
        start = {key: w + 2e-3 * (2 * torch.rand(w.shape, generator=generator) - 1) for key, w in start.items()}
    for _ in range(8):
        algorithm = build(case, name, policy)
        algorithm.load_state_dict(start, strict=False)
        for _ in range(2):
            algorithm.update(batch_of(case))
        end = algorithm.state_dict()
        start = {key: weight + (target[key] - end[key]) for key, weight in start.items()}
    return start


@pytest.mark.parametrize(("case_name", "name", "policy"), CASES)
def test_two_steps(case_name, name, policy, device):
    case, recorded = golden.load(case_name), RECORDED[name]
    algorithm = build(case, name, policy, device)
    algorithm.load_state_dict(starts(case_name, name), strict=False)
    for step in ("step1", "step2"):
        losses = algorithm.update(batch_of(case, device))
        for ours, theirs in recorded.losses.items():
            expected = case.arrays[f"{name}/{policy}/{step}/{theirs}"]
            torch.testing.assert_close(losses[ours].cpu().double(), expected, rtol=1e-5, atol=0)
    compare(algorithm.state_dict(), ends(case_name, name))
    compare(algorithm.policy.state_dict(), case.mapped_policy(policy, f"{name}/{policy}/policy_after2/"))


@pytest.mark.parametrize("case_name", golden.CASES)
def test_bcq_acts_by_the_filtered_argmax(case_name):
    """The recorder acted with the critics of the start and the imitation policy as it was given."""
    case = golden.load(case_name)
    algorithm = build(case, "bcq", "saint")
    algorithm.load_state_dict(starts(case_name, "bcq"), strict=False)
    action = algorithm.eval().acting_policy().mode(batch_of(case)["observation"])
    assert torch.equal(action, case.arrays["bcq/saint/greedy_action_before"])


def compare(ours, expected):
    for key, value in expected.items():
        # A softmax over keys does not see a shift that all keys share, so the gradient of this bias is rounding noise
        # and nothing else, which Adam blows up to the size of a step: no two implementations agree on it.
        if key.endswith("key.bias"):
            continue
        torch.testing.assert_close(
            ours[key].cpu(), value.double(), rtol=0, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
        )
