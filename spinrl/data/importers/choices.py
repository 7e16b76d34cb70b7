"""How many choices each sub-action has. The largest value that was logged is not an answer: a choice may be unused."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import attrs
import numpy as np

from spinrl.data.importers.arrays import Arrays
from spinrl.data.store.metadata import StoreError
from spinrl.specs import ActionSpec

MOST = 1 << 16  # choices of a sub-action, as stores hold them
Choices = Sequence[int] | Literal["observed"] | None


@attrs.frozen(eq=False)
class SeenActions:
    """The range of all actions of a file.

    Attributes:
        low, high: (N,) smallest and largest value of each sub-action, as they stand in the file.
        low_row, high_row: (N,) the first row that has it.
    """

    low: np.ndarray
    high: np.ndarray
    low_row: np.ndarray
    high_row: np.ndarray

    @classmethod
    def of(cls, arrays: Arrays) -> SeenActions:
        """Read the actions once.

        Raises:
            StoreError: for values that are no whole numbers, and rows of different lengths.
        """
        _, blocks = arrays.blocks("actions")
        first = next(blocks)
        low = high = first["actions"][0]
        low_row = high_row = np.zeros(len(low), dtype=np.int64)
        row = 0
        for block in itertools.chain([first], blocks):
            actions = block["actions"]
            if actions.shape[1] != len(low):
                raise StoreError(f"{arrays.file}: actions have {len(low)} entries, but {actions.shape[1]} in row {row}")
            columns = np.arange(len(low))
            at = actions.argmin(axis=0)
            low_row = np.where(actions[at, columns] < low, row + at, low_row)
            low = np.minimum(low, actions[at, columns])
            at = actions.argmax(axis=0)
            high_row = np.where(actions[at, columns] > high, row + at, high_row)
            high = np.maximum(high, actions[at, columns])
            row += len(actions)
        return cls(low, high, low_row, high_row)


def decide_choices(what: object, seen: SeenActions, choices: Choices, offset: int) -> ActionSpec:
    """The choices of each sub-action.

    Args:
        what: is being imported, for messages.
        seen: the actions that there are.
        choices: of each sub-action, or one number for all; "observed" takes the largest value seen for the last one.
        offset: what the first choice is called in the file.

    Raises:
        StoreError: when choices are not given, or do not fit the actions.
    """
    num_sub_actions, largest = len(seen.high), seen.high - offset
    start = int(seen.low.min())
    hint = ""
    if start not in (0, offset):
        hint = f"; if the first choice is called {start}, give --choices {_least(seen.high - start)} "
        hint += f"--action-offset {start}"
    if choices is None:
        raise StoreError(
            f"{what} does not say how many choices each sub-action has; the largest values seen are "
            f"{','.join(map(str, largest.tolist()))}: give --choices {_least(largest)}, or more where some were never "
            f"taken, or --choices observed{hint}"
        )
    if choices == "observed":
        if constant := np.flatnonzero(largest < 1).tolist():
            raise StoreError(
                f"{what}: sub-action {constant[0]} never takes a second choice; give --choices with those it has{hint}"
            )
        nvec = [int(value) + 1 for value in largest]
    else:
        nvec = [int(each) for each in choices] * (num_sub_actions if len(choices) == 1 else 1)
    if len(nvec) != num_sub_actions:
        raise StoreError(f"{what} has {num_sub_actions} sub-actions, --choices gives {len(nvec)}")
    spec = action_spec(what, nvec)
    for value, row, wrong in (
        (seen.low, seen.low_row, seen.low < offset),
        (seen.high, seen.high_row, largest >= np.array(nvec)),
    ):
        for at in np.flatnonzero(wrong)[:1].tolist():
            wanted = f"{offset} to {offset + nvec[at] - 1}"
            raise StoreError(f"{what}: sub-action {at} wants {wanted}, got {value[at]} in row {row[at]}{hint}")
    return spec


def _least(largest: np.ndarray) -> str:
    """The fewest choices that hold these values, as the option is written."""
    return ",".join(str(max(int(value) + 1, 2)) for value in largest)


def action_spec(what: object, nvec: Sequence[int]) -> ActionSpec:
    """A joint action that a store can hold.

    Raises:
        StoreError: for fewer than two or more than 65536 choices.
    """
    try:
        spec = ActionSpec(nvec)
    except ValueError as error:
        raise StoreError(f"{what}: {error}") from None
    if spec.max_choices > MOST:
        raise StoreError(f"{what}: a sub-action has {spec.max_choices} choices, more than {MOST}")
    return spec


def bins_of(spec: ActionSpec) -> int | None:
    """The choices of every sub-action, or None where they differ."""
    return spec.max_choices if len(set(spec.nvec)) == 1 else None
