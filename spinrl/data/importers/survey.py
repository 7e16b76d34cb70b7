"""A first pass over a file before it is imported: its actions, order, and unused flags."""

from __future__ import annotations

import attrs
import numpy as np
import pandas as pd

from spinrl.data.importers.arrays import Arrays
from spinrl.data.importers.choices import SeenActions
from spinrl.data.store.metadata import StoreError

_MOST_SPLITS = 100


@attrs.define(eq=False)
class Survey:
    """The results of the first pass over a file.

    Attributes:
        rows: number of rows.
        flags: number of true values in each unused column of booleans.
        total, count: (S,) float64 sum and number of the observations that are not missing; None unless `means`.
        splits: names of the splits, in the order of their first rows.
        first, last: episode and step of the first and the last row, as far as there are such columns.
    """

    rows: int = 0
    flags: dict[str, int] = attrs.field(factory=dict)
    total: np.ndarray | None = None
    count: np.ndarray | None = None
    splits: list[str] = attrs.field(factory=list)
    first: tuple[object, float | None] = (None, None)
    last: tuple[object, float | None] = (None, None)


def survey(arrays: Arrays, seen: SeenActions, *, sort: bool = False, means: bool = False) -> Survey:
    """Survey a file before its import; sets the order of `arrays` if rows are sorted.

    Args:
        arrays: transitions of the file.
        seen: range of actions to update.
        sort: whether to sort rows by step within episodes, and episodes by their first rows.
        means: whether to sum the observations.

    Raises:
        StoreError: for values that are not plain, and steps that do not sort the rows.
    """
    made = Survey(flags=dict.fromkeys(arrays.flags, 0))
    keys = [meaning for meaning in ("episode", "step") if meaning in arrays.columns]
    meanings = ["actions", *keys, *(["split"] if "split" in arrays.columns else [])]
    columns = [name for meaning in meanings for name in arrays.columns[meaning]] + arrays.flags
    columns += arrays.columns["observations"] if means else ()
    episodes, steps = [], []
    for raw in arrays.raw(*dict.fromkeys(columns)):
        block = arrays.values.of(meanings, raw, made.rows)
        seen.add(arrays.file, block["actions"], made.rows)
        for name in arrays.flags:
            made.flags[name] += int(np.count_nonzero(raw[name] == 1))
        if "split" in block:
            _add_splits(made, arrays, block["split"])
        if sort:
            episodes.append(block.get("episode", np.zeros(len(block["actions"]), dtype=np.int64)))
            steps.append(block["step"][:, 0])
        ends = [
            (block["episode"][at].item() if "episode" in block else None, block["step"][at, 0] if keys[1:] else None)
            for at in (0, -1)
        ]
        made.first, made.last = made.first if made.rows else ends[0], ends[1]
        if means:
            _add_up(made, arrays, raw)
        made.rows += len(block["actions"])
    if sort:
        arrays.order = _order(arrays, np.concatenate(episodes), np.concatenate(steps))
    return made


def _add_splits(made: Survey, arrays: Arrays, names: np.ndarray) -> None:
    made.splits += [name for name in pd.unique(names).tolist() if name not in made.splits]
    if len(made.splits) > _MOST_SPLITS:
        raise StoreError(
            f"{arrays.file}: expected names of a few splits, such as train and test, in {arrays.columns['split'][0]}, "
            f"found more than {_MOST_SPLITS}; if it is no split, give --column split="
        )


def _add_up(made: Survey, arrays: Arrays, raw: dict[str, np.ndarray]) -> None:
    values = arrays.values.plain("observations", raw, made.rows).astype(np.float64)
    has = np.isfinite(values)
    total, count = np.where(has, values, 0).sum(axis=0), has.sum(axis=0)
    if made.total is None or made.count is None:
        made.total, made.count = total, count
    elif len(total) == len(made.total):
        made.total, made.count = made.total + total, made.count + count


def _order(arrays: Arrays, episodes: np.ndarray, steps: np.ndarray) -> np.ndarray | None:
    """(T,) order of rows by episode (in the order of their first rows) and step; None if sorted already."""
    codes, _ = pd.factorize(episodes)
    order = np.lexsort((steps, codes))
    again = (codes[order][1:] == codes[order][:-1]) & (steps[order][1:] == steps[order][:-1])
    if again.any():
        one, other = sorted(order[int(np.argmax(again)) :][:2].tolist())
        hint = "" if "episode" in arrays.columns else "; give --episode-column NAME, if steps count within episodes"
        raise StoreError(
            f"{arrays.file}: rows {one} and {other} of one episode have the same {arrays.columns['step'][0]}, "
            f"{steps[one]:.15g}, so their order is unknown{hint}"
        )
    return None if (order == np.arange(len(order))).all() else order


def check_borders(opened: list[Arrays], surveys: list[Survey]) -> None:
    """Refuse files if an episode of one may continue in the next.

    Raises:
        StoreError: if so; the message names the files.
    """
    for before, after, one, other in zip(opened, opened[1:], surveys, surveys[1:], strict=False):
        (name, end), (first, begin) = one.last, other.first
        if name is not None and name == first and not (end is not None and begin is not None and begin <= end):
            raise StoreError(
                f"{before.file} ends with episode {name}, and {after.file} begins with one of that name: if it goes on "
                "there, put the files into a folder of their own and import the folder; if it is another one, "
                "number the episodes anew"
            )
