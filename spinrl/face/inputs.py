"""What a trained policy is asked about, checked and as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from spinrl.errors import UserError
from spinrl.specs import ActionSpec


def observations(given: ArrayLike, size: int) -> tuple[torch.Tensor, bool]:
    """(B, S) float32, and whether it was one row.

    Raises:
        UserError: when they are not rows of `size` finite numbers.
    """
    try:
        rows = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"observation must be {size} numbers, or rows of them") from error
    if rows.ndim not in (1, 2) or rows.shape[-1] != size or not rows.size:
        raise UserError(f"observation must be {size} numbers, or rows of them; found {_sizes(rows.shape)}")
    if not np.isfinite(rows).all():
        raise UserError("observation must be finite numbers; found NaN or infinity")
    return torch.tensor(np.atleast_2d(rows)), rows.ndim == 1


def actions(given: ArrayLike, rows: int, choices: Sequence[int]) -> torch.Tensor:
    """(B, N) int64 choices from 0.

    Raises:
        UserError: when they are not `rows` joint actions of whole numbers within the choices.
    """
    taken = np.atleast_2d(np.asarray(given))
    expected = (rows, len(choices))
    if taken.shape != expected:
        raise UserError(f"action must have {_sizes(expected)} entries; found {_sizes(taken.shape)}")
    if not np.equal(taken, np.floor(taken)).all() or (taken < 0).any() or (taken >= np.array(choices)).any():
        raise UserError(f"action must be whole numbers from 0 within the choices {list(choices)}")
    return torch.as_tensor(taken).long()


def allowed_choices(given: ArrayLike, rows: int, spec: ActionSpec) -> torch.Tensor:
    """(B, N, K) bool, False for choices that do not exist either.

    Raises:
        UserError: when they are no booleans of (N, K) or (B, N, K), or leave a sub-action no choice.
    """
    mask, shape = np.asarray(given), (rows, spec.num_sub_actions, spec.max_choices)
    if mask.dtype != bool or mask.shape not in (shape, shape[1:]):
        raise UserError(f"allowed must be {_sizes(shape)} booleans; found {_sizes(mask.shape)} of {mask.dtype}")
    valid = torch.from_numpy(np.broadcast_to(mask, shape).copy()) & spec.valid()
    if not valid.any(-1).all():
        raise UserError("allowed must leave each sub-action at least one choice")
    return valid


def _sizes(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "a single number"


def require_sizes(choices: Sequence[int], size: int, trained: Sequence[int], trained_size: int) -> None:
    """Choices and observation entries of data have to be those that the policy was trained on."""
    if (tuple(choices), size) != (tuple(trained), trained_size):
        raise UserError(
            f"the data has {list(choices)} choices and {size} observation entries; the policy was trained on "
            f"{list(trained)} and {trained_size}"
        )
