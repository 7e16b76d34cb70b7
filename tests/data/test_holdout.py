"""Holding out episodes: the two parts are the whole, and the same ones whenever they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spinrl.data import BuildOptions, Store, StoreError
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


def test_the_named_sources_are_held_out_whole(tmp_path: Path) -> None:
    whole = store_of(tmp_path / "s", 7)
    training, held_out = split(whole, 0.5, 0, sources=["random"])
    assert training.metadata.episodes == 4 and held_out.metadata.episodes == 3
    for part, source in ((training, 0), (held_out, 1)):
        assert set(part.data["episodes", "source"].tolist()) == {source}
    whole_rewards = [each.rewards.tolist() for each in whole.episodes() if each.source == 1]
    assert [each.rewards.tolist() for each in held_out.episodes()] == whole_rewards
    assert split(whole, 0.1, 3, by="rows", sources=["random"])[0].path == training.path
    assert cached_split(whole, 0, 0, sources=["expert"]) is None


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (["test"], r"no episodes of 'test' to hold out; Experiment.held_out_sources can name 'expert', 'random'"),
        (["random", "expert"], "nothing is left to train on"),
    ],
)
def test_sources_that_cannot_be_held_out(tmp_path: Path, sources: list[str], said: str) -> None:
    with pytest.raises(StoreError, match=said):
        split(store_of(tmp_path / "s", 4), 0, 0, sources=sources)


def test_one_episode_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"has one episode, of which none can be held out.*held_out_by='rows'"):
        split(store_of(tmp_path / "s", 1), 0.1, 0)


@pytest.mark.parametrize(("length", "share", "kept"), [(40, 0.1, 36), (10, 0.01, 9), (3, 0.99, 1), (2, 0.5, 1)])
def test_of_one_long_episode_the_last_rows_are_held_out(tmp_path: Path, length: int, share: float, kept: int) -> None:
    whole = write_store(tmp_path / "s", [random_episode(length, SPEC, 3, seed=0)], SPEC, 3, bins=None)
    training, held_out = split(whole, share, 0, by="rows")
    first, last, (episode,) = training.episode(0), held_out.episode(0), whole.episodes()
    assert (len(first), len(last)) == (kept, length - kept)
    for field in ("actions", "rewards", "terminated"):
        both = np.concatenate([getattr(first, field), getattr(last, field)])
        assert np.array_equal(both, getattr(episode, field))
    assert np.array_equal(first.observations, episode.observations[: kept + 1])
    assert np.array_equal(last.observations, episode.observations[kept:])  # the row between is what the first led to
    assert first.truncated[-1] and last.truncated[-1] == episode.truncated[-1]
    again = cached_split(whole, share, 0, "rows")
    assert again is not None and again.path == training.path and cached_split(whole, share, 0) is None


def test_every_episode_gives_its_last_rows_but_those_of_one_row(tmp_path: Path) -> None:
    lengths = [1, 5, 20]
    whole = write_store(
        tmp_path / "s", [random_episode(length, SPEC, 3, seed=length) for length in lengths], SPEC, 3, bins=None
    )
    training, held_out = split(whole, 0.2, 0, by="rows")
    assert [len(each) for each in training.episodes()] == [1, 4, 16]
    assert [len(each) for each in held_out.episodes()] == [1, 4]
    single = write_store(tmp_path / "t", [random_episode(1, SPEC, 3, seed=n) for n in range(3)], SPEC, 3, bins=None)
    with pytest.raises(StoreError, match=r"episodes of one row each.*held_out_by='episodes'"):
        split(single, 0.2, 0, by="rows")


def test_a_damaged_part_is_reported(tmp_path: Path) -> None:
    whole = store_of(tmp_path / "s", 4)
    training, _ = split(whole, 0.5, 0)
    file = training.path / "transitions" / "reward.memmap"
    file.write_bytes(b"\0" * file.stat().st_size)
    with pytest.raises(StoreError, match="has been altered"):
        split(whole, 0.5, 0)
    said: list[str] = []
    assert (
        split(whole, 0.5, 0, BuildOptions(on_damage=said.append))[0].fingerprint == training.fingerprint
        and len(said) == 1
    )
    split(whole, 0.5, 0)
