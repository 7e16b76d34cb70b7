"""Values far outside all others of a column, such as codes for missing values (-999, 1e20)."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from spinrl.data.store.store import Store

SQUARES_OVERFLOW = 1e18  # larger values have squares (in deviations and losses) that overflow single precision
_LARGE_REWARD = 1e9
_ROWS = 65_536  # read at once
_DISTINCT = 5  # fewest distinct other values; a flag that is rarely set is no outlier
_FAR, _NEAR = 2.0, 0.1  # least gap, in ranges of the others: for any value, and for a repeated code
_CODES = {sign * code for sign in (-1, 1) for code in (99, 999, 9999, 99_999, 999_999)}


@attrs.frozen(kw_only=True)
class Outlier:
    """A value that lies far outside the other values of its observation entry.

    Attributes:
        entry: index of the observation entry.
        value: outlying value.
        count: number of rows with it.
        low, high: range of the entry's other values.
    """

    entry: int
    value: float
    count: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.6g} in {self.count:,} rows, all others from {self.low:.4g} to {self.high:.4g}"


def outliers(values: np.ndarray) -> list[Outlier]:
    """The outliers of each entry.

    Args:
        values: (R, S) floats; values that are not finite are ignored.
    """
    extremes = [_two_largest(values, sign) for sign in (1, -1)]
    (high, below), (low, above) = extremes[0], [-each for each in extremes[1]]
    with np.errstate(invalid="ignore"):  # for entries with a single value
        inner = np.maximum(below - above, 0)
        gap = np.maximum(high - below, above - low)
        apart = np.isfinite(gap) & (gap > _NEAR * inner)
    return [found for entry in np.flatnonzero(apart).tolist() for found in _peeled(entry, values[:, entry])]


def _two_largest(values: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """(S,) float64 each: largest and second largest distinct value times `sign`; -inf if there is none."""
    first = second = np.full(values.shape[1], -np.inf)
    for at in range(0, len(values), _ROWS):
        rows = sign * values[at : at + _ROWS].astype(np.float64)
        rows = np.where(np.isfinite(rows), rows, -np.inf)
        largest = rows.max(axis=0)
        rest = np.where(rows < largest, rows, -np.inf).max(axis=0)
        lower = np.where(largest == first, -np.inf, np.minimum(largest, first))
        second = np.maximum(np.maximum(second, rest), lower)
        first = np.maximum(first, largest)
    return first, second


def _peeled(entry: int, column: np.ndarray) -> list[Outlier]:
    """The outermost values, one by one, as long as each lies far outside the rest."""
    values, counts = np.unique(column[np.isfinite(column)].astype(np.float64), return_counts=True)
    found = []
    while len(values) > 1:
        at = -1 if values[-1] - values[-2] >= values[1] - values[0] else 0
        others = values[:-1] if at else values[1:]
        value, count = float(values[at]), int(counts[at])
        gap, spread = abs(value - others[at]), others[-1] - others[0]
        code = count > 1 and (value in _CODES or abs(value) >= SQUARES_OVERFLOW)
        far = gap > (_NEAR if code else 1.0 if count > 1 else _FAR) * spread
        if not far or (len(others) < _DISTINCT and abs(value) < SQUARES_OVERFLOW):
            break
        found.append((value, count))
        values, counts = others, counts[:-1] if at else counts[1:]
    return [
        Outlier(entry=entry, value=value, count=count, low=float(values[0]), high=float(values[-1]))
        for value, count in found
    ]


def suspicions(store: Store, entries: Sequence[str] = ()) -> list[str]:
    """Possible faults in the values of a store and in its size, one line each.

    Args:
        store: dataset.
        entries: names of the observation's entries, if known.
    """
    observation = store.data["observations", "observation"].numpy()
    reward = store.data["transitions", "reward"].numpy()
    names = list(entries) if len(entries) == observation.shape[1] else []
    found = outliers(observation)
    made = []
    for each in found:
        called = names[each.entry] if names else f"observation entry {each.entry}"
        made.append(
            f"{called} has {each}: if that stands for a missing value, standardised observations are of little use; "
            "make it NaN in the file and give --missing mean, zero or drop"
        )
    large = np.abs(observation).max(axis=0, initial=0)
    for entry in sorted(set(np.flatnonzero(large > SQUARES_OVERFLOW).tolist()) - {each.entry for each in found}):
        called = names[entry] if names else f"observation entry {entry}"
        made.append(f"{called} reaches {large[entry]:.4g}, whose square single precision does not hold; rescale it")
    for each in outliers(reward[:, None]):
        made.append(f"rewards have {each}: check whether that stands for a missing value")
    if (largest := float(np.abs(reward).max(initial=0))) > _LARGE_REWARD:
        made.append(f"rewards reach {largest:.4g}; losses square values of that size and overflow: rescale them")
    if store.metadata.episodes == 1:
        made.append(
            "there is one episode, so none can be held out for estimates: hold out its last rows "
            "(Experiment.held_out_by='rows'), cut it with --episode-length STEPS, or train with Experiment.held_out=0 "
            "and Evaluating.estimators=[@FittedQ()]"
        )
    return made
