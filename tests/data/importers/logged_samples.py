"""Random logs as columns of arrays, and files of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
from pyarrow import parquet

SUFFIXES = (".npz", ".hdf5", ".parquet")
NVEC = (3, 2, 5)


def logged(
    lengths: Sequence[int] = (4, 3), terminal: Sequence[bool] = (True, False), nvec: Sequence[int] = NVEC, size: int = 2
) -> dict[str, np.ndarray]:
    """Consecutive episodes of these lengths, each ended by the task or by a time limit, with everything said."""
    rng, rows = np.random.default_rng(sum(lengths)), sum(lengths)
    last = np.cumsum(lengths) - 1
    ends = np.zeros((2, rows), dtype=bool)
    ends[[0 if by_task else 1 for by_task in terminal], last] = True
    observations = rng.normal(size=(rows, size)).astype(np.float32)
    following = np.roll(observations, -1, axis=0)
    following[last] = rng.normal(size=(len(lengths), size))
    return {
        "observations": observations,
        "actions": rng.integers(0, nvec, (rows, len(nvec))),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "next_observations": following,
        "terminals": ends[0],
        "timeouts": ends[1],
        "episode": np.repeat(np.arange(len(lengths)), lengths),
    }


def without(arrays: Mapping[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    return {name: values for name, values in arrays.items() if name not in names}


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write a file of the kind that its ending says."""
    path.unlink(missing_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".parquet":
        columns = {name: list(values) if values.ndim > 1 else values for name, values in arrays.items()}
        parquet.write_table(pa.table(columns), path, row_group_size=5)
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
    return path
