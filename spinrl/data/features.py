"""Outputs of a frozen network for every observation of a dataset, computed once and memory-mapped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from math import prod
from pathlib import Path

import attrs
import numpy as np
import torch

from spinrl.cache import OnDamage, OnWait, get_sound, home
from spinrl.config.serialize import fingerprint
from spinrl.data.store.array_file import ArrayFile, checksum
from spinrl.data.store.metadata import DamagedStoreError, StoreError
from spinrl.data.store.store import Store
from spinrl.files import replacing

FORMAT_VERSION = 1
ARRAY, CARD = "features.bin", "card.json"
BYTES_PER_VALUE = 2  # bfloat16
_BATCH = 512  # rows at once: the activations of a few hundred stay in a core's cache

Encode = Callable[[torch.Tensor], torch.Tensor]  # observations (B, S) → features (B, ...)


@attrs.frozen(eq=False)
class RowFeatures:
    """One bfloat16 feature array for each stored observation.

    Attributes:
        values: (R, ...), memory-mapped; row r belongs to row r of the store's observations.
        seconds: time of computing them, also if they come from the cache.
        num_bytes: size on disk.
        path: folder of the features.
    """

    values: torch.Tensor
    seconds: float
    num_bytes: int
    path: Path


def features_bytes(rows: int, shape: tuple[int, ...]) -> int:
    """Bytes on disk of features of `shape` for so many rows."""
    return rows * prod(shape) * BYTES_PER_VALUE


def features_path(identity: str, store_fingerprint: str) -> Path:
    """Cache folder of a network's features over a dataset."""
    return home() / "features" / _entry(identity, store_fingerprint)


def row_features(
    store: Store,
    encode: Encode,
    shape: tuple[int, ...],
    identity: str,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    on_wait: OnWait | None = None,
    on_damage: OnDamage | None = None,
) -> RowFeatures:
    """The features of every observation of a store, from the cache, or computed and cached.

    Args:
        store: dataset.
        encode: frozen network, (B, S) → (B, *shape).
        shape: shape of the features of one observation.
        identity: fingerprint of the network, i.e. of all that the features depend on besides the data.
        device: device on which `encode` is called.
        progress: callback with (rows done, rows in all) while computing.
        on_wait: callback with a path while another run computes the same features.
        on_damage: callback for damaged cached features, which are then computed anew; None raises an error instead.

    Raises:
        StoreError: when cached features are damaged, or the disk is full; no partial files are left.
    """
    name = _entry(identity, store.fingerprint)
    observation = store.data["observations", "observation"]  # (R, S)

    def build(path: Path) -> None:
        try:
            with replacing(path) as beside:
                beside.mkdir(parents=True)
                _compute(beside, observation, encode, shape, device, progress)
        except OSError as error:
            raise StoreError(f"the features could not be written to {path}: {error.strerror}") from error

    def opened(path: Path) -> RowFeatures:
        return _open(path, len(observation), shape)

    return get_sound("features", name, build, opened, on_wait=on_wait, on_damage=on_damage)


def _entry(identity: str, store_fingerprint: str) -> str:
    return fingerprint({"version": FORMAT_VERSION, "network": identity, "dataset": store_fingerprint})


@torch.inference_mode()
def _compute(
    folder: Path,
    observation: torch.Tensor,
    encode: Encode,
    shape: tuple[int, ...],
    device: torch.device | str,
    progress: Callable[[int, int], None] | None,
) -> None:
    began = time.perf_counter()
    file = ArrayFile(folder / ARRAY)
    try:
        for at in range(0, len(observation), _BATCH):
            part = observation[at : at + _BATCH]
            encoded = encode(part.to(device)).to("cpu", torch.bfloat16).contiguous()
            if encoded.shape[1:] != shape:
                raise ValueError(f"expected features of shape {shape}, got {tuple(encoded.shape[1:])}")
            file.write(encoded.view(torch.int16).numpy())
            if progress is not None:
                progress(at + len(part), len(observation))
        file.close()
    except BaseException:
        file.abandon()
        raise
    card = {
        "format_version": FORMAT_VERSION,
        "shape": [len(observation), *shape],
        "crc32": f"{file.crc32:08x}",
        "seconds": time.perf_counter() - began,
    }
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def _open(path: Path, rows: int, shape: tuple[int, ...]) -> RowFeatures:
    remake = "delete the folder to compute them anew"
    expected = (rows, *shape)
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
        found = tuple(card["shape"]), (path / ARRAY).stat().st_size
        if found != (expected, features_bytes(rows, shape)):
            raise DamagedStoreError(
                f"the features at {path}: expected shape {expected}, found {found[0]} in {found[1]} bytes; {remake}"
            )
        if checksum(path / ARRAY) != card["crc32"]:
            raise DamagedStoreError(f"the features at {path} have been altered (their checksum differs); {remake}")
        values = torch.from_numpy(np.memmap(path / ARRAY, np.int16, mode="c", shape=expected)).view(torch.bfloat16)
        return RowFeatures(values, float(card["seconds"]), found[1], path)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedStoreError(f"the features at {path} are damaged: {error}; {remake}") from error
