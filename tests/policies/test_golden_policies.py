"""The four policies and the ASM agree with the public code to 1e-5, mixed cardinalities included."""

import golden
import pytest
import torch
from torch.nn import functional


@pytest.fixture(params=golden.CASES)
def case(request):
    return golden.load(request.param)


@pytest.mark.parametrize("name", golden.POLICIES)
def test_log_probs_per_sub_action(case, name, device):
    policy = case.policy(name).eval().to(device)
    log_probs = policy.log_probs(case.arrays["batch/state"].to(device), case.arrays["batch/action"].to(device))
    torch.testing.assert_close(case.ragged(log_probs.cpu()), case.arrays[f"policy/{name}/log_probs"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", golden.POLICIES)
def test_joint_log_prob_sums_the_chosen_ones(case, name):
    policy = case.policy(name).eval()
    action = case.arrays["batch/action"]
    offsets = torch.tensor([0, *case.spec.nvec[:-1]]).cumsum(0)
    expected = case.arrays[f"policy/{name}/log_probs"].gather(1, action + offsets).sum(1)
    torch.testing.assert_close(policy.log_prob(case.arrays["batch/state"], action), expected, rtol=0, atol=1e-5)


def test_asm_slot_embeddings_logits_and_loss(case, device):
    asm = case.asm().eval().to(device)
    observation, tokens = (case.arrays[key].to(device) for key in ("batch/state", "asm/input_action"))
    embeddings = asm.slot_embeddings(observation, tokens).cpu()
    torch.testing.assert_close(embeddings, case.arrays["asm/slot_embeddings"], rtol=0, atol=1e-5)
    logits, chosen = asm(observation, tokens).cpu(), case.arrays["asm/mask"]
    torch.testing.assert_close(case.ragged(logits), case.arrays["asm/logits"], rtol=0, atol=1e-5)
    loss = functional.cross_entropy(logits[chosen], case.arrays["batch/action"][chosen])
    torch.testing.assert_close(loss.double(), case.arrays["asm/loss"], rtol=1e-5, atol=0)
