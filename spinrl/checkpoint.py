"""Atomic saving and weights-only loading of everything that resuming needs."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from spinrl.errors import UserError
from spinrl.files import replacing

_ADVICE = ("Weights only load failed", "Please file an issue", "Check the documentation")  # of torch's lines


class CheckpointError(UserError):
    """A checkpoint cannot be used; the message names the file and what is wrong."""


def save(state: dict[str, Any], path: Path) -> None:
    """Write `state` (tensors and plain values) beside `path` and rename, so that a kill leaves the old or the new.

    Raises:
        CheckpointError: when the disk is full or cannot be written; an earlier file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as beside, beside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its zip writer
        raise CheckpointError(f"{path} could not be written: {error}") from error


def load(path: Path, also: Sequence[Callable[..., Any] | tuple[Callable[..., Any], str]] = ()) -> dict[str, Any]:
    """Read what `save` wrote, without running any code that the file may carry.

    Args:
        path: path of the file.
        also: further harmless types that it may hold, in the form of `torch.serialization.safe_globals`.

    Raises:
        CheckpointError: when the file is missing, damaged, or holds anything but tensors and plain values.
    """
    try:
        with torch.serialization.safe_globals(list(also)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # asks the user to file an issue with torch
            return torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except Exception as error:  # bytes that are no pickle can make the unpickler raise any exception
        raise CheckpointError(f"{path} is damaged or not a checkpoint: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The error in one line, without torch's advice to load the file unsafely."""
    asked = re.search(r"GLOBAL (\S+)", str(error))
    if asked:
        return f"it asks for {asked[1]}, which no checkpoint needs; do not unpickle this file"
    told = str(error).rpartition("WeightsUnpickler error:")[2]  # what stands before it is advice alone
    lines = [line.strip() for line in told.splitlines() if line.strip() and not line.startswith(_ADVICE)]
    return lines[0] if lines else type(error).__name__


def save_latest(state: dict[str, Any], path: Path) -> None:
    """Save a checkpoint as `save` does, and keep the previous one beside it.

    Raises:
        CheckpointError: as `save`.
    """
    beside = path.with_name(f".{path.name}.next")
    save(state, beside)
    # A kill between the two leaves the previous one, and the next one under its other name.
    if path.exists():
        os.replace(path, _previous(path))
    os.replace(beside, path)


def load_latest(path: Path, on_damage: Callable[[CheckpointError], None]) -> dict[str, Any] | None:
    """The latest readable checkpoint of `save_latest`; None if there is none.

    Args:
        path: path of the latest checkpoint.
        on_damage: callback for an unreadable checkpoint, before the previous one is tried.
    """
    for each in (path, _previous(path)):
        if each.exists():
            try:
                return load(each)
            except CheckpointError as error:
                on_damage(error)
    return None


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}-previous{path.suffix}")
