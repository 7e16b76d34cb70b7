"""Holding out episodes: the two parts are the whole, and the same ones whenever they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spinrl.data import Making, Store, StoreError
from spinrl.data.holdout import cached_split, split
from spinrl.specs import ActionSpec
from tests.data.store_samples import random_episode, write_store

SPEC = ActionSpec((3, 2))


def store_of(folder: Path, episodes: int) -> Store:
    return write_store(
        folder, [random_episode(2 + n % 4, SPEC, 3, seed=n, source=n % 2) for n in range(episodes)], SPEC, 3, bins=None
    )


@given(episodes=st.integers(2, 12), share=st.floats(0.01, 0.99), seed=st.integers(0, 9))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_episode_is_in_one_of_two_parts(
    tmp_path_factory: pytest.TempPathFactory, episodes: int, share: float, seed: int
) -> None:
    whole = store_of(tmp_path_factory.mktemp("store") / "s", episodes)
    training, held_out = split(whole, share, seed)
    assert 1 <= held_out.metadata.episodes == min(max(1, round(share * episodes)), episodes - 1)
    both = [each.rewards.tolist() for part in (training, held_out) for each in part.episodes()]
    assert sorted(both) == sorted(each.rewards.tolist() for each in whole.episodes())
    assert training.metadata.nvec == held_out.metadata.nvec == whole.metadata.nvec
    assert [each.behavior for each in training.metadata.sources] == ["expert", "random"]


def test_the_split_is_made_once_and_depends_on_seed_and_share(tmp_path: Path) -> None:
    whole = store_of(tmp_path / "s", 10)
    assert cached_split(whole, 0.3, 0) is None
    training, _ = split(whole, 0.3, 0)
    again = cached_split(whole, 0.3, 0)
    assert again is not None and again.path == training.path == split(whole, 0.3, 0)[0].path
    assert len({split(whole, 0.3, seed)[1].fingerprint for seed in range(4)}) > 1
    assert split(whole, 0.5, 0)[1].metadata.episodes == 5


def test_one_episode_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"has one episode, of which none can be held out; set Experiment\.held_out=0"):
        split(store_of(tmp_path / "s", 1), 0.1, 0)


def test_a_damaged_part_is_reported(tmp_path: Path) -> None:
    whole = store_of(tmp_path / "s", 4)
    training, _ = split(whole, 0.5, 0)
    file = training.path / "transitions" / "reward.memmap"
    file.write_bytes(b"\0" * file.stat().st_size)
    with pytest.raises(StoreError, match="has been altered"):
        split(whole, 0.5, 0)
    said: list[str] = []
    assert split(whole, 0.5, 0, Making(on_damage=said.append))[0].fingerprint == training.fingerprint and len(said) == 1
    split(whole, 0.5, 0)
