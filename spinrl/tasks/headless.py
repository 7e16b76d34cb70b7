"""Imports MuJoCo, or packages that import it, independently of MUJOCO_GL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def headless() -> Iterator[None]:
    """Within the block, MuJoCo is imported without a GL library.

    MuJoCo's own renderer is not used (`spinrl.tasks.rendering` makes its own contexts). If MUJOCO_GL names a missing
    library, importing MuJoCo, dm_control or TorchRL would fail.
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
