"""Rows of a file as whole episodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from spinrl.data.importers.arrays import Columns
from spinrl.data.importers.ends import Ends
from spinrl.data.store.metadata import StoreError
from spinrl.data.store.store import Episode


class Episodes:
    """Cuts rows into episodes, once.

    A row holds the observation that its action was taken in. What the last action of an episode led to is known only
    from next observations. Without them, an episode that the task ended repeats its last observation there, since no
    value beyond it is ever asked for; of one that was cut off, such a value is asked for, so its last row gives the
    next observation of the row before it and is itself left out.

    Args:
        what: is being imported, for messages.
        blocks: consecutive rows.
        ends: what ends an episode.
        offset: what the first choice is called in the file.

    Attributes:
        dropped: rows that were left out so far.
        repeated: episodes whose last observation was repeated.
        unfinished: whether the file ends within an episode.
        limits: time limits with a next observation, and with an episode after them.
        continued: how many of those next observations equal the first one of the episode after them.
    """

    def __init__(self, what: object, blocks: Iterable[Columns], ends: Ends, offset: int = 0) -> None:
        self._what = what
        self._blocks = blocks
        self._ends = ends
        self._offset = offset
        self._finished: set[object] = set()  # names in the episode column
        self.dropped = self.repeated = self.limits = self.continued = 0
        self.unfinished = False

    def __iter__(self) -> Iterator[Episode]:
        rows: Columns | None = None
        ended = False
        for block in self._blocks:
            rows = block if rows is None else rows + block
            marks, start = self._ends.marks(rows), 0
            for end in self._last_rows(rows, marks[0] | marks[1]):
                by_task, by_limit = self._kind(*marks, end)
                self._count_continued(rows, end, by_task)
                yield from self._closed(rows[start : end + 1], by_task, by_limit)
                start, ended = end + 1, True
            rows = rows[start:]
        if rows is None or not len(rows):
            return
        if self._ends.by_column:  # whose last episode is one, though none follows
            yield from self._closed(rows, *self._kind(*self._ends.marks(rows), len(rows) - 1))
        elif ended or self._ends.length is not None:
            self.unfinished = True
            yield from self._made(rows, False, True)
        else:
            raise StoreError(
                f"{self._what} marks no end of an episode; give --episode-length STEPS, {rows.first_row + len(rows)} "
                "where it is a single one"
            )

    def _last_rows(self, rows: Columns, marked: np.ndarray) -> list[int]:
        try:
            return self._ends.rows(rows, marked)
        except StoreError as error:
            raise StoreError(f"{self._what}: {error}") from None

    def _kind(self, terminated: np.ndarray, truncated: np.ndarray, end: int) -> tuple[bool, bool]:
        """Whether an episode was ended by the task, and whether by a time limit."""
        if terminated[end] or truncated[end]:
            return bool(terminated[end]), bool(truncated[end])
        return self._ends.unmarked == "terminal", self._ends.unmarked == "timeout"

    def _count_continued(self, rows: Columns, end: int, terminated: bool) -> None:
        if rows.next_observations is not None and not terminated and end + 1 < len(rows):
            self.limits += 1
            self.continued += bool((rows.next_observations[end] == rows.observations[end + 1]).all())

    def _closed(self, rows: Columns, terminated: bool, truncated: bool) -> Iterator[Episode]:
        """An episode that has come to its end."""
        if self._ends.by_column:
            assert rows.episode is not None
            name = rows.episode[0].item()
            if name in self._finished:
                raise StoreError(
                    f"{self._what}: row {rows.first_row} goes on with episode {name} after another one; "
                    "sort the rows by episode and step"
                )
            self._finished.add(name)
        return self._made(rows, terminated, truncated)

    def _made(self, rows: Columns, terminated: bool, truncated: bool) -> Iterator[Episode]:
        observations, length = rows.observations, len(rows)
        if rows.next_observations is not None:
            self._check_continuity(rows)
            observations = np.concatenate([observations, rows.next_observations[-1:]])
        elif terminated:
            observations = np.concatenate([observations, observations[-1:]])
            self.repeated += 1
        else:
            length -= 1
            self.dropped += 1
        if length:
            last = np.arange(length) == length - 1
            yield Episode(
                observations=observations,
                actions=rows.actions[:length] - self._offset,
                rewards=rows.rewards[:length],
                terminated=last & terminated,
                truncated=last & truncated,
            )

    def _check_continuity(self, rows: Columns) -> None:
        assert rows.next_observations is not None
        broken = (rows.next_observations[:-1] != rows.observations[1:]).any(axis=1)
        if broken.any():
            row = rows.first_row + int(np.argmax(broken))
            raise StoreError(
                f"{self._what}: the next observation of row {row} is not the observation of row {row + 1}, though no "
                "episode ends there; if one does, mark it in a column of terminals or timeouts; "
                "if rows are in no order, --episode-length 1 keeps each by itself"
            )

    def notes(self) -> list[str]:
        """What was done, in words; complete after the last episode."""
        made = []
        if self.unfinished:
            made.append("the file ends within an episode, which is stored as cut off there")
        if self.repeated:
            made.append(f"{self.repeated:,} episodes that the task ended repeat their last observation (never used)")
        if self.dropped:
            made.append(
                f"{self.dropped:,} rows were left out, the last of each cut-off episode: what they led to is unknown"
            )
        if self.limits and self.continued == self.limits:
            made.append(
                f"at all {self.limits:,} time limits the next observation is the first of the following episode: right "
                "where the stream went on, wrong where it was reset (then leave them out: --column next_observations=)"
            )
        return made
