"""Datasets on disk: a folder of memory-mapped arrays with a readable description.

The folder has the format of ``TensorDict.memmap``, with a group each for observations, transitions and episodes, so
that ``TensorDict.load_memmap`` reads it too. `Store` maps the files copy-on-write instead: tensors of `load_memmap`
write through to the disk, and a mistake of a user must not alter a dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import numpy as np
import torch
from tensordict import TensorDict

from spinrl.data.store.array_file import checksum
from spinrl.data.store.metadata import (
    REMAKE,
    ArrayLayout,
    DamagedStoreError,
    StoreError,
    StoreMetadata,
    array_file,
    read_metadata,
)
from spinrl.specs import ActionSpec


@attrs.frozen(eq=False, kw_only=True)
class Episode:
    """Consecutive transitions: L steps, and the observations between them.

    Attributes:
        observations: (L+1, S) float32; row t+1 is the next observation of step t.
        actions: (L, N) integers, the choice of each sub-action.
        rewards: (L,) float.
        terminated: (L,) bool, ended by the task, so that no return follows.
        truncated: (L,) bool, cut by a time limit.
        source: index of its source in the store's metadata.
        allowed: (L+1, N, K) bool, the allowed choices at each observation, or None.
        propensity: (L,) or (L, N) float, the behaviour's probability of its action or sub-actions, or None.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    source: int = 0
    allowed: np.ndarray | None = None
    propensity: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.actions)

    def first(self, steps: int) -> Episode:
        """The first `steps` steps as a cut-off episode; the whole episode if it is no longer."""
        if steps >= len(self):
            return self
        truncated = self.truncated[:steps].copy()
        truncated[-1] = not self.terminated[steps - 1]
        return Episode(
            observations=self.observations[: steps + 1],
            actions=self.actions[:steps],
            rewards=self.rewards[:steps],
            terminated=self.terminated[:steps],
            truncated=truncated,
            source=self.source,
            allowed=None if self.allowed is None else self.allowed[: steps + 1],
            propensity=None if self.propensity is None else self.propensity[:steps],
        )

    def after(self, steps: int) -> Episode:
        """The rest after the first `steps` steps, which must be fewer than all."""
        return attrs.evolve(
            self,
            observations=self.observations[steps:],
            actions=self.actions[steps:],
            rewards=self.rewards[steps:],
            terminated=self.terminated[steps:],
            truncated=self.truncated[steps:],
            allowed=None if self.allowed is None else self.allowed[steps:],
            propensity=None if self.propensity is None else self.propensity[steps:],
        )


class Store:
    """An opened dataset of T transitions in E episodes.

    Attributes:
        path: folder of the store.
        metadata: description of the store.
        data: memory-mapped arrays: `observations` (R rows), `transitions` (T) and `episodes` (E) with the fields of
            `spinrl.data.store.metadata.array_layout`.
    """

    def __init__(self, path: Path, metadata: StoreMetadata, data: TensorDict) -> None:
        self.path = path
        self.metadata = metadata
        self.data = data
        self.action_spec = ActionSpec(metadata.nvec)

    @classmethod
    def open(cls, path: str | Path, expect_task: str | None = None, expect_bins: int | None = None) -> Store:
        """Open a store; only metadata and file sizes are checked, `verify` checks the content.

        Raises:
            StoreError: when it is missing, incomplete, of a newer format, or of another task or number of bins.
        """
        path = Path(path)
        metadata = read_metadata(path)
        for what, found, wanted in (("task", metadata.task, expect_task), ("bins", metadata.bins, expect_bins)):
            if wanted is not None and found != wanted:
                raise StoreError(
                    f"store {path}: expected {what} {wanted!r}, found {found!r}; name a store of that {what}"
                )
        try:
            layout = metadata.layout()
        except (TypeError, ValueError) as error:
            raise DamagedStoreError(f"store {path}: metadata.json is not as expected ({error}); {REMAKE}") from None
        for name, record in metadata.files.items():
            file = path / name
            if not file.is_file():
                raise DamagedStoreError(f"store {path}: {name} is missing; {REMAKE}")
            if (size := file.stat().st_size) != record.bytes:
                raise DamagedStoreError(f"store {path}: {name} has {size} bytes instead of {record.bytes}; {REMAKE}")
        groups: dict[str, dict[str, torch.Tensor]] = {}
        for key, array in layout.items():
            name = array_file(key)
            if name not in metadata.files or metadata.files[name].bytes != array.num_bytes:
                raise DamagedStoreError(f"store {path}: {name} does not fit the sizes in metadata.json; {REMAKE}")
            group, field = key.split("/")
            groups.setdefault(group, {})[field] = _map(path / name, array)
        data = {group: TensorDict(fields, [len(next(iter(fields.values())))]) for group, fields in groups.items()}
        return cls(path, metadata, TensorDict(data, []))

    def verify(self) -> None:
        """Read every file and compare its checksum.

        Raises:
            StoreError: if a file was altered; the message names it.
        """
        for name, record in self.metadata.files.items():
            if checksum(self.path / name) != record.crc32:
                raise DamagedStoreError(f"store {self.path}: {name} has been altered (its checksum differs); {REMAKE}")

    def __len__(self) -> int:
        return self.metadata.transitions

    @property
    def fingerprint(self) -> str:
        """Hash of the content."""
        return self.metadata.fingerprint

    @property
    def observation_size(self) -> int:
        """S."""
        return self.metadata.observation_size

    @property
    def num_bytes(self) -> int:
        """Bytes on disk."""
        return sum(record.bytes for record in self.metadata.files.values())

    @property
    def allowed(self) -> torch.Tensor | None:
        """(R, N, K) bool, the choices that could be taken at each observation; None where the data does not tell."""
        return self.data["observations", "allowed"] if "allowed" in self.metadata.extras else None

    @property
    def returns(self) -> np.ndarray:
        """(E,) float64 undiscounted return of each episode."""
        return self.data["episodes", "return"].numpy()

    def episode(self, index: int) -> Episode:
        """Episode `index`, as views of the mapped arrays."""
        episodes, transitions = self.data["episodes"], self.data["transitions"]
        start, length = int(episodes["start"][index]), int(episodes["length"][index])
        steps = slice(start, start + length)
        first = int(transitions["row"][start])
        rows = slice(first, first + length + 1)
        allowed = self.allowed
        propensity = next((name for name in self.metadata.extras if name.startswith("propensit")), None)
        return Episode(
            observations=self.data["observations", "observation"][rows].numpy(),
            actions=transitions["action"][steps].numpy(),
            rewards=transitions["reward"][steps].numpy(),
            terminated=transitions["terminated"][steps].numpy(),
            truncated=transitions["truncated"][steps].numpy(),
            source=int(episodes["source"][index]),
            allowed=None if allowed is None else allowed[rows].numpy(),
            propensity=transitions[propensity][steps].numpy() if propensity else None,
        )

    def episodes(self) -> Iterator[Episode]:
        """All episodes in order."""
        return (self.episode(index) for index in range(self.metadata.episodes))


def _map(file: Path, array: ArrayLayout) -> torch.Tensor:
    """The file's content as a tensor; writes to it stay in memory."""
    return torch.from_numpy(np.memmap(file, array.dtype, mode="c", shape=array.shape))


def opener(task: str | None = None, bins: int | None = None) -> Callable[[Path], Store]:
    """A function that opens and verifies a store of a task and number of bins."""

    def open_store(path: Path) -> Store:
        store = Store.open(path, task, bins)
        store.verify()
        return store

    return open_store
