"""Observations in standard units, the same in the loader as anywhere else."""

import pytest
import torch
from store_samples import random_episode, write_store

from spinrl.data import ReplayLoader, Standardizer
from spinrl.specs import ActionSpec

SPEC = ActionSpec([3, 2])


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store", [random_episode(50, SPEC, 4, seed) for seed in range(3)], SPEC, 4)


def test_a_dataset_has_mean_zero_and_deviation_one_in_its_own_units(store):
    observation = Standardizer.of(store)(store.data["observations", "observation"])
    torch.testing.assert_close(observation.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(observation.std(0), torch.ones(4), atol=1e-3, rtol=0)


def test_a_constant_entry_and_a_far_out_one_stay_finite():
    units = Standardizer(torch.tensor([5.0]), 1.0 / torch.tensor([0.0]).clamp_min(1e-2))
    assert units(torch.tensor([[5.0], [1e30], [-1e30]])).tolist() == [[0.0], [10.0], [-10.0]]


def test_the_loader_gives_both_ends_of_a_transition_in_standard_units(store):
    units = Standardizer.of(store)
    raw, standard = ReplayLoader(store, 16, 0), ReplayLoader(store, 16, 0, standardizer=units)
    a, b = raw.sample(), standard.sample()
    torch.testing.assert_close(b["observation"], units(a["observation"]))
    torch.testing.assert_close(b["next", "observation"], units(a["next", "observation"]))
    torch.testing.assert_close(b["next", "reward"], a["next", "reward"])
    torch.testing.assert_close(standard.sample_actions()[0], units(raw.sample_actions()[0]))
