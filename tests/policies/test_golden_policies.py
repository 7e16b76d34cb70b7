"""The four policies and the ASM agree with the public code to 1e-5, mixed cardinalities included."""

import golden
import pytest
import torch
from torch.nn import functional


@pytest.fixture(params=golden.CASES)
def case(request):
    return golden.load(request.param)


@pytest.mark.parametrize("name", golden.POLICIES)
def test_log_probs_per_sub_action(case, name):
    policy = case.policy(name).eval()
    log_probs = policy.log_probs(case.arrays["batch/state"], case.arrays["batch/action"])
    torch.testing.assert_close(case.ragged(log_probs), case.arrays[f"policy/{name}/log_probs"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", golden.POLICIES)
def test_joint_log_prob_sums_the_chosen_ones(case, name):
    policy = case.policy(name).eval()
    action = case.arrays["batch/action"]
    offsets = torch.tensor([0, *case.spec.nvec[:-1]]).cumsum(0)
    expected = case.arrays[f"policy/{name}/log_probs"].gather(1, action + offsets).sum(1)
    torch.testing.assert_close(policy.log_prob(case.arrays["batch/state"], action), expected, rtol=0, atol=1e-5)


def test_asm_slot_embeddings_logits_and_loss(case):
    asm = case.asm().eval()
    observation, tokens, chosen = (case.arrays[key] for key in ("batch/state", "asm/input_action", "asm/mask"))
    embeddings = asm.slot_embeddings(observation, tokens)
    torch.testing.assert_close(embeddings, case.arrays["asm/slot_embeddings"], rtol=0, atol=1e-5)
    logits = asm(observation, tokens)
    torch.testing.assert_close(case.ragged(logits), case.arrays["asm/logits"], rtol=0, atol=1e-5)
    loss = functional.cross_entropy(logits[chosen], case.arrays["batch/action"][chosen])
    torch.testing.assert_close(loss.double(), case.arrays["asm/loss"], rtol=1e-5, atol=0)
