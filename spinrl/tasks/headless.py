"""Importing MuJoCo, or what imports it, whatever GL library the user's environment asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def headless() -> Iterator[None]:
    """Within the block, MuJoCo is imported without a GL library.

    Nothing here draws by MuJoCo's own renderer (`spinrl.tasks.rendering` has contexts of its own). A MUJOCO_GL that is
    left in a profile, of a library that is not there, would end whatever imports MuJoCo, as dm_control and TorchRL do.
    """
    given = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "disable"
    try:
        yield
    finally:
        if given is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = given
