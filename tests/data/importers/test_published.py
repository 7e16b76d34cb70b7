"""Published pickles: what they hold arrives exactly, and everything else is refused with its reason."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spinrl.data import Store, StoreError
from spinrl.data.importers import pickle_reader
from spinrl.data.importers.published import DATA_DIR, Name, find, import_published

SAMPLES = Path(__file__).parents[4] / "shared" / "samples"


def transitions(count: int = 30, size: int = 17, sub_actions: int = 6, *, lengths: int = 10, seed: int = 0) -> list:
    """Episodes of `lengths` steps, whose next observation is the very object of the following transition."""
    rng = np.random.default_rng(seed)
    rows = []
    observation = rng.normal(size=size)
    for step in range(count):
        following = rng.normal(size=size)
        rows.append((observation, rng.integers(0, 3, sub_actions), float(rng.normal()), following, False))
        observation = rng.normal(size=size) if step % lengths == lengths - 1 else following
    return rows


def write(folder: Path, content: object, protocol: int = 4, name: str = "3_bins/cheetah-run-medium") -> Path:
    file = folder / "published" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return file


def arrays(store: Store) -> tuple[np.ndarray, ...]:
    episodes = list(store.episodes())
    return (
        np.concatenate([each.observations[:-1] for each in episodes]),
        np.concatenate([each.actions for each in episodes]),
        np.concatenate([each.rewards for each in episodes]),
        np.concatenate([each.observations[1:] for each in episodes]),
        np.concatenate([each.terminated for each in episodes]),
    )


def same(store: Store, rows: list) -> None:
    for column, stored in enumerate(arrays(store)):
        given = np.array([row[column] for row in rows])
        np.testing.assert_array_equal(stored, given.astype(stored.dtype))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples are not here")
@pytest.mark.parametrize("name", ["3_bins/cheetah-run-medium", "10_bins/dog-trot-medium"])
def test_a_published_sample_arrives_as_the_unpickler_reads_it(name: str, tmp_path: Path) -> None:
    store = import_published(SAMPLES / name, tmp_path / "store")
    with (SAMPLES / name).open("rb") as file:
        same(store, pickle.load(file))
    assert store.metadata.bins == int(name.split("_")[0])
    assert f"{store.metadata.task}-{store.metadata.tier}" == name.split("/")[1]
    store.verify()


@given(
    protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
    count=st.integers(1, 40),
    lengths=st.integers(1, 15),
    numpy_numbers=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_protocol_is_read(
    tmp_path_factory: pytest.TempPathFactory, protocol: int, count: int, lengths: int, numpy_numbers: bool, seed: int
) -> None:
    rows = transitions(count, lengths=lengths, seed=seed)
    if numpy_numbers:
        rows = [(s, a, np.float64(r), following, np.bool_(done)) for s, a, r, following, done in rows]
    received: list = []

    def consume(row: tuple) -> None:
        received.append(tuple(getattr(each, "values", each) for each in row))

    pickle_reader.Machine(consume).run(io.BytesIO(pickle.dumps(rows, protocol)))
    assert len(received) == count
    for found, row in zip(received, rows, strict=True):
        for left, right in zip(found, row, strict=True):
            np.testing.assert_array_equal(np.squeeze(left), right)


def test_episodes_end_where_the_next_observation_does_not_follow(tmp_path: Path) -> None:
    rows = transitions(25, lengths=10)
    store = import_published(write(tmp_path, rows), tmp_path / "store")
    assert [len(each) for each in store.episodes()] == [10, 10, 5]
    assert all(each.truncated[-1] and not each.terminated.any() for each in store.episodes())
    same(store, rows)


def test_a_done_ends_an_episode_as_terminated(tmp_path: Path) -> None:
    rows = transitions(10, lengths=10)
    rows[3] = (*rows[3][:4], True)
    store = import_published(write(tmp_path, rows), tmp_path / "store")
    assert [len(each) for each in store.episodes()] == [4, 6]
    assert store.episode(0).terminated[-1] and not store.episode(0).truncated[-1]


def test_episodes_have_at_most_1000_steps_over_the_blocks_of_the_reader(tmp_path: Path) -> None:
    rows = transitions(2 * pickle_reader.BLOCK + 500, size=17, lengths=10**9)
    seen: list[tuple[int, int]] = []
    store = import_published(write(tmp_path, rows), tmp_path / "store", progress=lambda *each: seen.append(each))
    assert [len(each) for each in store.episodes()] == [1000] * 4 + [500]
    same(store, rows)
    done, total = zip(*seen, strict=True)
    assert len(seen) == 3 and list(done) == sorted(done) and set(total) == {write(tmp_path, rows).stat().st_size}


class _Calls:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def _with(column: int, value: object, at: int = 5) -> list:
    rows = transitions()
    row = list(rows[at])
    row[column] = value
    rows[at] = tuple(row)
    return rows


def _nested(depth: int) -> bytes:
    """A tuple of pairs, each of the pair before it twice: written out the last one has 2**depth leaves."""
    pairs = b"".join(b"h" + bytes([index]) + b"h" + bytes([index]) + b"\x86\x94" for index in range(1, depth))
    return b"\x80\x04]\x94((K\x01K\x01\x86\x94" + pairs + b"te."


OBSERVATION = np.zeros(17)
REFUSALS = {
    "calls out": (pickle.dumps([_Calls(os.system, "touch hacked")]), "it asks for posix.system"),
    "holds two lists": (2 * pickle.dumps(transitions()), "something follows the end of its list"),
    "calls eval": (pickle.dumps([_Calls(eval, "1")]), "it asks for builtins.eval"),
    "allocates": (pickle.dumps([_Calls(bytearray, 2**31)]), "it asks for builtins.bytearray"),
    "allocates an array": (b"\x80\x04]" + b"\x8e" + struct.pack("<Q", 2**62) + b"ab.", "cut off|asks for more than"),
    "declares a large array": (
        pickle.dumps(transitions()[:1]).replace(b"K\x11\x85", b"J\xff\xff\xff\x7f\x85"),
        r"an array of shape \(2147483647,\) with 136 bytes",
    ),
    "nests lists": ([[transitions()[0]]], "a list within the list"),
    "nests tuples": (_nested(100), "transition 0 is a tuple of 100"),
    "is a dictionary": ({"observations": OBSERVATION}, "the instruction EMPTY_DICT"),
    "is an array": (OBSERVATION, "is not a list of transitions"),
    "is cut off": (pickle.dumps(transitions())[:-40], "it is cut off"),
    "is cut off within its first bytes": (b"\x80\x04", "it is cut off"),
    "is no pickle": (b"PK\x03\x04 an archive", "it is cut off, or no pickle"),
    "is empty": (b"", "it is cut off"),
    "holds nothing": ([], "holds no transitions"),
    "mixes shapes": (_with(0, np.zeros(16)), "transition 5 has observations of 16 and 17"),
    "has a shorter next observation": (_with(3, np.zeros(16)), "transition 5 has observations of 17 and 16"),
    "has actions of two sizes": (_with(1, np.zeros(5, dtype=int)), "transition 5 has .* an action of 5"),
    "has matrices": (_with(0, np.zeros((1, 17))), "neither a vector nor a number"),
    "holds objects": (_with(0, np.array([None] * 17)), "an array of type 'O8'"),
    "holds text": (_with(2, "1.0"), "the reward of transition 5 is '1.0', not a number"),
    "holds nothing in a place": (_with(0, None), "the observation of transition 5 is a None, not a numpy array"),
    "holds dates": (_with(0, np.zeros(17, dtype="M8[s]")), "an array of type 'M8'"),
    "has NaN": (_with(0, np.r_[np.nan, np.zeros(16)]), "the observation of transition 5, entry 0: expected a finite"),
    "has infinite rewards": (_with(2, float("inf")), "the reward of transition 5, entry 0: expected a finite number"),
    "exceeds float32": (_with(3, np.full(17, 1e300)), "the next observation of transition 5, entry 0"),
    "has floats as actions": (_with(1, np.zeros(6)), "the action of transition 5 holds float64, not whole numbers"),
    "has actions over the bins": (
        _with(1, np.full(6, 3)),
        "the action of transition 5, entry 0: expected 0 to 2, got 3",
    ),
    "has negative actions": (_with(1, np.full(6, -1)), "expected 0 to 2, got -1"),
    "has another end mark": (_with(4, 0.5), "the end mark of transition 5 is 0.5, not 0 or 1"),
    "has transitions of four": ([row[:4] for row in transitions()], "transition 0 is a tuple of 4"),
    "is of another task": (transitions(size=9), "those of cheetah-run have 17 and 6"),
    "makes no sense": (b"\x80\x04]R.", "its instructions make no sense|calls something that is no function"),
    "has no mark": (b"\x80\x04]e.", "there is no mark"),
    "refers to nothing": (b"\x80\x04]h\x07a.", "it refers back to something"),
    "has a huge number": (_with(2, 10**400), "its instructions make no sense|OverflowError|uses the instruction"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_no_dataset_is_refused_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    content, reason = REFUSALS[case]
    file = write(tmp_path, content)
    with pytest.raises(StoreError, match=reason) as refusal:
        import_published(file, tmp_path / "imported" / "store")
    assert str(file) in str(refusal.value) and "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300 + len(str(file))
    assert not (tmp_path / "imported").exists() or not list((tmp_path / "imported").iterdir())
    assert not Path("hacked").exists()


def test_a_damaged_pickle_never_gets_further_than_a_refusal() -> None:
    """Whatever bytes are altered, the machine ends with its own error or with transitions."""
    content = pickle.dumps(transitions(3))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        altered = bytearray(content)
        for at in rng.integers(0, len(content), 3):
            altered[at] = rng.integers(0, 256)
        try:
            blocks = pickle_reader._Blocks(io.BytesIO(), io.BytesIO())
            pickle_reader.Machine(blocks).run(io.BytesIO(bytes(altered)))
        except (pickle_reader.RefusedError, MemoryError):
            refused += 1
    assert refused > 50


def test_the_memory_of_the_reader_is_limited(tmp_path: Path) -> None:
    """A gigabyte in one piece is refused by the child, whatever the machine has."""
    file = tmp_path / "large"
    with file.open("wb") as sparse:
        sparse.write(b"\x80\x04]\x8e" + struct.pack("<Q", 2 << 30))
        sparse.truncate(3 << 30)
    result = subprocess.run([sys.executable, "-I", pickle_reader.__file__, str(file)], capture_output=True, text=True)
    assert result.returncode == pickle_reader.REFUSED
    assert "asks for more than 1024 MiB" in result.stderr


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        file = write(tmp_path, transitions(count, size=67, sub_actions=21), name=f"3_bins/humanoid-{count}")
        code = (
            "import resource, subprocess, sys\n"
            f"subprocess.run([sys.executable, '-I', {pickle_reader.__file__!r}, {str(file)!r}],"
            " stdout=subprocess.DEVNULL, check=True)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    small, large = peak(8_000), peak(24_000)  # 10 and 29 MB of pickle
    assert large < small + 8_000  # kilobytes


def test_names() -> None:
    assert Name.of(Path("x/30_bins/dog-trot-random-medium-expert")) == Name(
        task="dog-trot", bins=30, tier="random-medium-expert"
    )
    assert Name.of(Path("mine.pkl"), task="fish-swim", bins=3, tier="medium").path == "3_bins/fish-swim-medium"
    with pytest.raises(StoreError, match="give --bins and --task and --tier"):
        Name.of(Path("/data/mine.pkl"))
    with pytest.raises(StoreError, match="expected 2 to 100 bins, got 1"):
        Name.of(Path("1_bins/fish-swim-medium"))


def test_files_are_found_in_the_folder_that_their_users_have_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, transitions())
    monkeypatch.delenv(DATA_DIR, raising=False)
    assert find(str(file)) == file
    with pytest.raises(StoreError, match=f"there is no file .*{DATA_DIR}"):
        find("3_bins/cheetah-run-medium")
    monkeypatch.setenv(DATA_DIR, str(tmp_path / "published"))
    assert find("3_bins/cheetah-run-medium") == file
    with pytest.raises(StoreError, match="there is no file"):
        find("3_bins/cheetah-run-expert")


def test_numpy_is_found_where_an_isolated_python_does_not_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of `pip install --user`: isolated mode leaves the user's own packages out."""
    venv.create(tmp_path / "bare", with_pip=False)
    bare = tmp_path / "bare" / Path(sys.executable).relative_to(sys.prefix)
    assert subprocess.run([bare, "-I", "-c", "import numpy"], capture_output=True).returncode
    monkeypatch.setattr(sys, "executable", str(bare))
    rows = transitions()
    same(import_published(write(tmp_path, rows), tmp_path / "store"), rows)
