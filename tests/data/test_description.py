from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spinrl.data.description as description_module
from spinrl.data import Episode, SourceRecord, Store
from spinrl.data.description import (
    Description,
    action_statistics,
    duplicate_transitions,
    entropy,
    episode_statistics,
    mutual_information,
    observation_statistics,
    source_labels,
)
from spinrl.specs import ActionSpec
from tests.data.store_samples import random_episode, write_store

SPEC = ActionSpec((2, 4, 3))


def store_of(path: Path, actions: list[list[int]], spec: ActionSpec = SPEC) -> Store:
    """A store of one episode with these actions."""
    episode = random_episode(len(actions), spec, 2)
    return write_store(path, [attrs.evolve(episode, actions=np.array(actions))], spec, 2, bins=None)


@pytest.mark.parametrize(
    ("counts", "bits"), [([5, 5], 1.0), ([7, 0, 0], 0.0), ([2, 1, 1], 1.5), ([1] * 8, 3.0), ([3, 1], 0.8112781)]
)
def test_entropy_in_bits(counts: list[int], bits: float) -> None:
    assert entropy(np.array(counts)) == pytest.approx(bits)


def test_mutual_information_of_what_is_known() -> None:
    parity, four = np.array([0, 1, 0, 1]), np.array([0, 1, 2, 3])
    coin = np.array([0, 0, 1, 1])
    bits = mutual_information(np.stack([parity, four, coin, parity ^ coin, np.zeros(4, int)], axis=1), (2, 4, 2, 2, 3))
    wanted = [
        [1, 1, 0, 0, 0],  # parity: known from the four, independent of the coin and of their exclusive or
        [1, 2, 1, 1, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 0, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(bits, wanted, atol=1e-12)


def by_definition(one: np.ndarray, other: np.ndarray) -> float:
    bits = 0.0
    for a in set(one):
        for b in set(other):
            both = np.mean((one == a) & (other == b))
            if both:
                bits += both * np.log2(both / np.mean(one == a) / np.mean(other == b))
    return bits


@given(st.lists(st.integers(2, 6), min_size=1, max_size=4), st.integers(1, 30), st.integers(0, 99))
def test_mutual_information_is_as_defined_whatever_the_cardinalities(nvec: list[int], steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    actions = rng.integers(0, nvec, (steps, len(nvec))).astype(np.uint8)
    bits = mutual_information(actions, nvec)
    own = [entropy(np.bincount(column)) for column in actions.T]
    np.testing.assert_allclose(np.diag(bits), own)
    np.testing.assert_array_equal(bits, bits.T)
    for i in range(len(nvec)):
        for j in range(i):
            assert bits[i, j] == pytest.approx(by_definition(actions[:, i], actions[:, j]), abs=1e-9)
            assert 0 <= bits[i, j] <= min(own[i], own[j]) + 1e-9


def test_the_share_of_choices_that_masks_allow(tmp_path: Path) -> None:
    allowed = np.zeros((4, 3, 4), dtype=bool)
    allowed[:, 0, 0] = allowed[:, 1] = allowed[:, 2, 1] = True
    allowed[0, 0, 1] = allowed[1, 2, 2] = True
    allowed[3, :, :2] = True  # the mask after the last step is of no transition
    episode = attrs.evolve(random_episode(3, SPEC, 2), actions=np.array([[0, 3, 1]] * 3), allowed=allowed)
    episode = attrs.evolve(episode, allowed=allowed & (np.arange(4) < np.array(SPEC.nvec)[:, None]))
    statistics = action_statistics(write_store(tmp_path / "s", [episode], SPEC, 2, bins=None))
    assert statistics.allowed is not None
    np.testing.assert_allclose(statistics.allowed, [4 / 6, 1, 4 / 9])
    assert statistics.never_allowed == [[], [], [0]]
    assert store_of(tmp_path / "t", [[0, 0, 0]]) and action_statistics(Store.open(tmp_path / "t")).allowed is None


def test_mutual_information_of_very_many_choices_takes_memory_for_those_that_occur() -> None:
    rng = np.random.default_rng(0)
    few = rng.integers(0, 4, (200, 2))
    expected = mutual_information(few, [4, 4])
    np.testing.assert_allclose(mutual_information(few * 20_000, [65_536, 65_536]), expected, rtol=1e-12)


def test_coverage_of_different_cardinalities(tmp_path: Path) -> None:
    actions = action_statistics(store_of(tmp_path / "s", [[0, 3, 1], [1, 3, 1], [0, 0, 1], [1, 0, 1]]))
    assert [counts.tolist() for counts in actions.counts] == [[2, 2], [2, 0, 0, 2], [0, 4, 0]]
    np.testing.assert_array_equal(actions.shares, [[0.5, 0.5, np.nan, np.nan], [0.5, 0, 0, 0.5], [0, 1, 0, np.nan]])
    assert actions.never_taken == [[], [1, 2], [0, 2]]
    np.testing.assert_allclose(actions.entropy, [1, 1, 0])
    assert actions.transitions == actions.sampled == 4


def test_independent_sub_actions_tell_as_much_as_chance(tmp_path: Path) -> None:
    spec = ActionSpec((3, 20, 20, 50))
    actions = action_statistics(store_of(tmp_path / "s", random_episode(4000, spec, 1).actions.tolist(), spec))
    pairs = ~np.eye(4, dtype=bool)
    degrees = np.outer(np.array(spec.nvec) - 1, np.array(spec.nvec) - 1)
    unit = 2 * 4000 * np.log(2)  # so many times the bits are chi-squared: mean and deviation are known
    for bits in (actions.chance, actions.mutual_information):
        assert (np.abs(unit * bits - degrees)[pairs] < 5 * np.sqrt(2 * degrees)[pairs]).all()
    assert np.nanmax(actions.beyond_chance) < 0.02 and np.isnan(np.diag(actions.beyond_chance)).all()


def test_a_sample_counts_all_and_finds_what_binds(tmp_path: Path) -> None:
    spec = ActionSpec((4, 4, 4))
    drawn = random_episode(3000, spec, 1).actions
    drawn[:, 1] = drawn[:, 0]
    store = store_of(tmp_path / "s", drawn.tolist(), spec)
    actions, again = action_statistics(store, 500), action_statistics(store, 500)
    assert (actions.sampled, actions.transitions) == (500, 3000)
    assert all(counts.sum() == 3000 for counts in actions.counts)
    assert actions.beyond_chance[0, 1] == pytest.approx(2, abs=0.1) and actions.beyond_chance[0, 2] < 0.05
    np.testing.assert_array_equal(actions.mutual_information, again.mutual_information)
    np.testing.assert_array_equal(actions.chance, again.chance)


def test_episodes_by_source(tmp_path: Path) -> None:
    episodes = [random_episode(5, SPEC, 2, 1, source=1), random_episode(9, SPEC, 2, 2, source=1, terminated=True)]
    statistics = episode_statistics(write_store(tmp_path / "s", episodes, SPEC, 2, bins=None))
    assert list(statistics.returns) == ["expert, 5% random", "random"]
    assert statistics.returns["expert, 5% random"].size == 0
    np.testing.assert_allclose(statistics.returns["random"], [e.rewards.sum() for e in episodes], rtol=1e-5)
    assert statistics.lengths["random"].tolist() == [5, 9] and statistics.terminated == 1


def test_sources_have_names_of_their_own() -> None:
    medium = SourceRecord(behavior="medium", epsilon=0.025, hold=4)
    sources = [medium, SourceRecord(behavior="human"), SourceRecord(behavior="human"), SourceRecord(behavior="x")]
    assert source_labels(sources) == ["medium, 2.5% random, held 4", "human (2)", "human (3)", "x"]


def test_observation_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description_module, "_ROWS", 7)  # several parts
    episode = random_episode(30, SPEC, 4)
    rows = episode.observations
    rows[:, 1], rows[:, 2] = 3.25, 1000 + rows[:, 2]
    store = write_store(tmp_path / "s", [episode], SPEC, 4, bins=None)
    # A store takes no such values; these stay in memory, since files are mapped copy-on-write.
    stored = store.data["observations", "observation"]
    stored[0, 0], stored[9, 0], stored[:, 3] = float("nan"), float("inf"), float("nan")
    found = observation_statistics(store)
    finite = np.delete(rows[:, 0], [0, 9])
    np.testing.assert_allclose(found.low, [finite.min(), 3.25, rows[:, 2].min(), np.nan])
    np.testing.assert_allclose(found.high, [finite.max(), 3.25, rows[:, 2].max(), np.nan])
    np.testing.assert_allclose(found.mean, [finite.mean(), 3.25, rows[:, 2].mean(), np.nan], rtol=1e-5)
    np.testing.assert_allclose(found.std, [finite.std(), 0, rows[:, 2].std(), np.nan], rtol=1e-4)
    assert found.nonfinite.tolist() == [2, 0, 0, 31] and found.constant == [1]


def test_duplicates_are_equal_in_everything(tmp_path: Path) -> None:
    one = random_episode(20, SPEC, 2)

    def but(**changes: np.ndarray) -> Episode:
        return attrs.evolve(one, **changes)

    elsewhere, worth = one.observations.copy(), one.rewards.copy()
    elsewhere[7, 0] += 1  # changes the transition into it, and that out of it
    worth[3] += 1
    episodes = [one, but(), but(observations=elsewhere), but(rewards=worth)]
    store = write_store(tmp_path / "s", episodes, SPEC, 2, bins=None)
    assert duplicate_transitions(store) == 20 + 18 + 19


def test_a_description_has_it_all(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", [random_episode(50, SPEC, 2)], SPEC, 2, bins=None)
    store.data["transitions", "reward"][4] = float("nan")
    found = Description.of(store, sample=20)
    rewards = np.delete(store.data["transitions", "reward"].numpy(), 4)
    assert found.rewards == (rewards.min(), rewards.max()) and found.nonfinite_rewards == 1
    assert found.duplicates == 0 and found.actions.sampled == 20 and len(found.observations.low) == 2
