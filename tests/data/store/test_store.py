from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

import spinrl.data.store.writer as writer_module
from spinrl.data import Episode, SourceRecord, Store, StoreError, StoreWriter, store_bytes
from spinrl.specs import ActionSpec
from tests.data.store_samples import SOURCES, random_episode, write_store

SPEC = ActionSpec((3, 4, 2))
SIZE = 5


@pytest.fixture
def store(tmp_path: Path) -> Store:
    episodes = [random_episode(7, SPEC, SIZE, 0), random_episode(3, SPEC, SIZE, 1, source=1, terminated=True)]
    return write_store(tmp_path / "store", episodes, SPEC, SIZE)


def assert_same(got: Episode, wanted: Episode) -> None:
    for field in attrs.fields(Episode):
        expected = getattr(wanted, field.name)
        if field.name == "rewards":
            expected = expected.astype(np.float32)
        np.testing.assert_array_equal(getattr(got, field.name), expected, err_msg=field.name)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    nvec=st.lists(st.sampled_from([2, 3, 100, 256, 257, 1000]), min_size=1, max_size=6),
    size=st.integers(1, 6),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, nvec: list[int], size: int, lengths: list[int]
) -> None:
    spec = ActionSpec(nvec)
    episodes = [random_episode(steps, spec, size, seed, seed % 2, bool(seed % 3)) for seed, steps in enumerate(lengths)]
    store = write_store(tmp_path_factory.mktemp("s") / "store", episodes, spec, size, bins=None)
    store.verify()
    for got, wanted in zip(store.episodes(), episodes, strict=True):
        assert_same(got, wanted)
    assert len(store) == sum(lengths)
    np.testing.assert_allclose(
        store.returns, [episode.rewards.astype(np.float32).sum(dtype=float) for episode in episodes]
    )


def test_the_next_observation_is_the_row_after(store: Store) -> None:
    rows = store.data["transitions", "row"]
    observations = store.data["observations", "observation"]
    wanted = torch.cat([torch.from_numpy(episode.observations[1:]) for episode in store.episodes()])
    torch.testing.assert_close(observations[rows + 1], wanted, rtol=0, atol=0)
    assert len(observations) == len(store) + 2  # each observation is stored once


def test_tensordict_reads_the_folder(store: Store) -> None:
    loaded = TensorDict.load_memmap(store.path, allow_pickle=False)
    assert loaded["transitions"].batch_size == (10,)
    for key in store.data.keys(include_nested=True, leaves_only=True):
        torch.testing.assert_close(loaded[key].as_subclass(torch.Tensor), store.data[key], rtol=0, atol=0)


def test_writing_to_an_opened_store_does_not_reach_the_disk(store: Store) -> None:
    store.data["observations", "observation"].zero_()
    again = Store.open(store.path)
    again.verify()
    assert again.data["observations", "observation"].abs().sum() > 0


def test_metadata_is_readable_and_counts_by_source(store: Store) -> None:
    content = json.loads((store.path / "metadata.json").read_text())
    assert content["task"] == "humanoid-stand" and content["nvec"] == [3, 4, 2] and content["transitions"] == 10
    expert, noise = content["sources"]
    assert (expert["transitions"], expert["episodes"], noise["transitions"]) == (7, 1, 3)
    assert expert["return_mean"] == pytest.approx(store.returns[0])
    assert expert["epsilon"] == 0.05 and expert["seed"] == 1


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    one, same, other = (
        write_store(tmp_path / name, [random_episode(4, SPEC, SIZE, seed)], SPEC, SIZE)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_sizes_are_known_beforehand(store: Store) -> None:
    arrays = sum(os.path.getsize(file) for file in store.path.rglob("*.memmap"))
    assert arrays == store_bytes(SPEC, SIZE, transitions=10, episodes=2)
    # a transition of dog-trot: 223 observations of 4 bytes, 38 actions, and what else there is
    assert store_bytes(ActionSpec([3] * 38), 223, 1_000_000, 1_000) < 1.2e9


# --- refused when opened -----------------------------------------------------------------------------------------


def refused(path: Path, *parts: str, **expected: object) -> None:
    with pytest.raises(StoreError) as error:
        Store.open(path, **expected)  # type: ignore[arg-type]
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    for part in parts:
        assert part in message


def rewrite(path: Path, **changes: object) -> None:
    file = path / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_missing(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "metadata.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json", '{"format_version": 1}', "\0"])
def test_unreadable_metadata(store: Store, text: str) -> None:
    (store.path / "metadata.json").write_text(text)
    refused(store.path, "metadata.json", "delete the folder")


def test_newer_format(store: Store) -> None:
    rewrite(store.path, format_version=2)
    refused(store.path, "format version 2", "upgrade")


def test_altered_metadata(store: Store) -> None:
    rewrite(store.path, task="cheetah-run")
    refused(store.path, "metadata.json has been altered")


def test_another_task_or_bins(store: Store) -> None:
    refused(store.path, "expected task 'cheetah-run', found 'humanoid-stand'", expect_task="cheetah-run")
    refused(store.path, "expected bins 10, found 3", expect_bins=10)
    assert len(Store.open(store.path, expect_task="humanoid-stand", expect_bins=3)) == 10


@pytest.mark.parametrize("name", ["transitions/action.memmap", "observations/observation.memmap", "meta.json"])
def test_truncated_and_missing_files(store: Store, name: str) -> None:
    file = store.path / name
    file.write_bytes(file.read_bytes()[:-1])
    refused(store.path, name, "bytes instead of")
    file.unlink()
    refused(store.path, name, "is missing")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_altered_byte_is_found(store: Store, data: st.DataObject) -> None:
    files = sorted(file for file in store.path.rglob("*") if file.is_file() and file.name != "metadata.json")
    file = data.draw(st.sampled_from(files))
    content = file.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    file.write_bytes(content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :])
    try:
        opened = Store.open(store.path)
        with pytest.raises(StoreError, match=f"{file.name} has been altered"):
            opened.verify()
    finally:
        file.write_bytes(content)
    Store.open(store.path).verify()


# --- refused when written ----------------------------------------------------------------------------------------


def evolve(**changes: object) -> Episode:
    return attrs.evolve(random_episode(4, SPEC, SIZE, 5), **changes)


def with_value(array: str, at: tuple[int, ...], value: float) -> Episode:
    values = np.array(getattr(random_episode(4, SPEC, SIZE, 5), array))
    values[at] = value
    return evolve(**{array: values})


@pytest.mark.parametrize(
    ("episode", "parts"),
    [
        (with_value("observations", (2, 1), np.nan), ["step 2", "observation entry 1", "nan"]),
        (with_value("observations", (4, 0), -np.inf), ["step 4", "observation entry 0", "-inf"]),
        (with_value("rewards", (3,), np.inf), ["step 3", "reward", "inf"]),
        (with_value("rewards", (0,), 1e300), ["step 0", "reward", "1e+300"]),
        (with_value("actions", (1, 2), 2), ["step 1", "sub-action 2: expected 0 to 1, found 2"]),
        (with_value("actions", (1, 0), -1), ["step 1", "sub-action 0: expected 0 to 2, found -1"]),
        (evolve(actions=np.zeros((4, 3))), ["actions: expected integers, found float64"]),
        (evolve(rewards=np.zeros((4, 1))), ["rewards: expected 4, found 4 × 1"]),
        (evolve(observations=np.zeros((4, SIZE))), ["observations: expected 5 × 5, found 4 × 5"]),
        (evolve(actions=np.zeros((0, 3), int)), ["at least one step"]),
        (evolve(source=2), ["source 2"]),
    ],
)
def test_bad_episodes_leave_nothing_behind(tmp_path: Path, episode: Episode, parts: list[str]) -> None:
    with pytest.raises(StoreError) as error:
        write_store(tmp_path / "store", [random_episode(2, SPEC, SIZE), episode], SPEC, SIZE)
    assert "\n" not in str(error.value)
    for part in [str(tmp_path / "store"), "episode 1", *parts]:
        assert part in str(error.value)
    assert list(tmp_path.iterdir()) == []


def start_writer(path: Path, expected: tuple[int, int] | None = None) -> StoreWriter:
    return StoreWriter(
        path,
        task="t",
        bins=None,
        action_spec=SPEC,
        observation_size=SIZE,
        tier="x",
        sources=SOURCES,
        expected=expected,
    )


def test_nothing_is_visible_until_it_is_finished(tmp_path: Path) -> None:
    with start_writer(tmp_path / "store") as writer:
        writer.append(random_episode(2, SPEC, SIZE))
        assert not (tmp_path / "store").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["store"]
    Store.open(tmp_path / "store").verify()


def test_an_interrupted_store_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), start_writer(tmp_path / "store") as writer:
        writer.append(random_episode(2, SPEC, SIZE))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_is_not_overwritten(store: Store) -> None:
    with pytest.raises(StoreError, match="exists already"):
        start_writer(store.path)
    store.verify()


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="empty"), start_writer(tmp_path / "store"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lack_of_space_is_found_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is full .*free, .*e?[0-9.]+ MB needed in all.*SPINRL_HOME"):
        start_writer(tmp_path / "store", expected=(10**15, 10**12))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("steps", [3, 100_000])  # fails when closed; fails when appended
def test_a_disk_that_fills_up_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    class Full(writer_module.ArrayFile):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self._file = Path("/dev/full").open("wb")  # noqa: SIM115

    monkeypatch.setattr(writer_module, "ArrayFile", Full)
    with pytest.raises(StoreError, match=f"the disk of {tmp_path} is full"):
        write_store(tmp_path / "store", [random_episode(steps, SPEC, SIZE)], SPEC, SIZE)
    assert list(tmp_path.iterdir()) == []


def test_first_steps_of_an_episode() -> None:
    episode = random_episode(6, SPEC, SIZE, terminated=True)
    cut = episode.first(4)
    assert len(cut) == 4 and len(cut.observations) == 5
    assert cut.truncated.tolist() == [False, False, False, True] and not cut.terminated.any()
    assert episode.first(6) is episode and not episode.truncated.any()


def test_sources_default_to_nothing_known() -> None:
    assert attrs.asdict(SourceRecord(behavior="own"))["seed"] is None


@pytest.mark.parametrize(
    ("step", "sub_action", "choices", "part"),
    [
        (2, 1, [], "step 2: the mask allows no choice of sub-action 1"),
        (4, 2, [2, 3], "step 4: the mask allows no choice of sub-action 2"),  # it has choices 0 and 1 alone
        (1, 0, [1], "step 1: choice 2 of sub-action 0 is forbidden by its mask"),
    ],
)
def test_masks_that_leave_nothing_or_forbid_what_was_done(tmp_path, step, sub_action, choices, part) -> None:
    whole = random_episode(4, SPEC, SIZE, 5, masked=True)
    assert write_store(tmp_path / "sound", [whole], SPEC, SIZE).allowed.shape == (5, 3, 4)
    allowed, actions = whole.allowed.copy(), whole.actions.copy()
    allowed[step, sub_action] = np.isin(np.arange(4), choices)
    actions[1, 0] = 2
    with pytest.raises(StoreError, match=part):
        write_store(tmp_path / "store", [attrs.evolve(whole, allowed=allowed, actions=actions)], SPEC, SIZE)
