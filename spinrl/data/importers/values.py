"""Checked values of columns; a value that is not a plain number is refused by column and row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs
import numpy as np

from spinrl.data.importers.meanings import SEVERAL
from spinrl.data.importers.one_hot import decode
from spinrl.data.importers.tables import Block
from spinrl.data.store.metadata import StoreError
from spinrl.data.store.validate import not_finite

Missing = Literal["mean", "zero", "drop"]
MISSING: tuple[Missing, ...] = ("mean", "zero", "drop")
_NAMING = ("episode", "step", "split")  # meanings whose columns may hold text or dates
_EXACT = 2.0**53  # beyond it, floats cannot hold every whole number


@attrs.define(eq=False)
class Values:
    """Turns blocks of columns into arrays by meaning.

    Args:
        file: file of the columns, for messages.
        columns: column names by meaning.
        missing: treatment of missing numbers in observations; None refuses them.
        one_hot: number of choices of each sub-action, if actions are one-hot vectors.

    Attributes:
        means: (S,) float64 means of the observations, used if `missing` is "mean".
        float_actions, float_episodes: whether whole numbers were stored as floats; valid after reading.
        filled: count of numbers that were filled in so far.
        coarse: first column by meaning whose values single precision cannot distinguish; valid after reading.
    """

    file: Path
    columns: Mapping[str, tuple[str, ...]]
    missing: Missing | None = None
    one_hot: Sequence[int] = ()
    means: np.ndarray | None = None
    float_actions: bool = False
    float_episodes: bool = False
    filled: int = 0
    coarse: dict[str, str] = attrs.field(factory=dict)

    def of(self, meanings: Sequence[str], block: Block, row: int) -> Block:
        """The arrays of a block that begins at `row`, with `missing` if rows are to be dropped.

        Raises:
            StoreError: for a wrong value; the message names column and row.
        """
        made: Block = {}
        gaps = np.zeros(len(next(iter(block.values()))), dtype=bool)
        for meaning in meanings:
            together, entries = self._together(meaning, block, row)
            if meaning in ("terminals", "timeouts", "dones"):
                self._refuse((together != 0) & (together != 1), together, entries, row, "0 or 1")
                made[meaning] = together[:, 0].astype(bool)
            elif meaning in ("allowed", "next_allowed"):
                self._refuse((together != 0) & (together != 1), together, entries, row, "0 or 1, for each choice")
                made[meaning] = together.astype(bool)
            elif meaning == "episode":
                made[meaning] = self._episodes(together, entries, row)
            elif meaning == "split":
                made[meaning] = self._names(together, entries, row, "the name of a split").astype(str)
            elif meaning == "step":
                made[meaning] = self._steps(together, entries, row)
            else:
                if self.missing == "drop" and together.dtype.kind == "f":
                    gap = np.isnan(together)
                    gaps |= gap.any(axis=1)
                    together = np.where(gap, 0, together)
                if meaning == "actions":
                    made[meaning] = self._actions(together, entries, row)
                else:
                    made[meaning] = self._numbers(meaning, together, entries, row)
        return made | ({"missing": gaps} if self.missing == "drop" else {})

    def plain(self, meaning: str, block: Block, row: int) -> np.ndarray:
        """(B, n) values of a meaning's columns side by side, as they are in the file."""
        return self._together(meaning, block, row)[0]

    def _together(self, meaning: str, block: Block, row: int) -> tuple[np.ndarray, list[str]]:
        """(B, n) values of a meaning's columns side by side, and the name of each of the n for messages."""
        names = self.columns[meaning]
        parts, entries = [], []
        for name in names:
            values = block[name]
            if 0 in values.shape[1:]:
                raise StoreError(f"{self.file}: column {name} has no entries in a row")
            if meaning == "actions" and not self.one_hot and sum(size > 1 for size in values.shape[1:]) > 1:
                each = ",".join([str(values.shape[-1])] * int(np.prod(values.shape[1:-1])))
                found = " × ".join(map(str, values.shape[1:]))
                raise StoreError(
                    f"{self.file}: expected one number a sub-action in {name}, found {found} a row; if these are "
                    f"one-hot vectors, give --one-hot {each}"
                )
            if values.dtype.kind in "Mm" and meaning == "step":
                values = np.where(np.isnat(values), np.nan, values.astype("int64").astype(np.float64))
            elif values.dtype.kind in "SUMm" and meaning not in _NAMING:
                what = "dates" if values.dtype.kind in "Mm" else "text"
                raise StoreError(
                    f"{self.file}: column {name}, given for {meaning}, holds {what} ({values.ravel()[0]!s:.40} in row "
                    f"{row}); encode it as numbers, or leave it out"
                )
            parts.append(values.reshape(len(values), -1))
            width = parts[-1].shape[1]
            entries += [name] if width == 1 else [f"{name}, entry {entry}" for entry in range(width)]
        together = np.concatenate(parts, axis=1)
        if meaning not in (*SEVERAL, "step") and together.shape[1] != 1:
            raise StoreError(f"{self.file}: expected one value a row for {meaning}, found {together.shape[1]}")
        return together, entries

    def _numbers(self, meaning: str, values: np.ndarray, entries: list[str], row: int) -> np.ndarray:
        """(B, n) float32, or (B,) for a meaning with one value per row."""
        if values.dtype.kind == "f" and (gap := np.isnan(values)).any():
            if self.missing in (None, "drop") or meaning not in ("observations", "next_observations"):
                at, entry = (int(index) for index in np.argwhere(gap)[0])
                options = "mean, zero or drop" if meaning.endswith("observations") else "drop"
                if meaning == "next_observations":
                    options += "; where the next row has them, --column next_observations= leaves these out"
                lacking = int(gap.any(axis=1).sum())
                raise StoreError(
                    f"{self.file}: {entries[entry]} has no value (nan) in row {row + at}; {lacking:,} of {len(gap):,} "
                    f"rows lack one; fill it in, or give --missing {options}"
                )
            fill = self.means if self.missing == "mean" else None
            if fill is not None and len(fill) != values.shape[1]:
                raise StoreError(f"{self.file}: {meaning} have {values.shape[1]} entries, others have {len(fill)}")
            values = np.where(gap, 0.0 if fill is None else fill, values)
            self.filled += int(gap.sum())
        self._refuse(not_finite(values), values, entries, row, "a number that single precision holds")
        if meaning == "propensities":
            self._refuse((values <= 0) | (values > 1), values, entries, row, "a probability above 0 and at most 1")
        single = values.astype(np.float32)
        # E.g. a time stamp, whose differences are lost in single precision.
        if values.dtype.itemsize > single.dtype.itemsize:
            exact = values.astype(np.float64)
            lost, spread = np.abs(exact - single).max(axis=0), np.ptp(exact, axis=0)
            if (coarse := np.flatnonzero((lost > 1e-3 * spread) & (spread > 0))).size:
                self.coarse.setdefault(meaning, entries[int(coarse[0])])
        return single if meaning in SEVERAL else single[:, 0]

    def _actions(self, values: np.ndarray, entries: list[str], row: int) -> np.ndarray:
        """(B, N) int64 actions."""
        if values.dtype.kind == "f":
            self.float_actions = True
            with np.errstate(invalid="ignore"):
                bad = ~((values == np.floor(values)) & (np.abs(values) < _EXACT))
            wanted = "a whole number, the index of a choice (make choices of continuous actions first)"
            self._refuse(bad, values, entries, row, wanted)
        actions = values.astype(np.int64)
        return decode(actions, self.one_hot, f"{self.file}", row) if self.one_hot else actions

    def _episodes(self, values: np.ndarray, entries: list[str], row: int) -> np.ndarray:
        """(B,) integers or text."""
        self.float_episodes |= values.dtype.kind == "f"
        return self._names(values, entries, row, "the name of an episode")

    def _names(self, values: np.ndarray, entries: list[str], row: int, of: str) -> np.ndarray:
        """(B,) integers or text; whole numbers that are stored as floats become integers."""
        if values.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                bad = ~((values == np.floor(values)) & (np.abs(values) < _EXACT))
            self._refuse(bad, values, entries, row, f"a whole number or text, {of}")
            values = values.astype(np.int64)
        return values[:, 0]

    def _steps(self, values: np.ndarray, entries: list[str], row: int) -> np.ndarray:
        """(B, n) float64; dates that are text become numbers."""
        if values.dtype.kind in "SU":
            try:
                dates = values.astype(str).astype("datetime64[ns]")
            except ValueError:
                raise StoreError(
                    f"{self.file}: expected numbers or dates (such as 2024-01-31T08:00) in {entries[0]}, found "
                    f"{values[0, 0]!s:.40} in row {row}; if it is no step, give --column step="
                ) from None
            values = dates.astype(np.int64)
        steps = values.astype(np.float64)
        self._refuse(np.isnan(steps), steps, entries, row, "a number or a date in every row")
        return steps

    def _refuse(self, bad: np.ndarray, values: np.ndarray, entries: list[str], row: int, wanted: str) -> None:
        if bad.any():
            at, entry = (int(index) for index in np.argwhere(bad)[0])
            raise StoreError(
                f"{self.file}: expected {wanted} in {entries[entry]}, found {values[at, entry]} in row {row + at}"
            )
