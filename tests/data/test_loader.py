from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spinrl.data import ReplayLoader, Store
from spinrl.specs import (
    ACTION,
    ALLOWED,
    NEXT_ALLOWED,
    NEXT_OBSERVATION,
    NEXT_REWARD,
    NEXT_TERMINATED,
    OBSERVATION,
    ActionSpec,
)
from tests.data.store_samples import random_episode, write_store

SPEC = ActionSpec((3, 300, 2))
SIZE = 4
KEYS = (OBSERVATION, ACTION, NEXT_OBSERVATION, NEXT_REWARD, NEXT_TERMINATED)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    episodes = [random_episode(steps, SPEC, SIZE, steps, terminated=steps == 5) for steps in (9, 5, 1)]
    return write_store(tmp_path / "store", episodes, SPEC, SIZE, bins=None)


def test_batches_hold_the_stored_transitions_under_the_agreed_keys(store: Store) -> None:
    batch = ReplayLoader(store, 400, seed=0).sample()
    assert set(batch.keys(include_nested=True, leaves_only=True)) == set(KEYS)
    assert batch[OBSERVATION].shape == batch[NEXT_OBSERVATION].shape == (400, SIZE)
    assert batch[OBSERVATION].dtype == torch.float32
    assert batch[ACTION].shape == (400, 3) and batch[ACTION].dtype == torch.int64
    for key, dtype in ((NEXT_REWARD, torch.float32), (NEXT_TERMINATED, torch.bool)):
        assert batch[key].shape == (400, 1) and batch[key].dtype == dtype

    wanted = {}
    for episode in store.episodes():
        for step in range(len(episode)):
            wanted[episode.observations[step].tobytes()] = (episode, step)
    seen = set()
    for row in range(400):
        name = batch[OBSERVATION][row].numpy().tobytes()
        episode, step = wanted[name]
        seen.add(name)
        assert torch.equal(batch[NEXT_OBSERVATION][row], torch.from_numpy(episode.observations[step + 1]))
        assert batch[ACTION][row].tolist() == episode.actions[step].tolist()
        assert batch[NEXT_REWARD][row].item() == episode.rewards[step]
        assert batch[NEXT_TERMINATED][row].item() == episode.terminated[step]
    assert len(seen) == 15  # a draw of 400 misses one of 15 with a chance of 2e-11


def test_masks_come_along_where_the_store_has_them(tmp_path: Path) -> None:
    episodes = [random_episode(steps, SPEC, SIZE, steps, masked=True) for steps in (9, 5, 1)]
    masked = write_store(tmp_path / "masked", episodes, SPEC, SIZE, bins=None)
    at = {row.tobytes(): mask for each in episodes for row, mask in zip(each.observations, each.allowed, strict=True)}
    loader = ReplayLoader(masked, 50, seed=0)
    state = loader.state_dict()
    batch = loader.sample()
    for observations, masks in ((OBSERVATION, ALLOWED), (NEXT_OBSERVATION, NEXT_ALLOWED)):
        assert batch[masks].dtype == torch.bool and batch[masks].shape == (50, 3, 300)
        for row, mask in zip(batch[observations], batch[masks], strict=True):
            assert np.array_equal(mask.numpy(), at[row.numpy().tobytes()])
    loader.load_state_dict(state)
    observation, action, allowed = loader.sample_actions()
    assert torch.equal(allowed, batch[ALLOWED]) and torch.equal(observation, batch[OBSERVATION])
    assert allowed.gather(-1, action[..., None]).all()


def test_the_seed_decides_the_order(store: Store) -> None:
    def batches(seed: int) -> torch.Tensor:
        loader = ReplayLoader(store, 8, seed)
        torch.rand(1)  # the global stream has no say
        return torch.cat([loader.sample()[OBSERVATION] for _ in range(3)])

    assert torch.equal(batches(3), batches(3))
    assert not torch.equal(batches(3), batches(4))


def test_a_resumed_loader_goes_on_exactly(store: Store) -> None:
    loader = ReplayLoader(store, 8, seed=0)
    loader.sample()
    state = loader.state_dict()
    wanted = [loader.sample(), loader.sample()]
    resumed = ReplayLoader(store, 8, seed=99)
    resumed.load_state_dict(state)
    for batch in wanted:
        assert (resumed.sample() == batch).all()


def test_observations_and_actions_alone_are_those_of_whole_batches(store: Store) -> None:
    whole = ReplayLoader(store, 8, seed=0).sample()
    observation, action, allowed = ReplayLoader(store, 8, seed=0).sample_actions()
    assert torch.equal(observation, whole[OBSERVATION]) and torch.equal(action, whole[ACTION])
    assert allowed is None


def test_a_batch_is_a_copy(store: Store) -> None:
    loader = ReplayLoader(store, 64, seed=0)
    for value in loader.sample().values(include_nested=True, leaves_only=True):
        value.zero_()
    assert loader.sample()[OBSERVATION].abs().min() > 0


def test_the_buffer_cannot_be_written(store: Store) -> None:
    loader = ReplayLoader(store, 8, seed=0)
    with pytest.raises(RuntimeError):
        loader.buffer.extend(loader.sample())
    with pytest.raises(RuntimeError, match="never written"):
        loader.buffer.storage.set(0, loader.sample())
