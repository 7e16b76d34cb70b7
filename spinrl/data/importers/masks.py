"""Masks of allowed choices in imported files."""

from __future__ import annotations

from math import prod

import numpy as np

from spinrl.data.importers.arrays import Columns
from spinrl.data.store.metadata import StoreError
from spinrl.specs import ActionSpec


def allowed_choices(
    rows: Columns, actions: np.ndarray, spec: ActionSpec, what: object, *, terminated: bool
) -> np.ndarray | None:
    """The allowed choices at each observation of an episode.

    The mask of the last observation is that of the last row if this row itself is left out, or that of the next
    observation if the file has it; otherwise every choice is allowed there. So it is where a mask that allows nothing
    follows the end of an episode by the task, after which nothing is chosen: training needs some choice.

    Args:
        rows: rows of the episode.
        actions: (L, N) actions of the steps that are kept, counted from 0.
        spec: the N sub-actions and their choices.
        what: name of the data, for messages.
        terminated: whether the task ended the episode.

    Returns:
        (L+1, N, K) bool, or None if the file has no masks.

    Raises:
        StoreError: for masks of another size, that allow nothing, or that forbid what was done, by row.
    """
    if rows.allowed is None:
        return None
    steps = len(actions)
    allowed = unpacked(rows.allowed, spec, "allowed", what)
    if steps == len(rows):
        last = np.broadcast_to(existing(spec), (1, *allowed.shape[1:]))
        if rows.next_allowed is not None:
            told = unpacked(rows.next_allowed[-1:], spec, "next_allowed", what)
            last = np.where(told.any(axis=2, keepdims=True) | (not terminated), told, last)
        allowed = np.concatenate([allowed, last])
    nothing = ~allowed.any(axis=2)
    if nothing.any():
        row, sub_action = (int(index) for index in np.argwhere(nothing)[0])
        raise StoreError(f"{what}: the mask of row {rows.first_row + row} allows no choice of sub-action {sub_action}")
    taken = np.take_along_axis(allowed[:steps], actions[..., None], axis=2)[..., 0]
    if not taken.all():
        row, sub_action = (int(index) for index in np.argwhere(~taken)[0])
        raise StoreError(
            f"{what}: the action of row {rows.first_row + row} takes choice {actions[row, sub_action]} of sub-action "
            f"{sub_action}, which the mask of that row forbids"
        )
    return allowed


def existing(spec: ActionSpec) -> np.ndarray:
    """(N, K) bool, True for choices that exist."""
    return np.arange(spec.max_choices) < np.array(spec.nvec)[:, None]


def unpacked(flat: np.ndarray, spec: ActionSpec, meaning: str, what: object) -> np.ndarray:
    """(B, N, K) from rows of N × K booleans, or of as many as there are choices in all."""
    exists, width = existing(spec), flat.shape[1]
    if width == exists.size:
        return flat.reshape(-1, *exists.shape) & exists
    if width == sum(spec.nvec):
        allowed = np.zeros((len(flat), *exists.shape), dtype=bool)
        allowed[:, exists] = flat
        return allowed
    joint = "; a mask is of each sub-action by itself, not of joint actions" if width == prod(spec.nvec) else ""
    raise StoreError(
        f"{what}: expected {exists.shape[0]} × {exists.shape[1]} or {sum(spec.nvec)} booleans a row in {meaning}, "
        f"found {width}{joint}"
    )
