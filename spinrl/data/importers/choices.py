"""The number of choices of each sub-action. The largest logged value does not tell it: a choice may be unused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import attrs
import numpy as np

from spinrl.data.importers.one_hot import OneHotGroups
from spinrl.data.store.metadata import StoreError
from spinrl.specs import ActionSpec

MOST = 1 << 16  # choices of a sub-action, as stores hold them
Choices = Sequence[int] | Literal["observed"] | None


@attrs.define(eq=False)
class SeenActions:
    """The range of all actions of one or several files, updated block by block with `add`.

    Args:
        choices: given number of choices of each sub-action, which may be the sizes of one-hot vectors.

    Attributes:
        low, high: (N,) smallest and largest value of each sub-action in the file.
        low_at, high_at: file and first row of each of these N values.
        groups: groups of columns of which exactly one is set in every row.
    """

    choices: Choices = None
    low: np.ndarray = attrs.field(factory=lambda: np.zeros(0, dtype=np.int64))
    high: np.ndarray = attrs.field(factory=lambda: np.zeros(0, dtype=np.int64))
    low_at: list[tuple[Path, int]] = attrs.field(factory=list)
    high_at: list[tuple[Path, int]] = attrs.field(factory=list)
    groups: OneHotGroups = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.groups = OneHotGroups(self.choices if self.choices and self.choices != "observed" else ())

    def add(self, file: Path, actions: np.ndarray, row: int) -> None:
        """Add (B, n) actions of a file from `row` on.

        Raises:
            StoreError: for rows of different lengths.
        """
        self.groups.add(actions)
        if not len(self.low):
            self.low, self.high = actions[0], actions[0]
            self.low_at = self.high_at = [(file, row)] * len(self.low)
        if actions.shape[1] != len(self.low):
            raise StoreError(f"{file}: actions have {len(self.low)} entries, but {actions.shape[1]} in row {row}")
        columns, least, most = np.arange(len(self.low)), actions.argmin(axis=0), actions.argmax(axis=0)
        lower, higher = actions[least, columns] < self.low, actions[most, columns] > self.high
        self.low_at = [(file, row + int(least[i])) if lower[i] else at for i, at in enumerate(self.low_at)]
        self.high_at = [(file, row + int(most[i])) if higher[i] else at for i, at in enumerate(self.high_at)]
        self.low = np.minimum(self.low, actions[least, columns])
        self.high = np.maximum(self.high, actions[most, columns])


def decide_choices(
    what: object, seen: SeenActions, choices: Choices, offset: Sequence[int] = (0,), names: Sequence[str] = ()
) -> tuple[ActionSpec, np.ndarray]:
    """The sub-actions with their choices, and the number of each one's first choice.

    Args:
        what: name of the data, for messages.
        seen: range of the logged actions.
        choices: number of choices of each sub-action, or one number for all; "observed" takes the largest value seen
            as the last choice.
        offset: number of each sub-action's first choice in the file, or one number for all.
        names: names of the sub-actions' columns, if each has its own.

    Returns:
        The sub-actions, and (N,) int64 to subtract from the file's actions.

    Raises:
        StoreError: when choices are not given, or do not fit the actions.
    """
    count = len(seen.high)
    if len(offset) not in (1, count):
        raise StoreError(f"{what} has {count} sub-actions, --action-offset gives {len(offset)}")
    start = np.broadcast_to(np.array(offset, dtype=np.int64), (count,))
    hint = _hint(seen, start)
    called = [f" (column {name})" for name in names] if len(names) == count else [""] * count
    nvec = _numbers(what, seen, choices, start, called, hint)
    spec = action_spec(what, nvec)
    _check_range(seen, start, nvec, called, hint)
    return spec, np.array(start)


def _numbers(
    what: object, seen: SeenActions, choices: Choices, start: np.ndarray, called: Sequence[str], hint: str
) -> list[int]:
    """The number of choices of each sub-action, as it was given or as it was seen; refused where one is missing."""
    count = len(start)
    if choices and choices != "observed" and seen.groups.told_fit:
        told = "+".join(map(str, choices))
        raise StoreError(
            f"{what} has {count} columns of actions, which are {told}, and exactly one of each group is set: they are "
            f"one-hot; give --one-hot {','.join(map(str, choices))} in place of --choices"
        )
    if choices is None:
        largest = seen.high - start
        raise StoreError(
            f"{what} does not say how many choices each sub-action has; the largest values seen are "
            f"{_listed(largest)}: give --choices {_least(largest)}, or more where some were never "
            f"taken, or --choices observed{hint}{seen.groups.hint()}"
        )
    if choices == "observed":
        nvec = [int(value) + 1 for value in seen.high - start]
        if constant := [i for i, least in enumerate(nvec) if least < 2]:
            i = constant[0]
            raise StoreError(
                f"{what}: sub-action {i}{called[i]} never takes a second choice; give --choices with those it has "
                f"(1 if there is no other){hint}"
            )
        return nvec
    nvec = [int(each) for each in choices] * (count if len(choices) == 1 else 1)
    if len(nvec) != count:
        raise StoreError(f"{what} has {count} sub-actions, --choices gives {len(nvec)}{seen.groups.hint()}")
    if few := [i for i, each in enumerate(nvec) if each < 1]:
        raise StoreError(
            f"{what}: expected at least 1 choice of sub-action {few[0]}{called[few[0]]}, got {nvec[few[0]]}"
        )
    return nvec


def _check_range(seen: SeenActions, start: np.ndarray, nvec: Sequence[int], called: Sequence[str], hint: str) -> None:
    """Refuse actions outside their sub-action's choices, naming file and row."""
    for values, at, wrong in (
        (seen.low, seen.low_at, seen.low < start),
        (seen.high, seen.high_at, seen.high - start >= np.array(nvec)),
    ):
        for i in np.flatnonzero(wrong)[:1].tolist():
            file, row = at[i]
            raise StoreError(
                f"{file}: expected {start[i]} to {start[i] + nvec[i] - 1} for sub-action {i}{called[i]}, found "
                f"{values[i]} in row {row}{hint}"
            )


def _hint(seen: SeenActions, start: np.ndarray) -> str:
    """The options to give if sub-actions count from the smallest value that was seen."""
    if ((seen.low == start) | (seen.low == 0)).all() and (seen.low >= start).all():
        return ""
    offset = [int(seen.low[0])] if len(set(seen.low.tolist())) == 1 else seen.low.tolist()
    if len(set(seen.low.tolist())) == 1:
        return (
            f"; if the first choice is called {offset[0]}, give --choices {_least(seen.high - seen.low)} "
            f"--action-offset{'=' if offset[0] < 0 else ' '}{offset[0]}"
        )
    return (
        f"; if the first choices are called {_listed(offset)}, give --choices {_least(seen.high - seen.low)} "
        f"--action-offset={_listed(offset)}"
    )


def _listed(values: Iterable[int] | np.ndarray) -> str:
    return ",".join(str(int(value)) for value in values)


def _least(largest: np.ndarray) -> str:
    """The smallest numbers of choices that hold these values, as text of the option."""
    return _listed(np.maximum(largest + 1, 2))


def action_spec(what: object, nvec: Sequence[int]) -> ActionSpec:
    """The `ActionSpec` of sub-actions with these choices.

    Raises:
        StoreError: when no sub-action has two choices, or one has more than 65536.
    """
    if max(nvec, default=1) < 2:
        raise StoreError(f"{what}: no sub-action has a second choice, so nothing is decided; found {list(nvec)}")
    try:
        spec = ActionSpec(nvec)
    except ValueError as error:
        raise StoreError(f"{what}: {error}") from None
    if spec.max_choices > MOST:
        raise StoreError(f"{what}: a sub-action has {spec.max_choices} choices, more than {MOST}")
    return spec


def bins_of(spec: ActionSpec) -> int | None:
    """The number of choices if it is the same for every sub-action, else None."""
    return spec.max_choices if len(set(spec.nvec)) == 1 else None
