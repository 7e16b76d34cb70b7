"""Stores to Minari and back, and datasets that others made."""

from __future__ import annotations

import json
import os
import shutil

import attrs
import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector.episode_buffer import EpisodeBuffer

from spinrl.data import Episode, SourceRecord, Store, StoreError, StoreWriter
from spinrl.data.importers import minari_export
from spinrl.data.importers.minari_datasets import import_minari
from spinrl.data.importers.minari_export import export_minari
from spinrl.specs import ActionSpec
from spinrl.tasks.spaces import flat_observation
from tests.data.store_samples import random_episode

ID = "spinrl/humanoid-stand/medium-3bins-v0"
SOURCES = (SourceRecord(behavior="medium", fingerprint="m", epsilon=0.05, seed=1), SourceRecord(behavior="random"))
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def stored(path, nvec=(3, 2, 300), lengths=(5, 1, 3), size=4) -> Store:
    rng, spec = np.random.default_rng(0), ActionSpec(nvec)
    with StoreWriter(
        path,
        task="humanoid-stand",
        bins=nvec[0] if len(set(nvec)) == 1 else None,
        action_spec=spec,
        observation_size=size,
        tier="medium",
        sources=SOURCES,
    ) as writer:
        for number, length in enumerate(lengths):
            last = np.arange(length) == length - 1
            episode = Episode(
                observations=rng.normal(size=(length + 1, size)).astype(np.float32),
                actions=rng.integers(0, nvec, (length, len(nvec))),
                rewards=rng.normal(size=length).astype(np.float32),
                terminated=last & (number % 2 == 0),
                truncated=last & (number % 2 == 1),
                source=number % 2,
            )
            writer.append(episode)
    return Store.open(path)


def recorded(observation, action, episodes, dataset_id="other/logs-v1") -> str:
    """A dataset that someone else made."""
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers(
            dataset_id, [EpisodeBuffer(**each) for each in episodes], observation_space=observation, action_space=action
        )
    return dataset_id


def steps(actions, observations, **changes) -> dict:
    ends = np.arange(len(actions)) == len(actions) - 1
    wanted = {"rewards": np.ones(len(actions)), "terminations": ends, "truncations": ends & False, "infos": {}}
    return {"actions": actions, "observations": observations, **wanted, **changes}


@pytest.mark.parametrize("nvec", [(3, 3, 3), (3, 2, 300), (3, 1, 5)])
def test_a_store_comes_back_bit_for_bit(tmp_path, nvec):
    store = stored(tmp_path / "store", nvec)
    folder = export_minari(store, ID, author="A. Person", code_permalink="https://example.org")
    assert folder == tmp_path / "minari" / ID
    back = import_minari(ID, tmp_path / "back", name="unused").store
    assert back.fingerprint == store.fingerprint  # of the content of every array
    for field in ("task", "tier", "bins", "nvec", "observation_size", "episodes"):
        assert getattr(back.metadata, field) == getattr(store.metadata, field)
    assert back.metadata.sources == store.metadata.sources


def test_masks_propensities_and_the_logs_own_numbers_come_back(tmp_path):
    spec = ActionSpec((3, 2, 4))
    with StoreWriter(
        tmp_path / "store",
        task="ward",
        bins=None,
        action_spec=spec,
        observation_size=4,
        tier="logged",
        sources=SOURCES,
        extras=("allowed", "propensities"),
        action_start=[1, 0, -2],
    ) as writer:
        for seed in range(3):
            episode = random_episode(4, spec, 4, seed=seed, masked=True)
            writer.append(attrs.evolve(episode, propensity=np.full((4, 3), 0.5, np.float32)))
    store = Store.open(tmp_path / "store")
    export_minari(store, ID)
    dataset = minari.load_dataset(ID)
    assert all(dataset.action_space.contains(action) for action in dataset[0].actions)
    assert dataset[0].infos["action_mask"].shape == (5, 9)
    back = import_minari(ID, tmp_path / "back", name="unused").store
    assert back.fingerprint == store.fingerprint
    assert list(back.metadata.action_start) == [1, 0, -2] and list(back.metadata.extras) == ["allowed", "propensities"]


MASK = np.array([[1, 1, 0, 1, 0], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=np.int8)


@pytest.mark.parametrize("form", ["flat", "nested", "without the last"])
def test_masks_that_an_environment_recorded(tmp_path, form):
    nested = form == "nested"
    action = spaces.Dict(a=spaces.Discrete(3), b=spaces.Discrete(2)) if nested else CHOICES
    actions = {"a": ACTIONS[:, 0], "b": ACTIONS[:, 1]} if nested else ACTIONS
    mask = {"a": MASK[:, :3], "b": MASK[:, 3:]} if nested else MASK[: 2 if form == "without the last" else 3]
    given = steps(actions, ROWS, infos={"action_mask": mask}, rewards=np.ones(2))
    given |= {"terminations": [False, True], "truncations": [False, False]}
    store = import_minari(recorded(BOX, action, [given]), tmp_path / "store", name="ward").store
    everything = [[True, True, True], [True, True, False]]
    assert store.episode(0).allowed.tolist() == [
        [[True, True, False], [True, False, False]],
        [[True, False, True], [True, True, False]],
        everything,  # the task has ended the episode: no choice is made
    ]


def test_minari_reads_what_was_exported(tmp_path):
    store = stored(tmp_path / "store")
    done = []
    export_minari(store, ID, description="of a test", author="A. Person", progress=lambda *at: done.append(at))
    assert done == [(1, 3), (2, 3), (3, 3)]
    dataset = minari.load_dataset(ID)
    assert (dataset.total_steps, dataset.total_episodes) == (9, 3)
    assert dataset.action_space == spaces.MultiDiscrete([3, 2, 300])
    assert dataset.observation_space == spaces.Box(-np.inf, np.inf, (4,), np.float32)
    metadata = dataset.storage.metadata
    assert (metadata["description"], metadata["author"]) == ("of a test", {"A. Person"})
    assert metadata["algorithm_name"] == "medium, random"
    for data, episode in zip(dataset, store.episodes(), strict=True):
        assert dataset.observation_space.contains(data.observations[0])
        assert dataset.action_space.contains(data.actions[0])
        np.testing.assert_array_equal(data.actions, episode.actions)
    assert ID in minari.list_local_datasets()


def test_an_export_never_takes_a_place_that_is_taken_and_leaves_nothing_of_a_failure(tmp_path, root, monkeypatch):
    store = stored(tmp_path / "store")
    for wrong in ("medium-3bins", "spinrl/../out-v0", "/tmp/out-v0", ""):
        with pytest.raises(StoreError, match="does not name a Minari dataset"):
            export_minari(store, wrong)

    def broken(*_):
        raise OSError("no space left on device")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(minari_export, "_buffers", broken)
        with pytest.raises(StoreError, match="could not be written: no space left"):
            export_minari(store, ID)
    assert not list(root.iterdir())
    export_minari(store, ID)
    with pytest.raises(StoreError, match="exists already; delete it"):
        export_minari(store, ID)


def test_what_a_killed_export_left_is_neither_in_the_way_nor_left_lying(tmp_path, root):
    store, flat = stored(tmp_path / "store"), ID.replace("/", "-")
    for process in (os.getpid(), 2**22 + 1):  # the first has the number of this process, as in containers
        (root / f".{flat}.{process}.partial" / "data").mkdir(parents=True)
    (root / ".other-v0.7.partial").mkdir()
    export_minari(store, ID)
    assert sorted(path.name for path in root.iterdir()) == [".other-v0.7.partial", "spinrl"]


def test_a_recorded_dataset_of_nested_spaces(tmp_path):
    observation = spaces.Dict(
        {"b": spaces.Box(-1, 1, (2, 2)), "a": spaces.Tuple([spaces.Box(-9, 9, (1,), np.float64)])}
    )
    action = spaces.Tuple([spaces.Discrete(4, start=2), spaces.MultiDiscrete([[2, 3]]), spaces.MultiBinary(1)])
    rows = {"b": np.arange(12.0).reshape(3, 2, 2) / 12, "a": (np.array([[7.0], [8.0], [9.0]]),)}
    actions = (np.array([2, 5]), np.array([[[0, 2]], [[1, 0]]]), np.array([[1], [0]], dtype=np.int8))
    episode = steps(actions, rows, rewards=[1.0, 2.0], terminations=[False, False], truncations=[False, False])
    result = import_minari(recorded(observation, action, [episode]), tmp_path / "store", name="robot", tier="human")
    store = result.store
    assert (store.metadata.task, store.metadata.tier, store.metadata.nvec) == ("robot", "human", [4, 2, 3, 2])
    got = store.episode(0)
    assert got.actions.tolist() == [[0, 0, 2, 1], [3, 1, 0, 0]]
    assert list(store.metadata.action_start) == [2, 0, 0, 0]
    np.testing.assert_array_equal(got.observations[:, 0], [7, 8, 9])  # Gymnasium's order: by key
    np.testing.assert_allclose(got.observations[1, 1:], rows["b"][1].ravel())
    assert got.truncated.tolist() == [False, True]
    assert "1 episodes have no marked end, and are stored as cut off there" in result.notes


def test_observations_of_choices_are_one_hot_and_rewards_may_be_arrays_of_one(tmp_path):
    observation = spaces.Dict(ward=spaces.Discrete(3, start=1), flags=spaces.MultiBinary(2), vitals=BOX)
    rows = {"ward": np.array([1, 3, 2]), "flags": np.eye(3, 2, dtype=np.int8), "vitals": ROWS + 7}
    dataset_id = recorded(observation, CHOICES, [steps(ACTIONS, rows, rewards=np.ones((2, 1)))])
    episode = import_minari(dataset_id, tmp_path / "store", name="ward").store.episode(0)
    assert episode.observations.tolist() == [[1, 0, 7, 1, 0, 0], [0, 1, 7, 0, 0, 1], [0, 0, 7, 0, 1, 0]]
    assert episode.rewards.tolist() == [1, 1]
    # Minari has sorted the parts by name, and a simulator of the environment itself gives the same entries.
    first = {name: values[0] for name, values in rows.items()}
    np.testing.assert_array_equal(flat_observation(observation, first), episode.observations[0])


def test_what_others_call_a_source_is_none_of_ours(tmp_path):
    dataset_id = recorded(BOX, CHOICES, [steps(ACTIONS, ROWS)])
    minari.load_dataset(dataset_id).storage.update_episode_metadata([{"source": "human"}])
    assert len(import_minari(dataset_id, tmp_path / "store", name="robot").store) == len(ACTIONS)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_an_environment_recorded_by_minari(tmp_path, data_format):
    environment = gymnasium.spec("CartPole-v1")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(7, 4)).astype(np.float32)
    episode = EpisodeBuffer(**steps(rng.integers(0, 2, 6), rows))
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers("cart/pole-v0", [episode], env=environment, data_format=data_format)
    result = import_minari("cart/pole-v0", tmp_path / "store", name="pole")
    assert "its environment is CartPole-v1" in result.notes
    np.testing.assert_array_equal(result.store.episode(0).observations, rows)
    assert (result.store.metadata.nvec, result.store.metadata.bins) == ([2], 2)


def refused(tmp_path, dataset_id, *wanted) -> None:
    with pytest.raises(StoreError) as error:
        import_minari(dataset_id, tmp_path / "store", name="robot")
    assert "\n" not in str(error.value)
    for part in wanted:
        assert part in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["minari"]


BOX, CHOICES = spaces.Box(-9, 9, (1,)), spaces.MultiDiscrete([3, 2])
ACTIONS, ROWS = np.zeros((2, 2), dtype=np.int64), np.zeros((3, 1), dtype=np.float32)


@pytest.mark.parametrize(
    ("observation", "action", "episode", "wanted"),
    [
        (spaces.Dict({"x": spaces.Text(3)}), CHOICES, {}, ("observation['x'] is Text", "can be Box, Discrete")),
        (BOX, spaces.Box(-1, 1, (2,)), {}, ("action is Box", "can be MultiDiscrete")),
        (BOX, spaces.MultiDiscrete([1, 1]), {}, ("action is MultiDiscrete", "no part has two choices")),
        (BOX, CHOICES, {"actions": ACTIONS + 2}, ("episode 0: action, row 0, entry 1: expected 0 to 1, found 2",)),
        (BOX, CHOICES, {"actions": ACTIONS + 0.5}, ("episode 0: action holds float64; expected integers",)),
        (BOX, CHOICES, {"observations": ROWS[:2]}, ("episode 0: observation has 2 rows of Box", "expected 3")),
        (BOX, CHOICES, {"observations": ROWS * np.nan}, ("expected a finite number, found nan",)),
        (BOX, CHOICES, {"terminations": [True, True]}, ("episode 0 goes on after an end",)),
        (
            BOX,
            CHOICES,
            {"infos": {"action_mask": MASK[:, ::-1]}},
            ("choice 0 of sub-action 0 is forbidden by its mask",),
        ),
        (BOX, CHOICES, {"infos": {"action_mask": MASK[:, :4]}}, ("episode 0", "or 5 booleans a row", "found 4")),
        (BOX, CHOICES, {"infos": {"action_mask": MASK[:1]}}, ("action_mask has 1 rows; expected 3",)),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, observation, action, episode, wanted):
    rows = {"x": ["a", "b", "c"]} if isinstance(observation, spaces.Dict) else ROWS
    dataset_id = recorded(observation, action, [{**steps(ACTIONS, rows), **episode}])
    refused(tmp_path, dataset_id, *wanted)


def test_a_dataset_without_spaces_runs_no_environment(tmp_path, root):
    dataset_id = recorded(BOX, CHOICES, [steps(ACTIONS, ROWS)])
    file = root / dataset_id / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    del metadata["action_space"]
    file.write_text(json.dumps(metadata))
    refused(tmp_path, dataset_id, "does not describe its action_space")


def test_missing_and_damaged_datasets(tmp_path, root):
    os.makedirs(root)
    refused(tmp_path, "other/logs-v1", "is not on this machine", "minari download other/logs-v1")
    refused(tmp_path, "logs", "does not name a Minari dataset")
    dataset_id = recorded(BOX, CHOICES, [steps(ACTIONS, ROWS)])
    data = root / dataset_id / "data"
    content = (data / "main_data.hdf5").read_bytes()
    (data / "main_data.hdf5").write_bytes(content[: len(content) // 2])
    refused(tmp_path, dataset_id, "could not be read")
    (data / "metadata.json").write_text("{")
    refused(tmp_path, dataset_id, "could not be read")
    shutil.rmtree(data)
    refused(tmp_path, dataset_id, "is not on this machine")


def test_our_part_of_the_metadata_is_not_trusted(tmp_path, root):
    dataset_id = recorded(BOX, CHOICES, [steps(ACTIONS, ROWS)])
    file = root / dataset_id / "data" / "metadata.json"
    for ours in ("x", {"task": 1, "tier": "a", "sources": []}, {"task": "a", "tier": "b", "sources": [{"x": 1}]}):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"spinrl": ours}))
        refused(tmp_path, dataset_id, "could not be read")
    ours = {"task": "../../elsewhere", "tier": "a", "sources": []}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"spinrl": ours}))
    refused(tmp_path, dataset_id, "task: expected letters")
