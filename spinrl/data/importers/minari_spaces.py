"""Gymnasium spaces as flat arrays: observations of boxes, actions of choices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from spinrl.data.importers.choices import action_spec
from spinrl.data.importers.result import require
from spinrl.data.store.metadata import StoreError
from spinrl.specs import ActionSpec


def observation_size(what: object, space: Any) -> int:
    """S, of a space that is made of boxes alone.

    Raises:
        StoreError: naming the part that is not.
    """
    spaces = require("gymnasium.spaces", "Minari")
    size = 0
    for name, part in _parts(space):
        if not isinstance(part, spaces.Box):
            raise StoreError(f"{what}: observation{name} is {part}; only Box, and Dict and Tuple of them, is imported")
        size += int(np.prod(part.shape))
    return size


def joint_action(what: object, space: Any) -> tuple[ActionSpec, np.ndarray]:
    """The choices of a space's sub-actions in their order, and (N,) what the first one of each is called.

    Raises:
        StoreError: naming the part that is no choice, or has too few or too many.
    """
    spaces = require("gymnasium.spaces", "Minari")
    nvec: list[int] = []
    start: list[int] = []
    for name, part in _parts(space):
        if isinstance(part, spaces.Discrete):
            nvec.append(int(part.n))
            start.append(int(part.start))
        elif isinstance(part, spaces.MultiDiscrete):
            nvec += part.nvec.ravel().tolist()
            start += part.start.ravel().tolist()
        elif isinstance(part, spaces.MultiBinary):
            nvec += [2] * int(np.prod(part.shape))
            start += [0] * int(np.prod(part.shape))
        else:
            raise StoreError(
                f"{what}: action{name} is {part}; only MultiDiscrete, Discrete and MultiBinary, and Dict and Tuple of "
                "them, are imported"
            )
    return action_spec(what, nvec), np.array(start, dtype=np.int64)


def flat(values: Any, space: Any, length: int) -> np.ndarray:
    """(length, ...) values of a space, those of its parts side by side in its own order.

    Raises:
        ValueError, KeyError: when they are not of that length, or not of the space.
    """
    spaces = require("gymnasium.spaces", "Minari")
    if isinstance(space, spaces.Dict):
        return np.concatenate([flat(values[name], part, length) for name, part in space.spaces.items()], axis=1)
    if isinstance(space, spaces.Tuple):
        parts = zip(values, space.spaces, strict=True)
        return np.concatenate([flat(value, part, length) for value, part in parts], axis=1)
    if len(values) != length:
        raise ValueError(f"an episode has {len(values)} rows of {space} where its steps want {length}")
    return np.asarray(values).reshape(length, -1)


def _parts(space: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    spaces = require("gymnasium.spaces", "Minari")
    if isinstance(space, spaces.Dict | spaces.Tuple):
        entries = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in entries:
            yield from _parts(part, f"{name}[{key!r}]")
    else:
        yield name, space
