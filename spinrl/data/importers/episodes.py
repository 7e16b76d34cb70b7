"""Cuts the rows of a file into episodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from spinrl.data.importers.arrays import Columns
from spinrl.data.importers.ends import Ends
from spinrl.data.importers.masks import allowed_choices
from spinrl.data.importers.tally import ROUNDING, Tally
from spinrl.data.store.metadata import StoreError
from spinrl.data.store.store import Episode
from spinrl.specs import ActionSpec


class Episodes:
    """Cuts rows into episodes, once.

    A row holds the observation in which its action was taken. The observation after the last action of an episode is
    known only from next observations. Without them, an episode that the task ended repeats its last observation, whose
    value is never used. In an episode that was cut off the value is used: its last row gives the next observation of
    the row before it, and is itself left out.

    Args:
        what: name of the data, for messages.
        blocks: consecutive rows.
        ends: rules that end an episode.
        spec: sub-actions with their choices.
        start: (N,) number of each sub-action's first choice in the file.
        source: index of the source of the episodes.
        splits: names of the sources in order, if a column names that of each episode; replaces `source`.
        tally: counts to which changes of rows are added.
    """

    def __init__(
        self,
        what: object,
        blocks: Iterable[Columns],
        ends: Ends,
        spec: ActionSpec,
        start: np.ndarray,
        *,
        source: int = 0,
        splits: Sequence[str] = (),
        tally: Tally | None = None,
    ) -> None:
        self._what = what
        self._blocks = blocks
        self._ends = ends
        self._spec, self._start, self._source, self._splits = spec, start, source, splits
        self._finished: set[object] = set()  # names in the episode column
        self.tally = tally or Tally()

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
        if self._ends.by_column:  # the last rows are an episode even though no other follows
            yield from self._closed(rows, *self._kind(*self._ends.marks(rows), len(rows) - 1))
        elif ended or self._ends.length is not None:
            self.tally.unfinished += 1
            yield from self._complete(rows, False, True)
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
            self.tally.limits += 1
            self.tally.continued += bool((rows.next_observations[end] == rows.observations[end + 1]).all())

    def _closed(self, rows: Columns, terminated: bool, truncated: bool) -> Iterator[Episode]:
        """Yield an ended episode, or its complete stretches."""
        if self._ends.by_column:
            assert rows.episode is not None
            name = rows.episode[0].item()
            if name in self._finished:
                raise StoreError(
                    f"{self._what}: row {rows.first_row} goes on with episode {name} after another one; sort the rows "
                    "by episode and step, or let --step-column NAME do it"
                )
            self._finished.add(name)
        return self._complete(rows, terminated, truncated)

    def _complete(self, rows: Columns, terminated: bool, truncated: bool) -> Iterator[Episode]:
        """The stretches of an episode without missing numbers; each but the last one is cut off."""
        self._check_steps(rows)
        if rows.split is not None:
            self._source = self._splits.index(self._split_of(rows, rows.split))
        self.tally.reward += float(np.abs(rows.rewards, dtype=np.float64).sum())
        if rows.missing is None or not rows.missing.any():
            yield from self._made(rows, terminated, truncated)
            return
        self.tally.incomplete += int(rows.missing.sum())
        self.tally.incomplete_reward += float(np.abs(rows.rewards[rows.missing], dtype=np.float64).sum())
        ends = np.flatnonzero(np.diff(np.concatenate([[True], rows.missing, [True]]).astype(np.int8)))
        for start, end in ends.reshape(-1, 2).tolist():
            last = end == len(rows)
            self.tally.cuts += not last
            yield from self._made(rows[start:end], terminated and last, truncated or not last)

    def _made(self, rows: Columns, terminated: bool, truncated: bool) -> Iterator[Episode]:
        observations, length = rows.observations, len(rows)
        if rows.next_observations is not None:
            self._check_continuity(rows)
            observations = np.concatenate([observations, rows.next_observations[-1:]])
        elif terminated:
            observations = np.concatenate([observations, observations[-1:]])
            self.tally.repeated += 1
        else:
            length -= 1
            self.tally.dropped += 1
            self.tally.whole += not length
            self.tally.dropped_reward += abs(float(rows.rewards[-1]))
        if not length:
            return
        last = np.arange(length) == length - 1
        actions = rows.actions[:length] - self._start
        propensity = None if rows.propensities is None else rows.propensities[:length]
        if propensity is not None and propensity.shape[1] == 1:
            propensity = propensity[:, 0]
        yield Episode(
            observations=observations,
            actions=actions,
            rewards=rows.rewards[:length],
            terminated=last & terminated,
            truncated=last & truncated,
            source=self._source,
            allowed=allowed_choices(rows, actions, self._spec, self._what, terminated=terminated),
            propensity=propensity,
        )

    def _split_of(self, rows: Columns, names: np.ndarray) -> str:
        if (other := np.flatnonzero(names != names[0])).size:
            at = int(other[0])
            raise StoreError(
                f"{self._what}: rows {rows.first_row} and {rows.first_row + at} of one episode are of different "
                f"splits, {names[0]} and {names[at]}; put whole episodes into a split, mark the end of the episode, or "
                "ignore the column with --column split="
            )
        return str(names[0])

    def _check_steps(self, rows: Columns) -> None:
        """Refuse rows whose steps fall, which are out of order; count rows where steps seem to be missing."""
        if rows.step is None or len(rows) < 2:
            return
        rise = np.diff(rows.step, axis=0)  # (L-1, n)
        if (rise < 0).any():
            at, column = (int(index) for index in np.argwhere(rise < 0)[0])
            one, other = (f"{rows.step[k, column]:.15g}" for k in (at, at + 1))
            row, name = rows.first_row + at, self._ends.steps[column]
            raise StoreError(
                f"{self._what}: column {name} falls from {one} to {other} between rows {row} and {row + 1} of one "
                f"episode; if the rows are in no order, give --step-column {name} to sort them; if an episode ends "
                "there, mark it; if that column is no step, give --column step="
            )
        whole = rise[:, 0]
        if (whole == np.floor(whole)).all() and (commonest := np.median(whole)) >= 1 and (whole > commonest).any():
            if not self.tally.gaps:
                at = int(np.argmax(whole > commonest))
                self.tally.first_gap = (
                    f"first from {rows.step[at, 0]:g} to {rows.step[at + 1, 0]:g}, in row {rows.first_row + at + 1}"
                )
            self.tally.gaps += int((whole > commonest).sum())

    def _check_continuity(self, rows: Columns) -> None:
        assert rows.next_observations is not None
        following, observed = rows.next_observations[:-1], rows.observations[1:]
        different = following != observed
        if not different.any():
            return
        scale = np.maximum(np.abs(rows.observations), np.abs(rows.next_observations)).max(axis=0)
        apart = np.abs(following.astype(np.float64) - observed)
        broken = (different & (apart > ROUNDING * scale)).any(axis=1)
        if broken.any():
            row = rows.first_row + int(np.argmax(broken))
            raise StoreError(
                f"{self._what}: the next observation of row {row} is not the observation of row {row + 1}, though no "
                "episode ends there; if one does, mark it in a column of terminals or timeouts; "
                "if rows are in no order, give --step-column NAME, or --episode-length 1, which keeps each by itself"
            )
        self.tally.rounded += int(different.any(axis=1).sum())
