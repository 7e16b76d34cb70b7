"""Padded arrays of (episodes, steps, ...) as rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from spinrl.data.importers import tables
from spinrl.data.importers.array_files import HDF5Table, NpzTable
from spinrl.data.importers.tables import Block, Table
from spinrl.data.store.metadata import StoreError

EPISODE, NEXT = "episode", "next_observations"
PADDING: dict[str, tuple[str, ...]] = {
    "mask": ("mask", "masks", "valid", "attention_mask"),  # true for steps that are no padding
    "lengths": ("lengths", "length", "episode_lengths", "episode_length"),
}
_ENDS = ("terminals", "timeouts", "dones")
Columns = Mapping[str, tuple[str, ...]]


def is_padded(table: Table, columns: Columns) -> bool:
    """Whether the rewards of a file are (episodes, steps) and its observations (episodes, steps, ...)."""
    if not isinstance(table, NpzTable | HDF5Table) or len(columns["rewards"]) > 1:
        return False
    rewards, observations = (table.shapes[columns[meaning][0]] for meaning in ("rewards", "observations"))
    if len(rewards) == 3 and rewards[2] == 1:
        rewards = rewards[:2]
    return len(rewards) == 2 and rewards[1] > 1 and len(observations) >= 3 and observations[0] == rewards[0]


class PaddedTable(Table):
    """The rows of padded arrays, with a column `episode`; all of them are in memory.

    A mask, lengths or NaN mark the padding. If an episode has one observation more than rewards, that is the
    observation after its last action.

    Args:
        table: table of E episodes of up to T steps.
        columns: column names of the table by meaning, with `mask` and `lengths`, which are empty without padding.

    Attributes:
        columns: column names of the rows by meaning.

    Raises:
        StoreError: when the arrays do not fit one another, or the padding is not marked.
    """

    def __init__(self, table: NpzTable | HDF5Table, columns: Columns) -> None:
        super().__init__(table.file)
        names = [name for each in columns.values() for name in each]
        self._arrays = table.arrays(names)
        self.columns = {meaning: each for meaning, each in columns.items() if meaning not in PADDING}
        rewards = self._arrays[columns["rewards"][0]]
        self._episodes, self._steps = rewards.shape[:2]
        self._split_observations()
        for name, values in self._arrays.items():
            if values.shape[:2] != (self._episodes, self._steps) and values.shape != (self._episodes,):
                sizes = " × ".join(map(str, values.shape))
                wanted = f"{self._episodes} episodes of {self._steps} steps"
                raise StoreError(f"{self.file}: rewards are of {wanted}, but {name} is {sizes}")
        lengths = self._lengths(columns)
        valid = np.arange(self._steps) < lengths[:, None]
        flat: Block = {}
        for meaning, each in self.columns.items():
            for name in each:
                flat[name] = self._flat(meaning, self._arrays[name], lengths, valid)
        if "episode" not in self.columns:
            flat[EPISODE] = np.repeat(np.arange(self._episodes), lengths)
            self.columns["episode"] = (EPISODE,)
        self._arrays = flat
        self.names, self.flags = tuple(flat), frozenset()
        padding = int((~valid).sum())
        told = f"{padding:,} rows of padding are left out" if padding else "there is no padding"
        self.notes = [f"arrays of {self._episodes:,} episodes of up to {self._steps:,} steps, taken apart; {told}"]

    def read(self, names: Sequence[str], text: Collection[str] = ()) -> Iterator[Block]:
        for at in range(0, len(self._arrays[names[0]]), tables.BLOCK):
            yield {name: self._arrays[name][at : at + tables.BLOCK] for name in names}

    def _split_observations(self) -> None:
        """Split T+1 observations of an episode into observations and next observations."""
        (*_, name) = self.columns["observations"]
        values = self._arrays[name]
        if values.shape[1] == self._steps + 1 and "next_observations" not in self.columns:
            self._arrays[name], self._arrays[NEXT] = values[:, :-1], values[:, 1:]
            self.columns["next_observations"] = (NEXT,)

    def _lengths(self, columns: Columns) -> np.ndarray:
        """(E,) steps of each episode."""
        if columns.get("lengths"):
            lengths = self._arrays[columns["lengths"][0]]
            if lengths.shape != (self._episodes,) or not ((lengths >= 0) & (lengths <= self._steps)).all():
                raise StoreError(f"{self.file}: expected lengths of {self._episodes} episodes, 0 to {self._steps} each")
            if (lengths != lengths.astype(np.int64)).any():
                raise StoreError(f"{self.file}: lengths of episodes are not whole numbers")
            return lengths.astype(np.int64)
        if columns.get("mask"):
            mask = self._arrays[columns["mask"][0]].reshape(self._episodes, -1)
            if mask.shape[1] != self._steps or not ((mask == 0) | (mask == 1)).all():
                raise StoreError(f"{self.file}: expected a mask of {self._episodes} × {self._steps} zeros and ones")
            return self._prefix(mask.astype(bool), "the mask")
        rewards = self._arrays[self.columns["rewards"][0]].reshape(self._episodes, self._steps)
        observations = [self._rows_of(name) for name in self.columns["observations"]]
        numbers = [values for values in (rewards[..., None], *observations) if values.dtype.kind == "f"]
        # A step without any observation value, or without a reward, is padding.
        unknown = np.isnan(rewards) if rewards.dtype.kind == "f" else np.zeros(rewards.shape, dtype=bool)
        if len(numbers) == len(observations) + 1:
            unknown |= np.all([np.isnan(values).all(axis=-1) for values in numbers[1:]], axis=0)
        if unknown.any() or "mask" in columns:
            return self._prefix(~unknown, "NaN")
        everything = [rewards[..., None], *observations, *(self._rows_of(name) for name in self.columns["actions"])]
        empty = np.all([(values == 0).all(axis=-1) for values in everything], axis=0)  # (E, T)
        if empty[:, -1].any():
            episode = int(np.argmax(empty[:, -1]))
            raise StoreError(
                f"{self.file}: the last step of episode {episode} is all zero, which looks like padding; say what is, "
                "with --column mask=NAME or --column lengths=NAME, or that there is none, with --column mask="
            )
        return np.full(self._episodes, self._steps)

    def _rows_of(self, name: str) -> np.ndarray:
        return self._arrays[name].reshape(self._episodes, self._steps, -1)

    def _prefix(self, real: np.ndarray, by: str) -> np.ndarray:
        lengths = real.sum(axis=1)
        if (real != (np.arange(self._steps) < lengths[:, None])).any():
            episode = int(np.argmax((real != (np.arange(self._steps) < lengths[:, None])).any(axis=1)))
            raise StoreError(f"{self.file}: episode {episode} goes on after a step that {by} marks as padding")
        return lengths

    def _flat(self, meaning: str, values: np.ndarray, lengths: np.ndarray, valid: np.ndarray) -> np.ndarray:
        if values.shape == (self._episodes,):
            if meaning in _ENDS:  # of the episode: it is that of its last step
                last = (np.arange(self._steps) == lengths[:, None] - 1)[valid]
                return np.where(last, np.repeat(values, lengths), 0)
            if meaning not in ("episode", "split"):
                raise StoreError(f"{self.file}: {meaning} have one value an episode, not one a step")
            return np.repeat(values, lengths)
        return values[valid]
