"""Actions as concatenated one-hot vectors, with a column for every choice of every sub-action."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from spinrl.data.store.metadata import StoreError

_MOST = 4096  # most columns of a one-hot action


def decode(actions: np.ndarray, one_hot: Sequence[int], what: str, row: int) -> np.ndarray:
    """The choice of each sub-action.

    Args:
        actions: (B, sum of choices) zeros and ones.
        one_hot: number of choices of each of the N sub-actions.
        what: name of the data, for messages.
        row: row of the file at which they begin.

    Returns:
        (B, N) int64.

    Raises:
        StoreError: when the number of columns is wrong, or not exactly one column of a sub-action is set.
    """
    if actions.shape[1] != sum(one_hot):
        told = "+".join(map(str, one_hot))
        raise StoreError(f"{what} has {actions.shape[1]} columns of actions, --one-hot {told} is {sum(one_hot)}")
    made = []
    starts = np.cumsum([0, *one_hot]).tolist()
    for number, (start, size) in enumerate(zip(starts, one_hot, strict=False)):
        group = actions[:, start : start + size]
        bad = ((group != 0) & (group != 1)).any(axis=1) | (group.sum(axis=1) != 1)
        if bad.any():
            at = int(np.argmax(bad))
            raise StoreError(
                f"{what}: expected exactly one 1 among the {size} columns of sub-action {number}, found "
                f"{group[at].tolist()!s:.60} in row {row + at}"
            )
        made.append(group.argmax(axis=1))
    return np.stack(made, axis=1)


@attrs.define(eq=False)
class OneHotGroups:
    """The smallest groups of consecutive columns of which exactly one is set in every row.

    Args:
        told: numbers of choices that may be the sizes of such groups; empty if unknown.

    Attributes:
        sizes: sizes of the groups; empty if the columns do not form such groups.
        told_fit: whether `told` are the sizes of such groups.
    """

    told: Sequence[int] = ()
    sizes: list[int] = attrs.field(factory=list)
    told_fit: bool = True
    _columns: int = 0
    _ruled_out: bool = False

    def add(self, actions: np.ndarray) -> None:
        """Add (B, n) actions as they are in the file."""
        if self._ruled_out or actions.shape[1] > _MOST or ((actions != 0) & (actions != 1)).any():
            self._ruled_out, self.sizes, self.told_fit = True, [], False
            return
        self.told_fit = (
            self.told_fit and sum(self.told) == actions.shape[1] > len(self.told) and _one_each(actions, self.told)
        )
        if not self._columns:
            self._columns = actions.shape[1]
            self.sizes = _groups(actions)
        elif actions.shape[1] == self._columns and self.sizes and not _one_each(actions, self.sizes):
            self.sizes = []
        self._ruled_out = not self.sizes and not self.told_fit

    def hint(self) -> str:
        """The option to give if the columns are one-hot, else empty."""
        if not self.sizes:
            return ""
        sizes = ",".join(map(str, self.sizes))
        return (
            f"; of its {self._columns} columns exactly one is set within each of {sizes}: if they are one-hot, give "
            f"--one-hot {sizes} in place of --choices"
        )


def _one_each(actions: np.ndarray, sizes: Sequence[int]) -> bool:
    """Whether exactly one column of each group is set in every row."""
    return bool((np.add.reduceat(actions, np.cumsum([0, *sizes[:-1]]), axis=1) == 1).all())


def _groups(actions: np.ndarray) -> list[int]:
    set_so_far = np.concatenate([np.zeros((len(actions), 1), dtype=np.int64), np.cumsum(actions, axis=1)], axis=1)
    sizes, start = [], 0
    columns = actions.shape[1]
    while start < columns:
        one = (set_so_far[:, start + 1 :] - set_so_far[:, start : start + 1] == 1).all(axis=0)
        # A column that is never set belongs to the group before it or after it; the one before is as good.
        if not one.any():
            return []
        size = int(np.argmax(one)) + 1
        while start + size < columns and not actions[:, start + size].any():
            size += 1
        sizes.append(size)
        start += size
    return sizes if min(sizes) > 1 else []
