"""Masks: how many, of what kind, and a loss that agrees with the public code's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from spinrl import testing as contracts
from spinrl.asm import Masking, masked_cross_entropy, masked_prediction

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.npz"))

NVEC = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def _draw(masking, nvec, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor(nvec)
    action = (torch.rand(rows, len(nvec), generator=generator) * counts).long()
    return action, counts, *masking.apply(action, counts, generator)


@given(
    NVEC,
    st.integers(1, 20),
    st.integers(0, 1000),
    st.builds(Masking, probability=st.floats(0.01, 1))
    | st.builds(Masking, share=st.just("per_sample"), least=st.floats(0, 1)),
)
def test_tokens_are_choices_or_the_mask_token_and_only_chosen_ones_change(nvec, rows, seed, masking):
    action, counts, tokens, chosen = _draw(masking, nvec, rows, seed)
    assert chosen.any()
    assert ((tokens >= 0) & (tokens <= counts)).all()
    assert torch.equal(tokens[~chosen], action[~chosen])


def test_fifteen_percent_are_chosen_and_split_eighty_ten_ten():
    action, counts, tokens, chosen = _draw(Masking(), [50] * 20, 4000, 0)
    assert chosen.float().mean() == pytest.approx(0.15, abs=0.01)
    masked = (tokens == counts)[chosen].float().mean()
    kept = (tokens == action)[chosen].float().mean()
    assert masked == pytest.approx(0.8, abs=0.02)
    assert kept == pytest.approx(0.1 + 0.1 / 50, abs=0.02)  # a random choice may be the same one


def test_a_share_per_sample_ranges_from_none_to_all():
    *_, chosen = _draw(Masking(share="per_sample"), [3] * 50, 2000, 0)
    shares = chosen.float().mean(1)
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.quantile(0.05) < 0.12 and shares.quantile(0.95) > 0.88


def test_at_least_one_is_chosen_even_when_the_probability_is_tiny():
    *_, chosen = _draw(Masking(probability=1e-9), [3, 3], 4, 0)
    assert chosen.sum() == 1


@pytest.mark.parametrize("fields", [{"share": "per_sample", "probability": 0.6}, {"least": 0.5}])
def test_a_field_that_would_change_nothing_is_refused(fields):
    with pytest.raises(ValueError, match="changes nothing where share is"):
        Masking(**fields)


def test_the_split_may_not_exceed_one():
    with pytest.raises(ValueError, match="at most 1 - mask"):
        Masking(mask=0.8, random=0.3)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_loss_is_the_public_codes(path):
    golden = np.load(path)
    nvec = json.loads(str(golden["meta"]))["cardinalities"]
    flat = torch.from_numpy(golden["asm/logits"])
    logits = torch.full((len(flat), len(nvec), max(nvec)), -torch.inf)
    for slot, block in enumerate(flat.split(nvec, -1)):
        logits[:, slot, : nvec[slot]] = block
    target = torch.from_numpy(golden["batch/action"])
    loss, accuracy = masked_cross_entropy(logits, target, torch.from_numpy(golden["asm/mask"]).bool())
    assert float(loss) == pytest.approx(float(golden["asm/loss"]), rel=1e-5)
    assert 0 <= float(accuracy) <= 1


def test_each_sample_draws_its_share_from_the_least_one_up():
    _, _, _, chosen = _draw(Masking(share="per_sample", least=0.6), [3] * 200, 3000, 0)
    shares = chosen.float().mean(1)
    assert shares.min() > 0.45 and shares.max() > 0.97  # 200 slots tell a share to about 0.03
    assert shares.mean() == pytest.approx(0.8, abs=0.02)


def test_the_asm_predicts_among_allowed_choices():
    spec, generator = contracts.SPECS[1], torch.Generator()
    model, masking = contracts.frozen_asm(spec).model.eval(), Masking(probability=0.6)
    batch = contracts.random_batch(spec, 12, masked=True)
    observation, action, allowed = batch["observation"], batch["action"], batch["allowed"]

    def loss(*more):
        return masked_prediction(model, masking, observation, action, generator.manual_seed(3), *more)[0]

    tokens, chosen = masking.apply(action, model.mask_token, generator.manual_seed(3))
    logits = model(observation, tokens).masked_fill(~allowed, -torch.inf)
    expected = functional.cross_entropy(logits[chosen], action[chosen])
    torch.testing.assert_close(loss(allowed), expected)
    assert loss(allowed) < loss()
    assert torch.equal(loss(torch.ones_like(allowed)), loss())
    allowed[:, 1, 4] = False
    action[:, 1] %= 4
    allowed.scatter_(-1, action[..., None], True)
    loss(allowed).backward()
    assert not model.heads.bias.grad[1, ..., 4].any() and model.heads.bias.grad[1, ..., :4].any()
