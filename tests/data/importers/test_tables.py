"""Which columns are read of files, and what is refused before a value is looked at."""

from __future__ import annotations

import importlib
import pickle

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from logged_samples import SUFFIXES, logged, save, without
from pyarrow import parquet

from spinrl.data import StoreError
from spinrl.data.importers.array_import import import_arrays
from spinrl.data.importers.arrays import Arrays
from spinrl.data.importers.options import ArrayOptions


def refused(file, *wanted, **columns) -> None:
    with pytest.raises(StoreError) as error:
        options = ArrayOptions(choices=(3, 2, 5), columns=columns)
        import_arrays(file, file.parent / "store", options, task="robot")
    assert "\n" not in str(error.value)
    for part in wanted:
        assert part in str(error.value)
    assert not [path for path in file.parent.iterdir() if path != file]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_that_are_missing_or_called_otherwise(tmp_path, suffix):
    arrays = logged()
    file = save(tmp_path / f"log{suffix}", without(arrays, "rewards"))
    refused(file, "no column for rewards", "--column rewards=NAME", "observations, ")
    refused(file, "no column gain for rewards", rewards=("gain",))
    save(file, {**arrays, "obs": arrays["observations"]})
    refused(file, "observations could be observations or obs", "--column observations=observations")
    save(file, {**without(arrays, "rewards"), "gain": arrays["rewards"]})
    found = Arrays(file, {"rewards": ("gain",), "episode": ()})
    assert found.columns["rewards"] == ("gain",) and "episode" not in found.columns


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_numbered_columns_stand_side_by_side(tmp_path, suffix):
    arrays = without(logged([30], [True], nvec=[12] * 11), "next_observations")
    numbered = {f"action_{number}": arrays["actions"][:, number] for number in (10, *range(10))}
    file = save(tmp_path / f"log{suffix}", {**without(arrays, "actions"), **numbered})
    blocks = Arrays(file, {}).blocks("actions")
    np.testing.assert_array_equal(np.concatenate([block["actions"] for block in blocks]), arrays["actions"])
    save(file, {**without(arrays, "actions"), **without(numbered, "action_3")})
    refused(file, "no column action_3 for actions")


def test_named_columns_stand_side_by_side(tmp_path):
    arrays = logged()
    file = save(tmp_path / "log.npz", {**without(arrays, "observations"), "hour": arrays["rewards"], "age": range(7)})
    blocks = Arrays(file, {"observations": ("age", "hour")}).blocks("observations")
    found = next(blocks)["observations"]
    np.testing.assert_array_equal(found, np.stack([np.arange(7), arrays["rewards"]], axis=1).astype(np.float32))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["text", "complex", "dates"])
def test_columns_of_other_than_numbers(tmp_path, suffix, kind):
    values = {"text": ["a"] * 7, "complex": np.ones(7) * 1j, "dates": np.zeros(7, "datetime64[s]")}[kind]
    if (suffix, kind) in ((".hdf5", "dates"), (".parquet", "complex")):
        pytest.skip("the format has none")
    if (suffix, kind) == (".hdf5", "text"):
        values = np.array(values, dtype="S")
    file = save(tmp_path / f"log{suffix}", {**logged(), "rewards": np.asarray(values)})
    refused(file, "rewards", {"text": "holds text", "dates": "holds dates", "complex": "not plain numbers"}[kind])


def test_objects_are_never_unpickled(tmp_path):
    class Calling:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    file = tmp_path / "log.npz"
    np.savez(file, **without(logged(), "rewards"), rewards=np.array([Calling()] * 7, dtype=object))
    refused(file, "column rewards holds objects")
    file.write_bytes(pickle.dumps(Calling()))
    refused(file, "could not be read")


def test_columns_of_different_lengths(tmp_path):
    for suffix in (".npz", ".hdf5"):
        file = save(tmp_path / f"log{suffix}", {**logged(), "rewards": np.zeros(6)})
        refused(file, "columns differ in length", "rewards 6", "observations 7")
        file.unlink()


def test_lists_of_different_lengths_and_rows_without_a_value(tmp_path):
    file = tmp_path / "log.parquet"
    columns = {name: list(values) for name, values in without(logged(), "observations").items()}
    pd.DataFrame({**columns, "observations": [[0.0, 1.0]] * 6 + [[0.0]]}).to_parquet(file)
    refused(file, "observations holds lists of 1 to 2 entries")
    pd.DataFrame({**columns, "observations": [[0.0, 1.0]] * 6 + [None]}).to_parquet(file)
    refused(file, "observations has rows without a value")


def test_lists_of_a_size_that_changes_between_blocks(tmp_path):
    file = tmp_path / "log.parquet"
    columns = {name: list(values) for name, values in without(logged(), "actions", "next_observations").items()}
    mixed = {"observations": [[0.0, 1.0]] * 5 + [[0.0]] * 2, "actions": [[0, 0, 0]] * 5 + [[0, 0]] * 2}
    for spoiled in mixed:
        rest = {"observations": [[0.0, 1.0]] * 7, "actions": [[0, 0, 0]] * 7} | {spoiled: mixed[spoiled]}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("spinrl.data.importers.tables.BLOCK", 5)
            parquet.write_table(pa.table({**columns, **rest}), file)
            refused(file, spoiled, "in row 5")


@pytest.mark.parametrize("suffix", [".hdf5", ".parquet"])
def test_episodes_may_be_called_by_text_of_any_kind(tmp_path, suffix):
    arrays, names = without(logged(), "episode"), ["first"] * 4 + ["second"] * 3
    if suffix == ".hdf5":
        file = save(tmp_path / "log.hdf5", {**arrays, "episode": np.array(names, dtype=object)})
    else:
        file = tmp_path / "log.parquet"
        columns = {name: list(values) for name, values in arrays.items()}
        pd.DataFrame({**columns, "episode": pd.Categorical(names)}).to_parquet(file)
    store = import_arrays(file, tmp_path / "store", ArrayOptions(choices=(3, 2, 5)), task="robot").store
    assert store.data["episodes", "length"].tolist() == [4, 3]


def test_lists_of_fixed_size_and_episodes_called_by_text(tmp_path):
    arrays = without(logged(), "episode")
    columns = {name: pa.array(list(values)) for name, values in arrays.items()}
    columns["actions"] = pa.FixedSizeListArray.from_arrays(pa.array(arrays["actions"].ravel()), 3)
    file = tmp_path / "log.parquet"
    parquet.write_table(pa.table({**columns, "episode": ["first"] * 4 + ["second"] * 3}), file)
    store = import_arrays(file, tmp_path / "store", ArrayOptions(choices=(3, 2, 5)), task="robot").store
    assert store.data["episodes", "length"].tolist() == [4, 3]
    np.testing.assert_array_equal(store.episode(1).actions, arrays["actions"][4:])


def test_groups_and_links_out_of_an_hdf5_file_are_ignored(tmp_path):
    save(tmp_path / "other.hdf5", logged())
    file = save(tmp_path / "log.hdf5", without(logged(), "rewards"))
    with h5py.File(file, "a") as opened:
        opened["infos/rewards"] = np.zeros(7)
        opened["version"] = 1
        opened["rewards"] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), "rewards")
        raw = [(str(tmp_path / "other.hdf5"), 0, 56)]
        opened.create_dataset("reward", (7,), dtype="f8", external=raw)
    (tmp_path / "other.hdf5").rename(tmp_path.parent / "other.hdf5")
    refused(file, "no column for rewards; it has actions, episode, next_observations, observations, terminals")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_missing_damaged_or_something_else(tmp_path, suffix):
    file = tmp_path / f"log{suffix}"
    with pytest.raises(StoreError, match="there is no file"):
        import_arrays(file, tmp_path / "store", ArrayOptions(), task="robot")
    content = save(file, logged()).read_bytes()
    for damaged in (b"", b"not a table", content[: len(content) // 2]):
        file.write_bytes(damaged)
        refused(file, "could not be read")
    with pytest.raises(StoreError, match=r"expected a file of \.csv, "):
        import_arrays(tmp_path / "log.xls", tmp_path / "store", ArrayOptions(), task="robot")


def test_a_single_array_without_a_name(tmp_path):
    with (tmp_path / "log.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    refused(tmp_path / "log.npz", "a single array without a name")


@pytest.mark.parametrize(("suffix", "package"), [(".hdf5", "h5py"), (".parquet", "pyarrow")])
def test_a_missing_package_is_named_with_its_installation(tmp_path, monkeypatch, suffix, package):
    file = save(tmp_path / f"log{suffix}", logged())
    found = importlib.import_module

    def missing(name: str) -> object:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return found(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    refused(file, f'needs {package}: pip install "spinrl[data]"')
