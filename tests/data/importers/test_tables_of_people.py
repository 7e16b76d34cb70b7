"""Files as people have them: every kind of table, order, marks, codes and masks, with the right value of each."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest
from logged_samples import NVEC, logged, save, without

from spinrl.data import StoreError
from spinrl.data.importers.array_import import import_arrays
from spinrl.data.importers.meanings import select
from spinrl.data.importers.options import ArrayOptions
from spinrl.data.importers.result import ImportResult

LENGTHS, TERMINAL = [4, 3, 5], [True, False, True]


def table(**changes) -> pd.DataFrame:
    """Three episodes as a table of plain columns, whose ends are by the task or by a time limit."""
    arrays = logged(LENGTHS, TERMINAL)
    columns = {f"obs_{i}": arrays["observations"][:, i] for i in range(2)}
    columns |= {f"action_{i}": arrays["actions"][:, i] for i in range(3)}
    steps = np.concatenate([np.arange(length) for length in LENGTHS])
    columns |= {"reward": arrays["rewards"], "episode": arrays["episode"], "step": steps}
    columns |= {"terminateds": arrays["terminals"], "truncateds": arrays["timeouts"]}
    return pd.DataFrame(columns | changes)


def run(tmp_path, file, **options) -> ImportResult:
    files = file if isinstance(file, list) else [file]
    return import_arrays(files, tmp_path / "store", ArrayOptions(**{"choices": NVEC, **options}), task="robot")


def refused(tmp_path, file, *wanted, **options) -> None:
    with pytest.raises(StoreError) as error:
        run(tmp_path, file, **options)
    assert not (tmp_path / "store").exists() and "\n" not in str(error.value)
    for part in wanted:
        assert part in str(error.value), str(error.value)


def assert_same(result: ImportResult, frame: pd.DataFrame) -> None:
    """The store holds the rows of `frame`, but for the last of the one episode that was cut off."""
    kept = frame[~frame["truncateds"]]
    transitions = result.store.data["transitions"]
    np.testing.assert_array_equal(transitions["action"].numpy(), kept[[f"action_{i}" for i in range(3)]])
    np.testing.assert_array_equal(transitions["reward"].numpy(), kept["reward"].astype(np.float32))
    np.testing.assert_array_equal(transitions["terminated"].numpy(), kept["terminateds"])
    first = transitions["row"].numpy()
    observed = result.store.data["observations", "observation"].numpy()[first]
    np.testing.assert_array_equal(observed, kept[["obs_0", "obs_1"]].astype(np.float32))
    assert result.store.data["episodes", "length"].tolist() == [4, 2, 5]


def write(frame: pd.DataFrame, path):
    if path.suffix == ".feather":
        frame.to_feather(path)
    elif path.suffix in (".pq", ".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep={".tsv": "\t"}.get(path.suffix, ","))
    return path


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.tsv", "log.pq", "log.feather"])
def test_every_kind_of_table_gives_the_same_store(tmp_path, name, monkeypatch):
    monkeypatch.setattr("spinrl.data.importers.tables.BLOCK", 5)
    assert_same(run(tmp_path, write(table(), tmp_path / name)), table())


def test_a_folder_of_parts_is_one_table_in_the_order_of_their_numbers(tmp_path):
    folder = tmp_path / "log.parquet"
    folder.mkdir()
    for number, rows in ((9, slice(0, 5)), (10, slice(5, 12))):  # the second episode goes on in the second part
        table()[rows].to_parquet(folder / f"part-{number}.snappy.parquet", index=False)
    (folder / "_SUCCESS").touch()
    assert_same(run(tmp_path, folder), table())


@pytest.mark.parametrize("name", ["log.csv", "log.pq", "log.npz"])
@pytest.mark.parametrize("names", [["train", "test", "train"], [1, 0, 1], [True, False, True]])
def test_a_column_of_splits_names_the_sources(tmp_path, name, names, monkeypatch):
    monkeypatch.setattr("spinrl.data.importers.tables.BLOCK", 5)
    frame = table(split=np.repeat(names, LENGTHS))
    if name == "log.npz":
        file = save(tmp_path / name, {column: np.array(frame[column].tolist()) for column in frame})
    else:
        file = write(frame, tmp_path / name)
    result = run(tmp_path, file)
    assert_same(result, frame)
    one, other = map(str, names[:2])
    assert [(each.behavior, each.episodes) for each in result.store.metadata.sources] == [(one, 2), (other, 1)]
    assert result.store.data["episodes", "source"].tolist() == [0, 1, 0]
    assert any(f"Experiment.held_out_sources=['{other}']" in note for note in result.notes)


def test_splits_are_names_of_whole_episodes(tmp_path):
    names = np.repeat(["train", "test"], 6)
    refused(
        tmp_path,
        write(table(split=names), tmp_path / "log.csv"),
        "rows 4 and 6 of one episode are of different splits, train and test",
        "--column split=",
    )
    weights = write(table(split=np.linspace(0, 1, 12)), tmp_path / "weights.csv")
    refused(tmp_path, weights, "expected a whole number or text, the name of a split in split, found 0.09")
    assert_same(run(tmp_path, weights, columns={"split": ""}), table())


def test_more_names_than_splits_are_refused(tmp_path):
    episodes = table()["episode"]
    frame = pd.concat([table(split=f"s{n}", episode=episodes + 3 * n) for n in range(101)])
    refused(tmp_path, write(frame, tmp_path / "log.csv"), "expected names of a few splits", "found more than 100")


def test_several_files_have_episodes_of_their_own_and_are_sources(tmp_path):
    files = [write(table(), tmp_path / f"{name}.csv") for name in ("train", "validation")]
    store = run(tmp_path, files).store
    assert [(source.behavior, source.episodes) for source in store.metadata.sources] == [
        ("train", 3),
        ("validation", 3),
    ]
    apart = table(episode=np.repeat([2, 1, 2], LENGTHS)).drop(columns="step")
    files = [write(apart[4:], tmp_path / "one.csv"), write(apart[7:], tmp_path / "two.csv")]
    (tmp_path / "store").rename(tmp_path / "before")
    refused(tmp_path, files, "ends with episode 2", "begins with one of that name")


def test_rows_out_of_order_are_refused_or_sorted_by_their_step(tmp_path):
    shuffled = table().sample(frac=1, random_state=1)
    grouped = shuffled.sort_values("episode", kind="stable")
    refused(tmp_path, write(grouped, tmp_path / "log.csv"), "goes on after it", "give --step-column NAME")
    bare = grouped.drop(columns=["terminateds", "truncateds"])
    said = ("column step falls from", "give --step-column step")
    refused(tmp_path, write(bare, tmp_path / "log.csv"), *said, ends="timeout")
    result = run(tmp_path, write(grouped, tmp_path / "log.csv"), step_column="step")
    assert_same(result, table())
    assert "rows were not in the order of step" in result.store.metadata.preparation[0]
    (tmp_path / "store").rename(tmp_path / "before")
    order = {name: place for place, name in enumerate(shuffled["episode"].unique())}
    result = run(tmp_path, write(shuffled, tmp_path / "log.csv"), step_column="step")
    assert [source.episodes for source in result.store.metadata.sources] == [3]
    assert result.store.data["episodes", "length"].tolist() == [[4, 2, 5][name] for name in order]
    (tmp_path / "store").rename(tmp_path / "again")
    refused(tmp_path, write(table(step=0), tmp_path / "log.csv"), "have the same step", step_column="step")


def test_steps_that_are_left_out_are_pointed_out(tmp_path):
    step = table()["step"].to_numpy().copy()
    step[2:4] += 3
    result = run(tmp_path, write(table(step=step), tmp_path / "log.csv"))
    assert any("first from 1 to 5, in row 2" in warning for warning in result.warnings)


def test_marks_under_no_known_name_are_named_and_not_ignored(tmp_path):
    frame = table().rename(columns={"terminateds": "discharged", "truncateds": "left"})
    result = run(tmp_path, write(frame, tmp_path / "log.csv"), ends="terminal")
    assert any("column discharged is true in 2 of 12 rows" in warning for warning in result.warnings)


def test_reward_in_rows_that_are_left_out_is_told(tmp_path):
    frame = table(reward=table()["terminateds"] * 10.0).drop(columns=["terminateds", "truncateds"])
    result = run(tmp_path, write(frame, tmp_path / "log.csv"), ends="timeout")
    assert any("held all of the reward" in each and "--ends terminal" in each for each in result.warnings)


def test_what_rows_that_are_left_out_held_is_told(tmp_path):
    rewards = np.where(np.arange(12) == 6, 1, 0.25)  # the last row of the episode that was cut off
    result = run(tmp_path, write(table(reward=rewards), tmp_path / "log.csv"))
    assert any(note.startswith("1 rows were left out") and "held 26.7% of the reward" in note for note in result.notes)
    gap = np.where(np.arange(12) == 1, np.nan, 1.0)
    (tmp_path / "store").rename(tmp_path / "before")
    result = run(tmp_path, write(table(obs_0=gap), tmp_path / "log.csv"), missing="drop")
    assert any("lack a number" in note and "they held" in note for note in result.notes)


# Columns by the names of each library; its rows are those of `table`.
LIBRARIES = {
    "Tianshou": {"obs": "obs", "act": "act", "reward": "rew", "terminateds": "terminated", "truncateds": "truncated"},
    "RLlib": {"obs": "obs", "act": "actions", "reward": "rewards", "episode": "eps_id", "step": "t"},
    "LeRobot": {
        "obs": "observation.state",
        "act": "action",
        "reward": "next.reward",
        "episode": "episode_index",
        "step": "frame_index",
        "terminateds": "next.terminated",
        "truncateds": "next.truncated",
    },
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_columns_are_known_by_the_names_that_libraries_give_them(tmp_path, library):
    frame = table()
    lists = {"obs": frame[["obs_0", "obs_1"]], "act": frame[[f"action_{i}" for i in range(3)]]}
    columns = {name: list(values.to_numpy()) for name, values in lists.items()}
    columns |= {name: frame[name] for name in ("reward", "episode", "step", "terminateds", "truncateds")}
    write(pd.DataFrame(columns).rename(columns=LIBRARIES[library]), tmp_path / "log.parquet")
    assert_same(run(tmp_path, tmp_path / "log.parquet"), frame)


def test_one_hot_vectors_are_recognised_and_decoded(tmp_path):
    arrays = logged([60], [True])
    hot = np.concatenate([np.eye(size)[arrays["actions"][:, i]] for i, size in enumerate(NVEC)], axis=1)
    file = save(tmp_path / "log.npz", {**arrays, "actions": hot})
    refused(tmp_path, file, "which are 3+2+5", "give --one-hot 3,2,5 in place of --choices")
    refused(tmp_path, file, "exactly one is set within each of 3,2,5", choices=None)
    result = run(tmp_path, file, choices=None, one_hot=NVEC)
    np.testing.assert_array_equal(result.store.episode(0).actions, arrays["actions"])
    (tmp_path / "store").rename(tmp_path / "before")
    assert any("actions look one-hot" in each for each in run(tmp_path, file, choices=[2]).warnings)
    (tmp_path / "store").rename(tmp_path / "again")
    hot[7, :3] = 1
    save(tmp_path / "log.npz", {**arrays, "actions": hot})
    refused(tmp_path, file, "exactly one 1 among the 3 columns", "row 7", choices=None, one_hot=NVEC)


def test_each_sub_action_may_count_from_a_number_of_its_own(tmp_path):
    arrays = logged([60], [True])
    start = np.array([1, 0, -2])
    file = save(tmp_path / "log.npz", {**arrays, "actions": arrays["actions"] + start})
    refused(tmp_path, file, "--action-offset=1,0,-2")
    store = run(tmp_path, file, action_offset=[1, 0, -2]).store
    np.testing.assert_array_equal(store.episode(0).actions, arrays["actions"])
    assert store.metadata.action_start == [1, 0, -2]
    refused_path = tmp_path / "more"
    refused_path.mkdir()
    refused(refused_path, file, "has 3 sub-actions, --action-offset gives 2", action_offset=[1, 0])


def test_whole_numbers_that_are_floats_name_episodes(tmp_path):
    file = write(table(episode=np.repeat([7.0, 8.0, 9.0], LENGTHS)), tmp_path / "log.pq")
    assert_same(run(tmp_path, file), table())
    refused(tmp_path / "x", write(table(episode=0.5), tmp_path / "log.pq"), "a whole number or text", "row 0")


def test_missing_numbers_are_refused_by_column_and_row_or_filled_in_or_dropped(tmp_path):
    frame = table()
    frame.loc[[1, 9], "obs_1"] = np.nan
    for kind in ("csv", "pq"):
        file = write(frame, tmp_path / f"log.{kind}")
        refused(tmp_path, file, "obs_1 has no value (nan) in row 1", "--missing mean, zero or drop")
    for missing, value in (("mean", frame["obs_1"].mean()), ("zero", 0)):
        result = run(tmp_path, file, missing=missing)
        assert_same(result, frame.fillna(value))
        assert "2 numbers were missing" in result.store.metadata.preparation[0]
        (tmp_path / "store").rename(tmp_path / missing)
    store = run(tmp_path, file, missing="drop").store
    # Of rows 0, 2 and 3 only the last two follow one another; row 8 ends before the gap, and 10 and 11 are the rest.
    assert store.data["episodes", "length"].tolist() == [2, 2, 1, 2]
    assert store.data["transitions", "terminated"].tolist() == [False, True, False, False, False, False, True]
    assert "2 rows were left out because they lack a number" in " ".join(store.metadata.preparation)


def test_codes_of_missing_values_are_reported(tmp_path):
    arrays = without(logged([70], [True]), "next_observations")
    for code in (-999, 1e20, np.finfo(np.float32).max):
        observations = arrays["observations"].copy()
        observations[::7, 1] = code
        file = save(tmp_path / "log.npz", {**arrays, "observations": observations})
        (warning,) = [each for each in run(tmp_path, file).warnings if "observation" in each]
        assert "entry 1" in warning and f"{np.float32(code):.6g} in 10 rows" in warning
        (tmp_path / "store").rename(tmp_path / f"{code}")
    file = save(tmp_path / "log.npz", {**arrays, "rewards": arrays["rewards"] * 1e30})
    assert any("rewards reach" in each for each in run(tmp_path, file).warnings)


def test_padded_arrays_are_taken_apart(tmp_path):
    arrays, most = logged(LENGTHS, [True] * 3), max(LENGTHS)
    valid = np.arange(most) < np.array(LENGTHS)[:, None]

    def padded(values, fill):
        made = np.full((3, most, *values.shape[1:]), fill, dtype=values.dtype)
        made[valid] = values
        return made

    names = ("observations", "actions", "rewards")
    stacked = {name: padded(arrays[name], 0) for name in names}
    refused(tmp_path, save(tmp_path / "log.npz", stacked), "looks like padding", "--column mask=", ends="terminal")
    for marked in ({"mask": valid}, {"lengths": np.array(LENGTHS)}, {"rewards": padded(arrays["rewards"], np.nan)}):
        store = run(tmp_path, save(tmp_path / "log.npz", {**stacked, **marked}), ends="terminal").store
        assert store.data["episodes", "length"].tolist() == LENGTHS
        np.testing.assert_array_equal(store.data["transitions", "action"].numpy(), arrays["actions"])
        np.testing.assert_array_equal(store.data["transitions", "reward"].numpy(), arrays["rewards"])
        (tmp_path / "store").rename(tmp_path / next(iter(marked)))


def test_next_observations_may_differ_by_rounding_and_by_no_more(tmp_path):
    arrays = logged([30, 2], [True, True])
    following = arrays["next_observations"]
    following[3] = np.nextafter(following[3], np.float32(9), dtype=np.float32)
    result = run(tmp_path, save(tmp_path / "log.npz", arrays))
    assert any(note.startswith("at 1 rows the next observation differs") for note in result.notes)
    np.testing.assert_array_equal(result.store.episode(0).observations[4], arrays["observations"][4])
    following[3] += 1e-4
    (tmp_path / "store").rename(tmp_path / "before")
    refused(tmp_path, save(tmp_path / "log.npz", arrays), "next observation of row 3 is not")


@pytest.mark.parametrize("form", ["matrix", "flat", "lists"])
def test_masks_are_stored_by_observation_and_forbid(tmp_path, form):
    arrays = without(logged(LENGTHS, TERMINAL), "next_observations")
    rows = np.arange(12)
    allowed = np.random.default_rng(0).random((12, 3, 5)) < 0.5
    allowed &= np.arange(5) < np.array(NVEC)[:, None]
    for i in range(3):
        allowed[rows, i, arrays["actions"][:, i]] = True
    flat = np.concatenate([allowed[:, i, :size] for i, size in enumerate(NVEC)], axis=1)
    masks = {"matrix": allowed, "flat": flat, "lists": allowed.reshape(12, -1)}[form]
    file = save(tmp_path / ("log.parquet" if form == "lists" else "log.npz"), {**arrays, "allowed": masks})
    store = run(tmp_path, file).store
    store.verify()
    episodes = list(store.episodes())
    np.testing.assert_array_equal(episodes[0].allowed[:4], allowed[:4])
    np.testing.assert_array_equal(episodes[1].allowed, allowed[4:7])  # the row that is left out has a mask too
    assert episodes[2].first(2).allowed.shape == (3, 3, 5)
    masks = masks.reshape(12, -1)
    masks[8] = False
    (tmp_path / "store").rename(tmp_path / "before")
    refused(tmp_path, save(file, {**arrays, "allowed": masks}), "mask of row 8 allows no choice of sub-action 0")
    masks[8] = True
    masks[8, arrays["actions"][8, 0]] = False
    refused(tmp_path, save(file, {**arrays, "allowed": masks}), "the action of row 8 takes choice", "forbids")
    joint = np.ones((12, np.prod(NVEC)), dtype=bool)
    refused(tmp_path, save(file, {**arrays, "allowed": joint}), "of each sub-action by itself, not of joint actions")


def test_nothing_need_be_allowed_after_the_task_has_ended_an_episode(tmp_path):
    arrays = logged(LENGTHS, TERMINAL)  # with next observations
    exists = np.arange(5) < np.array(NVEC)[:, None]
    allowed, after = np.broadcast_to(exists, (2, 12, 3, 5)).copy()
    last = np.cumsum(LENGTHS) - 1
    ended, cut = last[np.array(TERMINAL)], last[~np.array(TERMINAL)]
    after[ended] = False
    masks = {"allowed": allowed, "next_allowed": after}
    store = run(tmp_path, save(tmp_path / "log.npz", {**arrays, **masks})).store
    store.verify()
    for episode in store.episodes():
        np.testing.assert_array_equal(episode.allowed, np.broadcast_to(exists, episode.allowed.shape))
    (tmp_path / "store").rename(tmp_path / "before")
    after[cut[0]] = False
    refused(tmp_path, save(tmp_path / "log.npz", {**arrays, **masks}), f"row {cut[0] + 1} allows no choice")


def test_propensities_are_kept(tmp_path):
    arrays = logged(LENGTHS, TERMINAL)
    one, each = np.linspace(0.1, 0.9, 12), np.random.default_rng(0).random((12, 3))
    for values in (one, each):
        store = run(tmp_path, save(tmp_path / "log.npz", {**arrays, "propensities": values})).store
        np.testing.assert_array_equal(store.episode(1).propensity, values[4:7].astype(np.float32))
        (tmp_path / "store").rename(tmp_path / f"{values.ndim}")
    spoiled = {**arrays, "propensities": one * 2}
    refused(tmp_path, save(tmp_path / "log.npz", spoiled), "a probability above 0 and at most 1 in propensities")


def test_episodes_of_d3rlpy_and_robomimic(tmp_path):
    arrays = without(logged(LENGTHS, TERMINAL), "next_observations")
    bounds = list(zip(np.cumsum([0, *LENGTHS[:-1]]), np.cumsum(LENGTHS), strict=True))
    with h5py.File(tmp_path / "d3rlpy.h5", "w") as file:
        for number, (start, end) in enumerate(bounds):
            for name in ("observations", "actions"):
                file[f"{name}_{number}"] = arrays[name][start:end]
            file[f"rewards_{number}"] = arrays["rewards"][start:end, None]
            file[f"terminated_{number}"] = TERMINAL[number]
        file["total_size"] = 3
    with h5py.File(tmp_path / "robomimic.hdf5", "w") as file:
        for number, (start, end) in enumerate(bounds):
            group = file.create_group(f"data/demo_{number}")
            group["obs/state"], group["states"] = arrays["observations"][start:end], np.zeros((end - start, 9))
            group["obs/image"] = np.zeros((end - start, 2, 2, 3))
            for name in ("actions", "rewards"):
                group[name] = arrays[name][start:end]
            group["dones"] = arrays["terminals"][start:end] | arrays["timeouts"][start:end]
    first = run(tmp_path, tmp_path / "d3rlpy.h5").store
    assert first.data["episodes", "length"].tolist() == [4, 2, 5]
    assert first.data["transitions", "terminated"].sum() == 2
    (tmp_path / "store").rename(tmp_path / "before")
    second = run(tmp_path, tmp_path / "robomimic.hdf5", ends="terminal")
    assert second.store.observation_size == 2 and second.store.data["episodes", "length"].tolist() == LENGTHS
    assert any("obs/image" in note for note in second.notes)


def test_columns_are_chosen_by_name_range_pattern_and_exclusion():
    names = ["id", "dose, mg/kg", "lab 1", "lab 2", "lab 10", "age", "-x"]
    assert select(names, "lab *") == ["lab 1", "lab 2", "lab 10"]
    assert select(names, "lab 1..age,-lab 2") == ["lab 1", "lab 10", "age"]
    assert select(names, "age,dose, mg/kg,-x") == ["age", "dose, mg/kg", "-x"]
    assert select(names, '"dose, mg/kg", id') == ["dose, mg/kg", "id"]
    assert select(names, "*,-lab *", ["lab 1", "age"]) == ["age"]
    with pytest.raises(StoreError, match="no column fits vital"):
        select(names, "vital*")


def test_a_pattern_takes_no_column_that_means_something_else(tmp_path):
    frame = table().rename(columns={"obs_0": "age", "obs_1": "pulse"})
    file = write(frame, tmp_path / "log.csv")
    result = run(tmp_path, file, columns={"observations": "*", "actions": "action_*"})
    assert_same(result, table())
    assert "columns: observations from age, pulse; actions from action_0" in result.notes[0]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("", "is empty"),
        ("1,2\n3,4\n", "numbers in its first line"),
        ("a,a\n1,2\n", "two columns called a"),
        ("obs,action,reward,done\n1,0,1,1,9\n", "names 4 columns, and its first row has 5 values"),
        ("obs,action,reward,done\n1,0,1,0\n1,0,1,0,7\n", "Expected 4 fields in line 3, saw 5"),
        ("obs,action,reward,done\n1,0,1\n", "expected 0 or 1 in done, found nan in row 0"),
        ("obs,action,reward,done\nx,0,1,1\n", "column obs, given for observations, holds text (x in row 0)"),
        ("obs;action;reward;done\n1,5;0;1;1\n", "column obs, given for observations, holds text (1,5 in row 0)"),
    ],
)
def test_text_that_is_no_table_is_refused(tmp_path, content, wanted):
    file = tmp_path / "log.csv"
    file.write_text(content)
    refused(tmp_path, file, wanted, choices=[2], ends="terminal")
