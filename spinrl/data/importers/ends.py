"""The ends of a file's episodes, and whether each is by the task or by a time limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs
import numpy as np

from spinrl.data.importers.arrays import Columns
from spinrl.data.store.metadata import StoreError

Kind = Literal["terminal", "timeout"]


@attrs.frozen(kw_only=True)
class Ends:
    """The rules that end an episode.

    Attributes:
        dones: kind of end of a done that neither terminals nor timeouts explain.
        unmarked: kind of end without a mark: a change of the episode column, or the last row.
        by_column: whether an episode column separates the episodes.
        length: steps after which an episode ends at the latest, or None.
        steps: names of the columns whose values rise within an episode.
    """

    dones: Kind = "timeout"
    unmarked: Kind = "timeout"
    by_column: bool = False
    length: int | None = None
    steps: Sequence[str] = ()

    def marks(self, rows: Columns) -> tuple[np.ndarray, np.ndarray]:
        """(B,) bool each: rows marked as ended by the task, and by a time limit."""
        nothing = np.zeros(len(rows), dtype=bool)
        terminated = nothing if rows.terminals is None else rows.terminals
        truncated = nothing if rows.timeouts is None else rows.timeouts
        if rows.dones is not None:
            rest = rows.dones & ~terminated & ~truncated
            if self.dones == "terminal":
                terminated = terminated | rest
            else:
                truncated = truncated | rest
        return terminated, truncated

    def rows(self, rows: Columns, marked: np.ndarray) -> list[int]:
        """The last row of every episode that is known to end within `rows`; `rows` begin with an episode.

        Raises:
            StoreError: when an end is marked within an episode of the episode column.
        """
        ends = np.flatnonzero(marked)
        if self.by_column:
            assert rows.episode is not None
            change = rows.episode[1:] != rows.episode[:-1]
            if (within := np.flatnonzero(marked[:-1] & ~change)).size:
                at = int(within[0])
                raise StoreError(
                    f"row {rows.first_row + at} is marked as the end of an episode, but episode {rows.episode[at]} "
                    "goes on after it; leave one of the two out, e.g. with --column episode=; if the rows are in no "
                    "order, give --step-column NAME to sort them"
                )
            ends = np.flatnonzero(change)  # where the last one ends, the next block tells
        if self.length is None:
            return ends.tolist()
        made, start = [], 0
        for end in [*ends.tolist(), len(rows)]:
            made += [*range(start + self.length - 1, end, self.length), end]
            start = end + 1
        return made[:-1]  # the last one stands for rows that go on


def decide_ends(
    what: object, columns: Mapping[str, Sequence[str]], ends: Kind | None, length: int | None
) -> tuple[Ends, list[str]]:
    """The rules that end an episode, and lines that describe them.

    Args:
        what: name of the file, for messages.
        columns: columns of the file, by meaning.
        ends: kind of the ends that the file does not explain, or None.
        length: steps after which an episode ends at the latest, or None.

    Raises:
        StoreError: when file and options leave an end open or contradict each other.
    """
    has = {name for name in ("terminals", "timeouts", "dones", "episode") if name in columns}
    if not has and length is None:
        raise StoreError(
            f"{what} does not say where episodes end (no terminals, timeouts, dones or episode column); give "
            "--episode-column NAME, or --episode-length STEPS (1, where every row stands for itself)"
        )
    if length is not None and length < 1:
        raise StoreError(f"--episode-length: expected at least 1 step, got {length}")
    if length is not None and "episode" in has:
        raise StoreError(
            f"{what} has an episode column; leave out --episode-length, or the column with --column episode="
        )
    alone = _alone(has) if length is None and "next_observations" not in columns else None
    if alone is not None and ends != alone:
        told = "ends by the task" if alone == "terminal" else "time limits"
        raise StoreError(
            f"{what} marks {told} alone, and without next observations nothing shows whether episodes ended elsewhere "
            f"too; give --ends {alone} if that is how they all end, --episode-column NAME, or --episode-length STEPS "
            "after which they were cut"
        )
    explained = "terminals" in has or {"dones", "timeouts"} <= has
    left_open = alone is not None or "dones" in has or "episode" in has or length is not None
    if ends is None and not explained and left_open:
        by = " and ".join([*sorted(has - {"timeouts"}), *(["--episode-length"] if length is not None else [])])
        raise StoreError(
            f"{what} does not say whether an end by {by} is one by the task or by a time limit; give --ends terminal "
            "(nothing lies beyond) or --ends timeout (it would have gone on)"
        )
    if ends is not None and alone is None and (explained or not left_open):
        raise StoreError(f"{what} says itself how episodes end ({', '.join(sorted(has))}); leave out --ends")
    # Of dones and timeouts together, a done without a timeout is an end by the task.
    dones: Kind = ends or ("timeout" if "terminals" in has else "terminal")
    # If dones or terminals mark the ends by the task, every other end is a time limit.
    unmarked: Kind = "timeout" if explained or "dones" in has else ends or "timeout"
    notes = [f"episodes end by: {', '.join([*sorted(has), *([f'{length} steps at most'] if length else [])])}"]
    if ends is not None:
        notes.append(f"they end by {'the task' if ends == 'terminal' else 'a time limit'} (--ends {ends})")
    elif _alone(has) and length is None:
        notes.append("there are no others: at every other row the next observation is that of the next row")
    made = Ends(
        dones=dones, unmarked=unmarked, by_column="episode" in has, length=length, steps=columns.get("step", ())
    )
    return made, notes


def _alone(has: set[str]) -> Kind | None:
    """The kind of end that is marked if ends of the other kind would be invisible, else None."""
    if has == {"terminals"}:
        return "terminal"
    return "timeout" if has == {"timeouts"} else None
