"""Observations in standard units, the same in the loader as anywhere else."""

import attrs
import numpy as np
import pytest
import torch

from spinrl.data import ReplayLoader, Standardizer, Store
from spinrl.specs import ActionSpec
from tests.data.store_samples import random_episode, write_store

SPEC = ActionSpec([3, 2])


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store", [random_episode(50, SPEC, 4, seed) for seed in range(3)], SPEC, 4)


def test_a_dataset_has_mean_zero_and_deviation_one_in_its_own_units(store):
    observation = Standardizer.of(store)(store.data["observations", "observation"])
    torch.testing.assert_close(observation.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(observation.std(0), torch.ones(4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e-9, 1e9])
def test_the_unit_that_an_entry_was_logged_in_does_not_matter(unit, tmp_path):
    episode = random_episode(50, SPEC, 4, 0)
    in_unit = attrs.evolve(episode, observations=(episode.observations * unit).astype(np.float32))
    given, other = (
        write_store(tmp_path / name, [each], SPEC, 4).data["observations", "observation"]
        for name, each in (("given", episode), ("other", in_unit))
    )
    units = [Standardizer.of(Store.open(tmp_path / name)) for name in ("given", "other")]
    torch.testing.assert_close(units[1](other), units[0](given), atol=1e-4, rtol=1e-4)


def test_a_constant_entry_is_nothing_and_a_far_out_one_stays_finite(tmp_path):
    episode = random_episode(50, SPEC, 4, 0)
    episode.observations[:, 0], episode.observations[:, 1] = 1e-3, 0.0
    units = Standardizer.of(write_store(tmp_path / "store", [episode], SPEC, 4))
    out = units(torch.tensor([[1e-3, 5.0, 1e30, -1e30]]))
    assert out.tolist() == [[0.0, 0.0, 10.0, -10.0]]


def test_the_loader_gives_both_ends_of_a_transition_in_standard_units(store):
    units = Standardizer.of(store)
    raw, standard = ReplayLoader(store, 16, 0), ReplayLoader(store, 16, 0, standardizer=units)
    a, b = raw.sample(), standard.sample()
    torch.testing.assert_close(b["observation"], units(a["observation"]))
    torch.testing.assert_close(b["next", "observation"], units(a["next", "observation"]))
    torch.testing.assert_close(b["next", "reward"], a["next", "reward"])
    torch.testing.assert_close(standard.sample_actions()[0], units(raw.sample_actions()[0]))
