"""Gymnasium's spaces as flat arrays: observations of numbers, actions of choices.

One code for recorded data and for simulators, so that what imports also simulates. Flat observations are those of
``gymnasium.spaces.flatten``, with two differences: many rows are flattened at once, with their values checked, and the
parts of a Dict are in the order of their names. Gymnasium keeps whatever order a Dict was made with, which a recording
of it by Minari does not.

Shapes: T rows, S observation size, N sub-actions, K the largest number of choices.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from spinrl.specs import ActionSpec


class SpaceError(ValueError):
    """A space is not supported, or a value is not in its space; the message is one line that names the part."""


def observation_size(space: spaces.Space) -> int:
    """S: a Box has its entries, a Discrete part one for each value (one-hot), a MultiBinary part its bits.

    Raises:
        SpaceError: naming the part that is none of these, nor a Dict or Tuple of them.
    """
    return sum(_width(f"observation{name}", part) for name, part in _leaves(space))


def flat_observations(space: spaces.Space, values: Any, rows: int) -> np.ndarray:
    """Many observations of a space, flat.

    Args:
        space: space of Box, Discrete, MultiDiscrete and MultiBinary parts, alone or in Dict and Tuple.
        values: values in the form of the space, each part an array with `rows` rows.
        rows: T.

    Returns:
        (T, S) float32; what float32 cannot hold is infinite.

    Raises:
        SpaceError: naming the part whose values have another number of rows, another shape or no such choice.
    """
    columns = []
    for (name, part), value in _with_values("observation", space, values):
        array = _rows_of(name, part, value, rows)
        if isinstance(part, spaces.Discrete | spaces.MultiDiscrete):
            nvec, start = _choices(part)
            array = _one_hot(_from_zero(name, array, nvec, start), nvec)
        with np.errstate(over="ignore"):
            columns.append(array.astype(np.float32))
    return np.concatenate(columns, axis=1)


def flat_observation(space: spaces.Space, value: Any) -> np.ndarray:
    """One observation, flat: (S,) float32. Raises as `flat_observations`."""
    return flat_observations(space, _as_one_row(space, value), 1)[0]


def action_spec(space: spaces.Space) -> ActionSpec:
    """The choices of a space's sub-actions, in the space's order.

    Raises:
        SpaceError: naming the part that is no choice, or when no part has two or more.
    """
    nvec: list[int] = []
    for name, part in _leaves(space):
        if not isinstance(part, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            raise SpaceError(
                f"action{name} is {part}; an action can be MultiDiscrete, Discrete or MultiBinary, or a Dict or Tuple "
                "of these"
            )
        nvec += _choices(part)[0].tolist()
    if max(nvec, default=1) < 2:
        raise SpaceError(f"action is {space}, of which no part has two choices, so there is nothing to decide")
    return ActionSpec(nvec)


def action_start(space: spaces.Space) -> list[int]:
    """Number of the first choice of each of a space's N sub-actions; `space` as `action_spec` accepts it."""
    return [int(first) for _, part in _leaves(space) for first in _choices(part)[1]]


def flat_actions(space: spaces.Space, values: Any, rows: int) -> np.ndarray:
    """Many actions of a space as choices from 0.

    Args:
        space: space that `action_spec` accepts.
        values: values in the form of the space, each part an array with `rows` rows.
        rows: T.

    Returns:
        (T, N) int64.

    Raises:
        SpaceError: naming the part whose values have another number of rows, another shape or no such choice.
    """
    columns = []
    for (name, part), value in _with_values("action", space, values):
        columns.append(_from_zero(name, _rows_of(name, part, value, rows), *_choices(part)))
    return np.concatenate(columns, axis=1)


def own_action(space: spaces.Space, choices: Iterable[int]) -> Any:
    """An action in the form of the space, with its types, shapes and numbering.

    Args:
        space: space that `action_spec` accepts.
        choices: (N,) choices, counted from 0.
    """
    remaining = iter(choices)

    def take(part: spaces.Space) -> Any:
        if isinstance(part, spaces.Dict):
            taken = {key: take(inner) for key, inner in _inner(part)}
            return {key: taken[key] for key in part.spaces}
        if isinstance(part, spaces.Tuple):
            return tuple(take(inner) for inner in part.spaces)
        _, start = _choices(part)
        own = (start + list(itertools.islice(remaining, len(start)))).astype(part.dtype)
        return own[0] if isinstance(part, spaces.Discrete) else own.reshape(part.shape)

    return take(space)


def allowed_choices(space: spaces.Space, mask: Any) -> np.ndarray:
    """A mask of allowed choices, (N, K) bool; False where a sub-action has fewer than K choices.

    Args:
        space: space that `action_spec` accepts.
        mask: mask in Gymnasium's form (of ``space.sample(mask)``: nested like the space, None if all is allowed, and
            for MultiBinary 0, 1 or 2 for either), as one row of all sub-actions' choices side by side (of sb3-contrib's
            ``action_masks()``), or (N, K).

    Raises:
        SpaceError: when the mask does not fit the space, or allows no choice of a sub-action.
    """
    nvec = np.array(action_spec(space).nvec)
    exists = np.arange(nvec.max()) < nvec[:, None]
    allowed = np.zeros(exists.shape, dtype=bool)
    if isinstance(mask, np.ndarray) and mask.shape == exists.shape and mask.size != nvec.sum():
        allowed = mask.astype(bool) & exists
    elif isinstance(space, spaces.Dict | spaces.Tuple) and not isinstance(mask, np.ndarray):
        parts = _with_values("action mask", space, mask)
        allowed[exists] = np.concatenate([_mask_of(name, part, value) for (name, part), value in parts])
    else:
        allowed[exists] = _mask_of("action mask", space, mask, int(nvec.sum()))
    if not (some := allowed.any(axis=1)).all():
        raise SpaceError(f"the action mask allows no choice of sub-action {int(np.argmin(some))}")
    return allowed


def _mask_of(name: str, part: spaces.Space, mask: Any, size: int | None = None) -> np.ndarray:
    """One bool for each choice of a part, all sub-actions side by side."""
    size = int(_choices(part)[0].sum()) if size is None else size
    if mask is None:
        return np.ones(size, dtype=bool)
    values = np.array(list(_numbers(mask)))
    if isinstance(part, spaces.MultiBinary) and values.size * 2 == size:
        return np.stack([values != 1, values != 0], axis=1).ravel()
    if values.size != size:
        raise SpaceError(f"the {name} of {part} has {values.size} entries; expected {size}, one for each choice")
    return values.astype(bool)


def _numbers(nested: Any) -> Iterator[Any]:
    """The numbers of arrays, lists and tuples of any depth, in order."""
    if isinstance(nested, list | tuple):
        for inner in nested:
            yield from _numbers(inner)
    else:
        yield from np.ravel(nested)


def _leaves(space: spaces.Space, name: str = "") -> Iterator[tuple[str, spaces.Space]]:
    """The parts that are no Dict or Tuple, in order, each with what it is called within the space."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for key, part in _inner(space):
            yield from _leaves(part, f"{name}[{key!r}]")
    else:
        yield name, space


def _inner(space: spaces.Dict | spaces.Tuple) -> list[tuple[Any, spaces.Space]]:
    """The spaces within one, each with its key."""
    if isinstance(space, spaces.Dict):
        return sorted(space.spaces.items(), key=lambda item: str(item[0]))
    return list(enumerate(space.spaces))


def _with_values(kind: str, space: spaces.Space, value: Any) -> Iterator[tuple[tuple[str, spaces.Space], Any]]:
    """Every leaf with its part of a value."""
    return zip(_leaves(space, kind), _leaf_values(kind, space, value), strict=True)


def _leaf_values(name: str, space: spaces.Space, value: Any) -> Iterator[Any]:
    if isinstance(space, spaces.Dict):
        for key, part in _inner(space):
            if not hasattr(value, "keys") or key not in value:
                raise SpaceError(f"{name} has no {key!r}, which its space {space} has")
            yield from _leaf_values(f"{name}[{key!r}]", part, value[key])
    elif isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            raise SpaceError(f"{name} is not a tuple of {len(space.spaces)}, as its space {space} has it")
        for index, (part, inner) in enumerate(zip(space.spaces, value, strict=True)):
            yield from _leaf_values(f"{name}[{index}]", part, inner)
    else:
        yield value


def _as_one_row(space: spaces.Space, value: Any) -> Any:
    """A value with a row axis of one in front of each of its parts."""
    if isinstance(space, spaces.Dict) and hasattr(value, "keys"):
        return {key: _as_one_row(part, value[key]) for key, part in space.spaces.items() if key in value}
    if isinstance(space, spaces.Tuple) and isinstance(value, tuple | list) and len(value) == len(space.spaces):
        return tuple(_as_one_row(part, inner) for part, inner in zip(space.spaces, value, strict=True))
    return np.asarray(value)[None]


def _shape(part: spaces.Space) -> tuple[int, ...]:
    return tuple(part.shape or ())


def _choices(part: spaces.Space) -> tuple[np.ndarray, np.ndarray]:
    """(n,) choices of a part, and (n,) what the first choice of each is called."""
    if isinstance(part, spaces.Discrete):
        return np.array([part.n], dtype=np.int64), np.array([part.start], dtype=np.int64)
    if isinstance(part, spaces.MultiDiscrete):
        return part.nvec.ravel().astype(np.int64), part.start.ravel().astype(np.int64)
    size = int(np.prod(_shape(part)))
    return np.full(size, 2), np.zeros(size, dtype=np.int64)


def _width(name: str, part: spaces.Space) -> int:
    if isinstance(part, spaces.Box | spaces.MultiBinary):
        return int(np.prod(_shape(part)))
    if isinstance(part, spaces.Discrete | spaces.MultiDiscrete):
        return int(_choices(part)[0].sum())
    raise SpaceError(
        f"{name} is {part}; an observation can be Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple of "
        "these"
    )


def _rows_of(name: str, part: spaces.Space, value: Any, rows: int) -> np.ndarray:
    """(T, n) values of a part."""
    array = np.asarray(value)
    if array.ndim == 0 or len(array) != rows:
        raise SpaceError(f"{name} has {len(array) if array.ndim else 'no'} rows of {part}; expected {rows}")
    size = int(np.prod(_shape(part)))
    if array.size != rows * size:
        raise SpaceError(f"{name} has the shape {array.shape[1:]}; expected {part.shape}, of {part}")
    return array.reshape(rows, size)


def _from_zero(name: str, values: np.ndarray, nvec: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(T, n) values of choices, counted from 0."""
    if values.dtype.kind not in "biu":
        raise SpaceError(f"{name} holds {values.dtype}; expected integers")
    chosen = values.astype(np.int64) - start
    wrong = (chosen < 0) | (chosen >= nvec)
    if wrong.any():
        row, at = (int(index) for index in np.argwhere(wrong)[0])
        of = f"{name}, row {row}" + (f", entry {at}" if len(nvec) > 1 else "")
        raise SpaceError(f"{of}: expected {start[at]} to {start[at] + nvec[at] - 1}, found {values[row, at]}")
    return chosen


def _one_hot(chosen: np.ndarray, nvec: np.ndarray) -> np.ndarray:
    """(T, n) choices to (T, sum of nvec) zeros and ones."""
    flat = np.zeros((len(chosen), int(nvec.sum())))
    np.put_along_axis(flat, chosen + (np.cumsum(nvec) - nvec), 1, axis=1)
    return flat
