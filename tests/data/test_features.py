"""Features of every stored observation: right, computed once, tied to what they come from, and checked."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from spinrl.data import ReplayLoader, Store, StoreError, features_path, row_features
from spinrl.data.store.array_file import ArrayFile
from spinrl.specs import ACTION, NEXT_OBSERVATION, NEXT_POLICY_INPUT, OBSERVATION, POLICY_INPUT, ActionSpec
from tests.data.store_samples import random_episode, write_store

SPEC = ActionSpec((3, 4))
SIZE = 4
SHAPE = (2, 3)
MATRIX = torch.randn(SIZE, 6, generator=torch.Generator().manual_seed(0))


def encode(observation: torch.Tensor) -> torch.Tensor:
    return (observation @ MATRIX).view(-1, *SHAPE)


def never(_observation: torch.Tensor) -> torch.Tensor:
    raise AssertionError("what the cache holds is not computed again")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    lengths = (900, 5, 1)
    return write_store(tmp_path / "s", [random_episode(n, SPEC, SIZE, n) for n in lengths], SPEC, SIZE, bins=None)


def test_every_row_is_encoded_once_and_found_again(store: Store) -> None:
    told: list[tuple[int, int]] = []
    first = row_features(store, encode, SHAPE, "net", progress=lambda *done: told.append(done))
    observation = store.data["observations", "observation"]
    assert first.values.dtype == torch.bfloat16
    torch.testing.assert_close(first.values, encode(observation).bfloat16())
    assert told[-1] == (909, 909) and first.num_bytes == 909 * 6 * 2
    again = row_features(store, never, SHAPE, "net")
    assert torch.equal(again.values, first.values) and again.seconds == first.seconds > 0


def test_another_network_or_dataset_is_another_entry(store: Store, tmp_path: Path) -> None:
    plain = row_features(store, encode, SHAPE, "net")
    zeros = row_features(store, lambda x: torch.zeros(len(x), *SHAPE), SHAPE, "other")
    assert not zeros.values.any()
    other = write_store(tmp_path / "t", [random_episode(9, SPEC, SIZE, 1)], SPEC, SIZE, bins=None)
    assert len(row_features(other, encode, SHAPE, "net").values) == 10 != len(plain.values)


def test_batches_bring_the_features_of_both_ends(store: Store) -> None:
    features = row_features(store, encode, SHAPE, "net").values
    loader, plain = (ReplayLoader(store, 64, seed=0) for _ in range(2))
    loader.attach_features(features, following=True)
    batch = loader.sample()
    assert torch.equal(batch[ACTION], plain.sample()[ACTION])
    torch.testing.assert_close(batch[POLICY_INPUT], encode(batch[OBSERVATION]).bfloat16())
    torch.testing.assert_close(batch[NEXT_POLICY_INPUT], encode(batch[NEXT_OBSERVATION]).bfloat16())
    loader.attach_features(features)
    assert NEXT_POLICY_INPUT not in loader.sample().keys(include_nested=True)
    loader.attach_features(None)
    assert POLICY_INPUT not in loader.sample().keys()  # noqa: SIM118 (iterating goes over the batch)


def test_what_is_altered_or_cut_is_refused_by_name(store: Store) -> None:
    row_features(store, encode, SHAPE, "net")
    folder = features_path("net", store.fingerprint)
    file = folder / "features.bin"
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreError, match=rf"{folder} have been altered.*delete the folder"):
        row_features(store, never, SHAPE, "net")
    file.write_bytes(content[:-2])
    with pytest.raises(StoreError, match="shape"):
        row_features(store, never, SHAPE, "net")
    (folder / "card.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        row_features(store, never, SHAPE, "net")
    said: list[str] = []
    row_features(store, encode, SHAPE, "net", on_damage=said.append)
    assert len(said) == 1 and said[0].endswith("it is made anew")
    row_features(store, never, SHAPE, "net")


def test_a_full_disk_leaves_nothing_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: ArrayFile, values: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ArrayFile, "write", full)
    with pytest.raises(StoreError, match="No space left"):
        row_features(store, encode, SHAPE, "net")
    folder = features_path("net", store.fingerprint)
    assert [path.name for path in folder.parent.iterdir() if not path.name.endswith(".lock")] == []
