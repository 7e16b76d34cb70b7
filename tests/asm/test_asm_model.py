"""The ASM: what it sees, what it refuses, and the shortcut to chosen sub-actions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spinrl.asm import ASMEncoder
from spinrl.specs import ActionSpec

SIZES = {"d_model": 16, "num_heads": 2, "num_blocks": 2, "head_width": 8}


def build(nvec, **fields):
    return ASMEncoder(**SIZES, **fields).build(4, ActionSpec(nvec), seed=0).eval()


@settings(max_examples=25, deadline=None)
@given(
    nvec=st.lists(st.integers(1, 6), min_size=1, max_size=4).filter(lambda nvec: max(nvec) > 1),
    chosen=st.lists(st.booleans(), min_size=12, max_size=12),
    conditioned=st.booleans(),
)
def test_chosen_logits_are_those_of_the_full_forward(nvec, chosen, conditioned):
    model = build(nvec, state_conditioning=conditioned)
    chosen = torch.tensor(chosen).view(3, 4)[:, : len(nvec)]
    observation = torch.randn(3, 4)
    tokens = torch.stack([torch.randint(m + 1, (3,)) for m in nvec], dim=1)
    full = model(observation, tokens)
    logits, rows, real = model.logits_at(observation, tokens, chosen)
    assert int(real.sum()) == int(chosen.sum())
    for slot in range(len(nvec)):
        assert sorted(rows[slot][real[slot]].tolist()) == chosen[:, slot].nonzero().flatten().tolist()
        torch.testing.assert_close(logits[slot], full[rows[slot], slot], rtol=1e-4, atol=1e-5)
    logits, rows, real = model.logits_at(observation, tokens, chosen, everywhere=True)
    assert torch.equal(real, chosen.t()) and (rows == torch.arange(3)).all()
    torch.testing.assert_close(logits, full.transpose(0, 1), rtol=1e-4, atol=1e-5)


def test_every_choice_and_mask_token_has_an_embedding_of_its_own():
    model = build([2, 3])
    assert model.embedding.shape == (2 + 3 + 2, 16)
    assert torch.equal(model.mask_embeddings(), model.embedding[[2, 6]])


def test_without_state_conditioning_the_state_is_not_seen():
    tokens = torch.tensor([[2, 1], [2, 1]])
    blind, seeing = build([2, 3], state_conditioning=False), build([2, 3])
    observation = torch.randn(2, 4)
    logits = blind(observation, tokens)
    torch.testing.assert_close(logits[0], logits[1])
    assert not any(name.startswith("encoder.state_encoder") for name in blind.state_dict())
    logits = seeing(observation, tokens)
    assert not torch.allclose(logits[0, :, 0], logits[1, :, 0])


def test_a_sub_action_sees_the_others():
    model = build([2, 3])
    observation = torch.zeros(2, 4)
    logits = model(observation, torch.tensor([[2, 0], [2, 1]]))
    assert not torch.allclose(logits[0, 0, :2], logits[1, 0, :2])


@pytest.mark.parametrize("fields", [{"d_model": 18, "num_heads": 4}, {"dropout": 1.0}, {"num_blocks": 0}])
def test_sizes_that_make_no_network_are_refused(fields):
    with pytest.raises(ValueError):
        ASMEncoder(**fields)


def test_the_seed_alone_decides_the_weights():
    config = ASMEncoder(**SIZES)
    first, same, other = (config.build(4, ActionSpec([2, 3]), seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["embedding"], other["embedding"])
