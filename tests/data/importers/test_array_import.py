"""From columns to stores: what is kept of every episode, and what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logged_samples import NVEC, SUFFIXES, logged, save, without

from spinrl.data import Store, StoreError
from spinrl.data.importers import tables
from spinrl.data.importers.array_import import import_arrays
from spinrl.data.importers.options import ArrayOptions
from spinrl.data.importers.result import ImportResult


def run(tmp_path, arrays, suffix=".npz", **options) -> ImportResult:
    file = save(tmp_path / f"log{suffix}", arrays)
    given = ArrayOptions(**{"choices": NVEC, **options})
    return import_arrays(file, tmp_path / "store", given, task="robot")


def refused(tmp_path, arrays, *wanted, suffix=".npz", **options) -> str:
    """The one line of a refusal, which leaves nothing behind."""
    with pytest.raises(StoreError) as error:
        run(tmp_path, arrays, suffix, **options)
    assert [path.name for path in tmp_path.iterdir()] == [f"log{suffix}"]
    message = str(error.value)
    assert "\n" not in message
    for part in wanted:
        assert part in message, message
    return message


def assert_episodes(store: Store, arrays, lengths, terminal, *, known_next: bool) -> None:
    """Every episode is stored as it was logged, as far as what its last action led to is known."""
    episodes, start = store.episodes(), 0
    for length, by_task in zip(lengths, terminal, strict=True):
        rows = slice(start, start + length)
        start += length
        observations = arrays["observations"][rows]
        kept = length
        if known_next:
            observations = np.concatenate([observations, arrays["next_observations"][rows][-1:]])
        elif by_task:
            observations = np.concatenate([observations, observations[-1:]])
        else:
            kept -= 1
        if not kept:
            continue
        got = next(episodes)
        last = np.arange(kept) == kept - 1
        np.testing.assert_array_equal(got.observations, observations)
        np.testing.assert_array_equal(got.actions, arrays["actions"][rows][:kept])
        np.testing.assert_array_equal(got.rewards, arrays["rewards"][rows][:kept])
        np.testing.assert_array_equal(got.terminated, last & by_task)
        np.testing.assert_array_equal(got.truncated, last & (not by_task))
    assert next(episodes, None) is None


EPISODES = st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=6)


@settings(max_examples=30)
@given(
    episodes=EPISODES,
    nvec=st.lists(st.sampled_from([2, 3, 256, 257]), min_size=1, max_size=4),
    size=st.integers(1, 3),
    block=st.integers(1, 12),
    suffix=st.sampled_from(SUFFIXES),
    known_next=st.booleans(),
    marks=st.sampled_from(["flags", "flags and episode", "terminals and episode", "dones and timeouts"]),
)
def test_episodes_are_kept_whatever_the_file_and_its_marks(
    tmp_path_factory, episodes, nvec, size, block, suffix, known_next, marks
):
    lengths, terminal = zip(*(episodes if known_next else [*episodes, (2, False)]), strict=True)
    arrays = logged(lengths, terminal, nvec, size)
    given = without(arrays, *([] if known_next else ["next_observations"]))
    given = without(given, *({"flags": ["episode"], "terminals and episode": ["timeouts"]}.get(marks, [])))
    if marks == "dones and timeouts":
        given["dones"] = given.pop("terminals") | given["timeouts"]
        given.pop("episode")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "BLOCK", block)
        result = run(tmp_path_factory.mktemp("import"), given, suffix, choices=nvec)
    result.store.verify()
    assert result.store.metadata.nvec == nvec
    assert result.store.metadata.bins == (nvec[0] if len(set(nvec)) == 1 else None)
    assert_episodes(result.store, arrays, lengths, terminal, known_next=known_next)


@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    block=st.integers(1, 12),
    ends=st.sampled_from(["terminal", "timeout"]),
    marks=st.sampled_from(["dones", "episode"]),
)
def test_the_option_says_what_ends_are(tmp_path_factory, lengths, block, ends, marks):
    terminal = [ends == "terminal"] * len(lengths)
    arrays = logged(lengths, terminal)
    given = without(arrays, "terminals", "timeouts", "episode")
    given[marks] = arrays["episode"] if marks == "episode" else arrays["terminals"] | arrays["timeouts"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "BLOCK", block)
        result = run(tmp_path_factory.mktemp("import"), given, ends=ends)
    assert_episodes(result.store, arrays, lengths, terminal, known_next=True)


@settings(max_examples=20)
@given(rows=st.integers(1, 40), length=st.integers(1, 12), block=st.integers(1, 15))
def test_a_fixed_length_cuts_the_rows(tmp_path_factory, rows, length, block):
    arrays = without(logged([rows], [False]), "terminals", "timeouts", "episode")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "BLOCK", block)
        result = run(tmp_path_factory.mktemp("import"), arrays, ends="timeout", episode_length=length)
    pieces = [min(length, rows - start) for start in range(0, rows, length)]
    assert_episodes(result.store, arrays, pieces, [False] * len(pieces), known_next=True)
    assert any("ends within an episode" in note for note in result.notes) == (rows % length != 0)


def test_a_length_ends_what_no_terminal_ended(tmp_path):
    arrays = without(logged([3, 5, 2], [True, False, True]), "timeouts", "episode", "next_observations")
    result = run(tmp_path, arrays, episode_length=5)
    assert_episodes(result.store, arrays, [3, 5, 2], [True, False, True], known_next=False)
    left_out = "1 rows were left out, the last of each cut-off episode: what they led to is unknown; they held 2.8% of"
    assert any(note.startswith(left_out) for note in result.notes)


def test_what_was_taken_how_is_said(tmp_path):
    arrays = without(logged([4, 3, 2], [True, False, True]), "next_observations", "timeouts")
    arrays["actions"] = arrays["actions"].astype(np.float32) + 1
    result = run(tmp_path, arrays, action_offset=1)
    np.testing.assert_array_equal(result.store.episode(0).actions, arrays["actions"][:4] - 1)
    assert result.notes == [
        "columns: observations; actions; rewards; terminals; episode",
        "actions count from 1 in the file, from 0 here",
        "actions are stored as floats, all of them whole numbers, and are read as integers",
        "episodes end by: episode, terminals",
        "2 episodes that the task ended repeat their last observation (never used)",
        "1 rows were left out, the last of each cut-off episode: what they led to is unknown; they held 22.0% of the "
        "reward",
    ]
    assert [(source.behavior, source.episodes) for source in result.store.metadata.sources] == [("logged", 3)]


def test_next_observations_that_are_but_the_next_rows_are_pointed_out(tmp_path):
    arrays = logged([3, 3, 3], [False, False, True])
    arrays["next_observations"] = np.roll(arrays["observations"], -1, axis=0)
    assert any("at all 2 time limits" in warning for warning in run(tmp_path, arrays).warnings)


def test_one_number_of_choices_is_for_all(tmp_path):
    assert run(tmp_path, logged(), choices=[5]).store.metadata.nvec == [5, 5, 5]


def test_choices_may_be_taken_from_the_largest_values(tmp_path):
    arrays = logged([20], [True])
    result = run(tmp_path, arrays, choices="observed")
    assert result.store.metadata.nvec == (arrays["actions"].max(axis=0) + 1).tolist()
    assert any("--choices observed" in note for note in result.notes)


def test_rows_of_one_number_are_observations_and_actions_too(tmp_path):
    arrays = logged(nvec=[4], size=1)
    arrays = {name: values.reshape(len(values)) for name, values in arrays.items()}
    store = run(tmp_path, arrays, choices=[4]).store
    assert (store.observation_size, store.metadata.nvec) == (1, [4])


def changed(name, values) -> dict[str, np.ndarray]:
    return {**logged([4, 3], [True, False]), name: np.asarray(values)}


def spoiled(name, row, value) -> dict[str, np.ndarray]:
    arrays = logged([4, 3], [True, False])
    values = arrays[name].astype(np.float64)
    values[row] = value
    return {**arrays, name: values}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_not_finite_is_refused_by_row(tmp_path, suffix):
    refused(
        tmp_path,
        spoiled("observations", (5, 1), np.nan),
        "observations, entry 1 has no value (nan) in row 5",
        "--missing mean, zero or drop",
        suffix=suffix,
    )
    refused(
        tmp_path,
        spoiled("next_observations", (6, 0), np.inf),
        "next_observations, entry 0, found inf in row 6",
        suffix=suffix,
    )
    refused(
        tmp_path,
        spoiled("rewards", 2, 1e300),
        "single precision holds in rewards, found 1e+300 in row 2",
        suffix=suffix,
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_actions_that_are_no_indices_are_refused(tmp_path, suffix):
    fractions = spoiled("actions", (3, 1), 0.5)
    refused(tmp_path, fractions, "expected a whole number", "actions, entry 1, found 0.5 in row 3", suffix=suffix)
    refused(tmp_path, spoiled("actions", (3, 1), np.nan), "expected a whole number", "found nan", suffix=suffix)
    refused(
        tmp_path, spoiled("actions", (3, 1), 2), "expected 0 to 1 for sub-action 1, found 2 in row 3", suffix=suffix
    )
    refused(
        tmp_path, spoiled("actions", (6, 2), -1), "expected 0 to 4 for sub-action 2, found -1 in row 6", suffix=suffix
    )


def test_choices_are_asked_for_and_never_guessed(tmp_path):
    arrays = changed("actions", [[0, 1, 2], [1, 0, 0], [2, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1]])
    message = refused(tmp_path, arrays, "largest values seen are 2,1,2", "--choices 3,2,3", choices=None)
    assert "--action-offset" not in message
    refused(tmp_path, arrays, "has 3 sub-actions, --choices gives 2", choices=[3, 2])
    refused(tmp_path, arrays, "expected 0 to 0 for sub-action 1, found 1 in row 0", choices=[3, 1, 3])
    refused(tmp_path, arrays, "expected at least 1 choice of sub-action 1, got 0", choices=[3, 0, 3])
    refused(tmp_path, arrays, "no sub-action has a second choice", choices=[1])
    refused(tmp_path, arrays, "65537 choices", choices=[65537])
    arrays["actions"][:, 1] = 0
    refused(
        tmp_path, arrays, "sub-action 1 never takes a second choice", "(1 if there is no other)", choices="observed"
    )
    assert run(tmp_path, arrays, choices=[3, 1, 3]).store.metadata.nvec == [3, 1, 3]


def test_actions_that_count_from_one_are_told_the_option(tmp_path):
    arrays = logged([9, 9], [True, True], nvec=[3, 3])
    arrays["actions"][0] = 2
    arrays["actions"] += 1
    refused(tmp_path, arrays, "give --choices 3,3 --action-offset 1", choices=None)
    refused(tmp_path, arrays, "expected 0 to 2 for sub-action 0, found 3", "--action-offset 1", choices=[3])
    refused(
        tmp_path, arrays, "expected 2 to 4 for sub-action 0, found 1", "--action-offset 1", choices=[3], action_offset=2
    )


def test_where_and_how_episodes_end_is_asked_for(tmp_path):
    arrays = logged([4, 3], [True, False])
    bare = without(arrays, "terminals", "timeouts", "episode")
    refused(tmp_path, bare, "does not say where episodes end", "--episode-column", "--episode-length")
    refused(tmp_path, bare, "--ends terminal", "--ends timeout", episode_length=4)
    refused(tmp_path, {**bare, "dones": arrays["terminals"]}, "an end by dones is", "--ends terminal")
    refused(tmp_path, {**bare, "episode": arrays["episode"]}, "an end by episode is", "--ends terminal")
    refused(tmp_path, arrays, "says itself how episodes end", "leave out --ends", ends="terminal")
    refused(tmp_path, arrays, "leave out --episode-length", episode_length=3)
    refused(tmp_path, bare, "at least 1 step, got 0", episode_length=0, ends="timeout")
    unmarked = {**bare, "terminals": np.zeros(7), "timeouts": np.zeros(7)}
    refused(tmp_path, unmarked, "marks no end of an episode", "--episode-length STEPS, 7 where it is a single one")


@pytest.mark.parametrize(("mark", "other"), [("terminals", "timeouts"), ("timeouts", "terminals")])
def test_one_kind_of_end_alone_is_taken_for_all_only_where_that_is_sure(tmp_path, mark, other):
    """A time limit without a mark would make one episode of two, whose states never followed one another."""
    ends, kinds = ("terminal", "timeout") if mark == "terminals" else ("timeout", "terminal"), [mark == "terminals"] * 2
    arrays = without(logged([4, 3], kinds), other, "episode")
    bare = without(arrays, "next_observations")
    for said in (None, ends[1]):
        refused(tmp_path, bare, "alone", f"--ends {ends[0]} if", "--episode-length STEPS", ends=said)
    result = run(tmp_path, bare, ends=ends[0])
    assert_episodes(result.store, arrays, [4, 3], kinds, known_next=False)
    assert any(f"--ends {ends[0]}" in note for note in result.notes)
    shutil.rmtree(tmp_path / "store")
    result = run(tmp_path, arrays)  # whose next observations go on wherever no end is marked
    assert_episodes(result.store, arrays, [4, 3], kinds, known_next=True)
    assert any("there are no others" in note for note in result.notes)
    shutil.rmtree(tmp_path / "store")
    hidden = without(logged([2, 2, 3], [mark != "terminals", *kinds]), other, "episode")
    refused(tmp_path, hidden, "next observation of row 1 is not", "if one does, mark it")


def test_rows_that_contradict_each_other_are_refused(tmp_path):
    arrays = logged([4, 3], [True, False])
    ended = {**arrays, "terminals": np.arange(7) == 1}
    refused(tmp_path, ended, "row 1 is marked as the end", "episode 0 goes on")
    shuffled = without(arrays, "episode")
    shuffled["next_observations"] = shuffled["next_observations"][::-1]
    refused(tmp_path, shuffled, "next observation of row 0 is not the observation of row 1", "--episode-length 1")
    mixed = {**without(arrays, "terminals", "next_observations"), "episode": np.array([0, 0, 1, 1, 0, 0, 0])}
    mixed["timeouts"][:] = False
    refused(tmp_path, mixed, "row 4 goes on with episode 0 after another one", ends="timeout")


def test_shuffled_rows_may_stand_for_themselves(tmp_path):
    arrays = without(logged([4, 3], [True, False]), "episode", "timeouts")
    order = np.array([3, 0, 6, 2, 5, 1, 4])
    arrays = {name: values[order] for name, values in arrays.items()}
    store = run(tmp_path, arrays, episode_length=1).store
    assert_episodes(store, arrays, [1] * 7, arrays["terminals"].tolist(), known_next=True)


def test_flags_that_are_neither_0_nor_1_are_refused(tmp_path):
    refused(tmp_path, spoiled("terminals", 3, 2), "expected 0 or 1 in terminals, found 2.0 in row 3")
    refused(tmp_path, changed("terminals", np.zeros((7, 2))), "expected one value a row for terminals, found 2")


def test_sizes_that_do_not_fit_are_refused(tmp_path):
    refused(tmp_path, changed("next_observations", np.zeros((7, 3))), "3 entries in row 0", "observation has 2")
    refused(tmp_path, {name: values[:0] for name, values in logged().items()}, "holds no transitions")
    refused(tmp_path, without(logged([1], [False]), "next_observations"), "would be empty")
