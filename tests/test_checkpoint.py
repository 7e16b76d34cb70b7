"""Checkpoints are written whole or not at all, and run no code when they are read."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from spinrl import checkpoint
from spinrl.checkpoint import CheckpointError


def test_round_trip(tmp_path):
    state = {"weights": torch.arange(5.0), "step": 7, "names": ["a"], "nested": {"rate": 0.5}}
    checkpoint.save(state, tmp_path / "deep" / "c.pt")
    loaded = checkpoint.load(tmp_path / "deep" / "c.pt")
    assert torch.equal(loaded.pop("weights"), state.pop("weights")) and loaded == state
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["c.pt"]


def test_a_failed_write_keeps_what_was_there(tmp_path):
    path = tmp_path / "c.pt"
    checkpoint.save({"step": 1}, path)
    with pytest.raises((CheckpointError, AttributeError, TypeError, pickle.PicklingError)):
        checkpoint.save({"step": lambda: 2}, path)
    assert checkpoint.load(path) == {"step": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "code"])
def test_damage_is_named(tmp_path, damage):
    path = tmp_path / "c.pt"
    checkpoint.save({"weights": torch.zeros(1000)}, path)
    content = path.read_bytes()
    code = pickle.dumps(print)
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello", "code": code}[damage])
    with pytest.raises(CheckpointError, match=r"c\.pt is damaged or not a checkpoint"):
        checkpoint.load(path)


class Calls:
    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        return self.function, ("never",)


@pytest.mark.parametrize(("function", "name"), [(os.system, r"\w+\.system"), (Path, r"pathlib\.Path")])
def test_what_a_file_would_call_is_named_and_no_unsafe_loading_advised(tmp_path, function, name):
    torch.save({"weights": Calls(function)}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=rf"c\.pt is damaged or not a checkpoint: it asks for {name},") as caught:
        checkpoint.load(tmp_path / "c.pt")
    assert "weights_only" not in str(caught.value)


@pytest.mark.filterwarnings("error")
def test_of_a_pickle_that_torch_cannot_read_its_reason_is_told_without_its_advice(tmp_path):
    (tmp_path / "state.pt").write_bytes(pickle.dumps([(1, 2.5)] * 3, protocol=5))
    with pytest.raises(CheckpointError, match=r"state\.pt is damaged or not a checkpoint: Unsupported operand \d+$"):
        checkpoint.load(tmp_path / "state.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"c\.pt does not exist"):
        checkpoint.load(tmp_path / "c.pt")


def test_the_latest_readable_checkpoint_is_loaded(tmp_path):
    path, damaged = tmp_path / "c.pt", []
    assert checkpoint.load_latest(path, damaged.append) is None
    for step in range(3):
        checkpoint.save_latest({"step": step}, path)
        assert checkpoint.load_latest(path, damaged.append) == {"step": step}
    assert len(list(tmp_path.iterdir())) == 2 and not damaged

    path.write_bytes(path.read_bytes()[:-50])
    assert checkpoint.load_latest(path, damaged.append) == {"step": 1}
    assert [str(path) in str(error) for error in damaged] == [True]
    path.unlink()  # as a kill between the two renames leaves it
    assert checkpoint.load_latest(path, damaged.append) == {"step": 1}
