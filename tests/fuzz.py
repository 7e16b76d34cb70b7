"""Fuzz of all importers: small valid files, mutated, give a store that verifies or one line of refusal.

    python -m tests.fuzz --minutes 60 --seed 7

Bytes, shapes, types, names and attributes of files of every kind are changed at random. Each file is imported in this
process, in a folder of its own: what is not a `StoreError` of one line, a store that does not verify, a file that is
left behind, more than the time or the memory that a file of this size needs, is a finding, and its file is kept in
--keep. Exit code 1 when there is any. The same seed gives the same files.
"""

from __future__ import annotations

import argparse
import pickle
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from spinrl.data import Store, StoreError
from spinrl.data.importers.request import Request

SECONDS = 20.0  # that one small file may take
MEMORY = 4 << 30  # bytes of address space beyond what the process has, where the system can limit it
NVEC = (3, 2, 5)
Files = dict[str, np.ndarray]
_ENDS = ("terminals", "timeouts", "episode", "step")  # of several episodes, where a file has one
ODD_VALUES = (0, -1, 1, 2**31, -(2**63), 1e30, 1e300, np.nan, np.inf, -999.0, 0.5)
ODD_TYPES = (
    "float16",
    "float32",
    "float64",
    "int8",
    "uint8",
    "int64",
    "uint64",
    "bool",
    "complex64",
    "S3",
    "U2",
    "M8[s]",
)
ODD_NAMES = ("", "obs", "actions", "step", "t", "mask", "lengths", "allowed", "data", "index", "a,b", "é", "-x", "*")


def valid(rng: np.random.Generator) -> Files:
    """Columns of a few episodes, with all that an importer knows."""
    lengths = rng.integers(1, 6, 4)
    rows, last = int(lengths.sum()), np.cumsum(lengths) - 1
    observations = rng.normal(size=(rows, 3)).astype(np.float32)
    columns: Files = {
        "observations": observations,
        "actions": rng.integers(0, NVEC, (rows, 3)),
        "rewards": rng.normal(size=rows),
        "terminals": np.isin(np.arange(rows), last),
        "timeouts": np.zeros(rows, dtype=bool),
        "episode": np.repeat(np.arange(4), lengths),
        "step": np.concatenate([np.arange(length) for length in lengths]),
        "split": np.repeat(["train", "test", "train", "train"], lengths),
        "allowed": np.ones((rows, 10), dtype=bool),
        "propensities": rng.uniform(0.1, 1, rows),
    }
    optional = ("timeouts", "episode", "step", "split", "allowed", "propensities")
    return {name: values for name, values in columns.items() if name not in optional or rng.random() < 0.6}


def mutated(columns: Files, rng: np.random.Generator) -> Files:
    """The columns with one or two changes of values, types, shapes or names."""
    columns = dict(columns)
    for _ in range(rng.choice([0, 1, 1, 2])):
        name = str(rng.choice(list(columns)))
        values = columns[name]
        match rng.integers(0, 7):
            case 0:
                del columns[name]
            case 1:
                columns[str(rng.choice(ODD_NAMES))] = columns.pop(name)
            case 2:
                with np.errstate(all="ignore"):
                    columns[name] = values.astype(str(rng.choice(ODD_TYPES)))
            case 3:
                columns[name] = values[: rng.integers(0, len(values) + 1)]
            case 4:
                columns[name] = values.reshape(-1) if rng.random() < 0.5 else values[..., None]
            case 5:
                columns[name] = values[rng.permutation(len(values))]
            case _:
                spoiled = values.astype(np.float64).ravel()
                if spoiled.size:
                    spoiled[rng.integers(spoiled.size)] = float(rng.choice(ODD_VALUES))
                columns[name] = spoiled.reshape(values.shape)
        if not columns:
            break
    return columns


def _npz(columns: Files, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **{name or "none": values for name, values in columns.items()})


def _hdf5(columns: Files, path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            if values.dtype.kind != "M":
                file[(name or "none").replace("/", "_")] = values.astype("S") if values.dtype.kind == "U" else values
        file.attrs["version"] = "1"
        file.create_group("infos")["x"] = np.zeros(3)


def _d3rlpy(columns: Files, path: Path) -> None:
    episode = columns.get("episode", np.zeros(1))
    with h5py.File(path, "w") as file:
        for number in np.unique(episode).tolist() if episode.dtype.kind in "iu" else [0]:
            for name in ("observations", "actions", "rewards"):
                if name in columns and columns[name].dtype.kind not in "UM":
                    rows = columns[name]
                    file[f"{name}_{number}"] = rows[episode == number] if len(rows) == len(episode) else rows
            file[f"terminated_{number}"] = bool(number % 2)
        file["total_size"] = 4


def _robomimic(columns: Files, path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("data/demo_0")
        for name, values in columns.items():
            if values.dtype.kind not in "UM" and name not in _ENDS:
                group["obs/state" if name == "observations" else name or "none"] = values


def _padded(columns: Files, path: Path) -> None:
    _npz({name: np.stack([values, values, values]) for name, values in columns.items() if name not in _ENDS}, path)


def _frame(columns: Files) -> pd.DataFrame:
    flat = {}
    for name, values in columns.items():
        wide = values.reshape(len(values), -1)
        for entry in range(wide.shape[1]):
            flat[f"{name}_{entry}" if wide.shape[1] > 1 else name] = pd.Series(wide[:, entry])
    return pd.DataFrame(flat)


def _csv(columns: Files, path: Path) -> None:
    _frame(columns).to_csv(path, index=False)


def _parquet(columns: Files, path: Path) -> None:
    _frame({name: v.real if v.dtype.kind == "c" else v for name, v in columns.items()}).to_parquet(path)


def _feather(columns: Files, path: Path) -> None:
    _frame({name: v.real if v.dtype.kind == "c" else v for name, v in columns.items()}).to_feather(path)


def _pickle(columns: Files, path: Path) -> None:
    rows = [(np.ones(3), np.zeros(2, dtype=int), 1.0, np.ones(3), bool(k % 2)) for k in range(5)]
    path.write_bytes(pickle.dumps(rows[: len(columns)], protocol=len(columns) % 5))


WRITERS: dict[str, tuple[str, Callable[[Files, Path], None]]] = {
    "npz": ("log.npz", _npz),
    "padded": ("padded.npz", _padded),
    "hdf5": ("log.hdf5", _hdf5),
    "d3rlpy": ("d3rlpy.h5", _d3rlpy),
    "robomimic": ("robomimic.h5", _robomimic),
    "csv": ("log.csv", _csv),
    "csv.gz": ("log.csv.gz", _csv),
    "parquet": ("log.parquet", _parquet),
    "feather": ("log.feather", _feather),
    "pickle": ("3_bins/toy-walk-medium", _pickle),
}


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with some of them changed, cut out or put in; most often as they are."""
    changed = bytearray(content)
    for _ in range(rng.integers(0, 4) if rng.random() < 0.4 else 0):
        at = int(rng.integers(0, len(changed) + 1))
        match rng.integers(0, 4):
            case 0:
                changed[at : at + 1] = bytes([rng.integers(0, 256)])
            case 1:
                del changed[at : at + int(rng.integers(1, 200))]
            case 2:
                changed[at:at] = rng.bytes(int(rng.integers(1, 20)))
            case _:
                changed[at : at + 8] = int(rng.choice([0, 2**31 - 1, 2**62])).to_bytes(8, "little")
    return bytes(changed)


def options(kind: str, rng: np.random.Generator) -> dict:
    """Options as a person may give them, sensible and not."""
    if kind == "pickle":
        return {}
    made: dict = {"choices": str(rng.choice(["3,2,5", "3,2,5", "3,2,5", "2", "observed", "9"]))}
    if rng.random() < 0.1:
        made = {"one_hot": "3,2,5"}
    for option, values in (
        ("ends", ["terminal", "timeout"]),
        ("missing", ["mean", "zero", "drop"]),
        ("step_column", ["step"]),
        ("action_offset", ["1", "1,0,-2"]),
        ("column", [["observations=*"], ["episode="], ["mask="], ["observations=obs*,-obs_1"], ["step=", "allowed="]]),
        ("episode_length", [1, 3]),
    ):
        if rng.random() < (0.5 if option == "ends" and kind in ("padded", "robomimic") else 0.12):
            made[option] = values[int(rng.integers(len(values)))]
    return made


def one(folder: Path, seed: int) -> tuple[str, str, str]:
    """Import one mutated file.

    Args:
        folder: empty; holds the file alone afterwards.
        seed: of the file.

    Returns:
        Its kind, what came of it ("store" or "refused"), and what was found to be wrong (empty where nothing is).
    """
    rng = np.random.default_rng(seed)
    warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
    kind = list(WRITERS)[int(rng.integers(len(WRITERS)))]
    name, write = WRITERS[kind]
    file, out = folder / name, folder / "out" / "store"
    file.parent.mkdir(exist_ok=True)
    try:
        write(mutated(valid(rng), rng), file)
    except (ValueError, TypeError, OSError, LookupError, AssertionError, NotImplementedError):
        file.write_bytes(rng.bytes(200))  # what the format cannot hold
    except Exception as error:  # pyarrow's own
        if "arrow" not in type(error).__module__ and "pyarrow" not in str(type(error)):
            raise
        file.write_bytes(rng.bytes(200))
    file.write_bytes(damaged(file.read_bytes(), rng))
    out.parent.mkdir()
    began, came, wrong = time.monotonic(), "store", ""
    try:
        Request(files=[str(file)], name="fuzz", **options(kind, rng)).write(out)
        store = Store.open(out)
        store.verify()
        if not all(np.isfinite(store.data["observations", "observation"].numpy()).ravel()):
            wrong = "the store holds numbers that are not finite"
        shutil.rmtree(out)
    except StoreError as error:
        came = "refused"
        if "\n" in str(error) or not str(error):
            wrong = f"the refusal is not one line: {error!r}"
    except OSError as error:
        came, wrong = "refused", "" if "\n" not in str(error) else f"the refusal is not one line: {error!r}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        came, wrong = "crashed", traceback.format_exc()
    if not wrong and (took := time.monotonic() - began) > SECONDS:
        wrong = f"it took {took:.0f} s"
    if not wrong and (left := [path.name for path in out.parent.iterdir()]):
        wrong = f"it left {', '.join(left)} behind"
    return kind, came, wrong


def fuzz(seconds: float, seed: int, keep: Path | None = None, most: int | None = None) -> tuple[Counter, list[str]]:
    """Import mutated files for so long.

    Args:
        seconds: after which no further file is begun.
        seed: of the first file; the next one has the next.
        keep: where files that were not handled well are kept, or None.
        most: files, or None.

    Returns:
        How many files of each kind came to what, and what was found to be wrong.
    """
    counts: Counter = Counter()
    findings: list[str] = []
    began, number = time.monotonic(), seed
    while time.monotonic() - began < seconds and (most is None or number < seed + most):
        with tempfile.TemporaryDirectory() as folder:
            kind, came, wrong = one(Path(folder), number)
            counts[kind, came] += 1
            if wrong:
                findings.append(f"seed {number}, {kind}: {wrong}")
                if keep is not None:
                    shutil.copytree(folder, keep / str(number), dirs_exist_ok=True)
        number += 1
    return counts, findings


def limit_memory() -> None:
    """Let what needs far more memory than there is a reason for fail, where the system can."""
    try:
        import resource
    except ImportError:
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    limit = pages * resource.getpagesize() + MEMORY
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def main() -> int:
    """Entry point; returns the exit code."""
    made = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    made.add_argument("--minutes", type=float, default=1.0)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="where files with findings are kept")
    given = made.parse_args()
    limit_memory()
    counts, findings = fuzz(60 * given.minutes, given.seed, given.keep)
    for (kind, came), count in sorted(counts.items()):
        print(f"{kind:10} {came:8} {count:7,}")
    print(f"{sum(counts.values()):,} files, {len(findings)} findings" + (f", kept in {given.keep}" if findings else ""))
    for finding in findings[:20]:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
