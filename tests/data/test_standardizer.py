"""Observations in standard units, read so by networks from raw ones."""

import copy

import attrs
import numpy as np
import pytest
import torch

from spinrl import testing as contracts
from spinrl.algorithms import IQL
from spinrl.data import Store, standard_units, standardize
from spinrl.nn import Standardizer
from spinrl.policies import Factored
from spinrl.specs import ActionSpec
from tests.data.store_samples import random_episode, write_store

SPEC = ActionSpec([3, 2])


def network(size):
    return torch.nn.Sequential(Standardizer(size))


def units_of(store):
    standardizer = Standardizer(store.observation_size)
    standardizer.set(*standard_units(store))
    return standardizer


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store", [random_episode(50, SPEC, 4, seed) for seed in range(3)], SPEC, 4)


def test_a_dataset_has_mean_zero_and_deviation_one_in_its_own_units(store):
    observation = units_of(store)(store.data["observations", "observation"])
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
    units = [units_of(Store.open(tmp_path / name)) for name in ("given", "other")]
    torch.testing.assert_close(units[1](other), units[0](given), atol=1e-4, rtol=1e-4)


def test_an_entry_whose_sums_leave_single_precision_is_not_lost(tmp_path):
    episode = random_episode(50, SPEC, 4, 0)
    episode.observations[:, 0] *= np.float32(2e37)
    store = write_store(tmp_path / "store", [episode], SPEC, 4)
    observation = units_of(store)(store.data["observations", "observation"])
    assert observation.isfinite().all()
    torch.testing.assert_close(observation.std(0), torch.ones(4), atol=1e-3, rtol=0)


def test_the_mean_of_an_entry_far_from_zero_is_exact(tmp_path):
    rng = np.random.default_rng(0)
    episode = attrs.evolve(
        random_episode(999, SPEC, 2), observations=(1e6 + 2 * rng.normal(size=(1000, 2))).astype("f4")
    )
    store = write_store(tmp_path / "s", [episode], SPEC, 2, bins=None)
    exact = store.data["observations", "observation"].double()
    mean, scale = standard_units(store)
    torch.testing.assert_close(mean, exact.mean(0).float(), rtol=0, atol=0)
    torch.testing.assert_close(scale, 1 / exact.std(0).float(), rtol=1e-6, atol=0)


def test_a_constant_entry_is_nothing_and_a_far_out_one_stays_finite(tmp_path):
    episode = random_episode(50, SPEC, 4, 0)
    episode.observations[:, 0], episode.observations[:, 1] = 1e-3, 0.0
    units = units_of(write_store(tmp_path / "store", [episode], SPEC, 4))
    out = units(torch.tensor([[1e-3, 5.0, 1e30, -1e30]]))
    assert out.tolist() == [[0.0, 0.0, 10.0, -10.0]]


def test_every_network_within_a_network_reads_raw_observations_in_standard_units(store):
    algorithm = contracts.build_algorithm(IQL(), Factored(), SPEC, size=4)
    observation = store.data["observations", "observation"]
    algorithm.eval()
    raw, raw_value = (copy.deepcopy(part) for part in (algorithm.policy, algorithm.value))
    standardize(algorithm, store)
    standard = units_of(store)(observation)
    with torch.no_grad():
        assert torch.equal(algorithm.policy.logits(observation), raw.logits(standard))
        assert torch.equal(algorithm.value(observation), raw_value(standard))
        assert torch.equal(algorithm.qvalue.outputs(observation), algorithm.target_qvalue.outputs(observation))


def test_a_state_dict_brings_its_units_along(store):
    standard, fresh, raw = (network(4) for _ in range(3))
    standardize(standard, store)
    fresh.load_state_dict(standard.state_dict())
    observation = store.data["observations", "observation"]
    assert torch.equal(fresh[0](observation), units_of(store)(observation))
    assert not torch.equal(fresh[0](observation), observation)
    assert "0.mean" not in raw.state_dict() and torch.equal(raw[0](observation), observation)
    with pytest.raises(RuntimeError, match=r"0\.mean"):
        standard.load_state_dict(raw.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        network(5).load_state_dict({"0.mean": torch.zeros(4), "0.scale": torch.zeros(4)})


def test_a_network_that_cannot_standardise_is_refused(store):
    with pytest.raises(ValueError, match="Linear has no Standardizer"):
        standardize(torch.nn.Linear(4, 1), store)
