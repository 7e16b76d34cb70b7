"""Random streams that go on where they were."""

import pytest
import torch

from spinrl.nn.initialization import seeded_initialization
from spinrl.seeding import random_state, restore_random_state


def test_what_torch_draws_goes_on_from_a_checkpoint(device):
    torch.rand(3, device=device)
    state = random_state()
    wanted = torch.rand(5, device=device)
    restore_random_state(state)
    assert torch.equal(torch.rand(5, device=device), wanted)


def test_a_checkpoint_without_a_gpu_s_state_is_gone_on_with():
    state = random_state()
    wanted = torch.rand(5)
    restore_random_state({"torch_rng": state["torch_rng"]})
    assert torch.equal(torch.rand(5), wanted)


def test_initial_weights_seed_no_gpu(monkeypatch):
    """Whose stream nothing would put back: dropout would repeat itself after every estimate made on the way."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeded"))
    before = torch.get_rng_state()
    with seeded_initialization(3, "policy"):
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded_initialization(3, "policy"):
        assert torch.equal(torch.rand(4), first)
