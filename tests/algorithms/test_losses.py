"""The equations, against hand-computed cases and their properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spinrl.algorithms import losses

finite = st.floats(-100, 100, width=32)


def test_expectile_loss_weighs_shortfall_and_excess_differently():
    difference = torch.tensor([1.0, -2.0])
    assert losses.expectile_loss(difference, 0.8).item() == pytest.approx((0.8 * 1 + 0.2 * 4) / 2)


@given(st.lists(finite, min_size=1, max_size=20))
def test_half_expectile_is_half_the_mean_square(values):
    difference = torch.tensor(values)
    expected = 0.5 * difference.square().mean()
    torch.testing.assert_close(losses.expectile_loss(difference, 0.5), expected)


def test_td_target_by_hand():
    target = losses.td_target(
        torch.tensor([1.0, 1.0]), torch.tensor([False, True]), torch.tensor([10.0, torch.nan]), 0.9
    )
    torch.testing.assert_close(target, torch.tensor([10.0, 1.0]))


def test_ensemble_mse_is_the_mean_over_ensemble_and_batch():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert losses.ensemble_mse(values, torch.tensor([1.0, 1.0])).item() == pytest.approx((0 + 1 + 4 + 9) / 4)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20), st.floats(0, 10))
def test_advantage_weights_lie_between_zero_and_the_clip(advantages, inverse_temperature):
    weight = losses.advantage_weight(torch.tensor(advantages), inverse_temperature, 100.0)
    assert ((weight >= 0) & (weight <= 100)).all()


def test_weighted_log_likelihood_by_hand():
    loss = losses.weighted_log_likelihood(torch.tensor([-1.0, -3.0]), torch.tensor([2.0, 0.5]))
    assert loss.item() == pytest.approx((2 + 1.5) / 2)


@pytest.mark.parametrize(
    ("weights", "share"), [([2.0, 2.0], 1.0), ([1.0, 0.0], 0.5), ([1.0, 3.0], 0.8), ([1e-30] * 3, 1.0), ([0.0, 0.0], 0)]
)
def test_the_effective_share_is_kishs(weights, share):
    assert losses.effective_share(torch.tensor(weights)).item() == pytest.approx(share)


@given(st.lists(st.floats(2**-20, 100, width=32), min_size=1, max_size=20))
def test_the_effective_share_lies_between_one_transition_and_all(weights):
    share = losses.effective_share(torch.tensor(weights)).item()
    assert 1 / len(weights) - 1e-5 <= share <= 1 + 1e-5
