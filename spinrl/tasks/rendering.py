"""Pictures of a simulation, drawn by MuJoCo without a display: on EGL or OSMesa, whichever is there."""

from __future__ import annotations

import importlib
import os
from typing import Any

import mujoco
import numpy as np
from dm_control.mujoco import Physics

from spinrl.tasks.environment import RenderingError

LIBRARIES = {"egl": "libegl1", "osmesa": "libosmesa6"}  # OpenGL library, and its package on Debian and Ubuntu


class Drawing:
    """Draws the states of one simulation.

    MuJoCo's own renderer is bound to the library that MUJOCO_GL named when MuJoCo was imported; this one is not.

    Args:
        physics: simulation to draw.
        width, height: size of a picture in pixels, at most that of the model's offscreen buffer (640 × 480).
        camera: number or name of one of the model's cameras; -1 for the free one.

    Raises:
        RenderingError: when neither library is installed.
        ValueError: for a size that is too large, or a camera that the model does not have.
    """

    def __init__(self, physics: Physics, *, width: int = 320, height: int = 240, camera: int | str = 0) -> None:
        self._model, self._data = physics.model.ptr, physics.data.ptr
        buffer = self._model.vis.global_
        if not (0 < width <= buffer.offwidth and 0 < height <= buffer.offheight):
            most = f"{buffer.offwidth} × {buffer.offheight}"
            raise ValueError(f"a picture can have up to {most} pixels, got {width} × {height}")
        self._camera = mujoco.MjvCamera()
        number = self._number(camera)
        if number >= 0:
            self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, number
        else:
            mujoco.mjv_defaultFreeCamera(self._model, self._camera)
        self._pixels, self._area = (height, width, 3), mujoco.MjrRect(0, 0, width, height)
        self._gl = _context(width, height)
        self._gl.make_current()
        self._scene = mujoco.MjvScene(self._model, maxgeom=10_000)
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)

    def __call__(self) -> np.ndarray:
        """The current state: (height, width, 3) uint8."""
        self._gl.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, self._data, mujoco.MjvOption(), None, self._camera, everything, self._scene)
        mujoco.mjr_render(self._area, self._scene, self._context)
        pixels = np.empty(self._pixels, dtype=np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._area, self._context)
        return pixels[::-1].copy()  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Free the drawing context."""
        self._gl.make_current()
        self._context.free()
        self._gl.free()

    def _number(self, camera: int | str) -> int:
        names = [self._model.camera(number).name for number in range(self._model.ncam)]
        if camera in names:
            return names.index(camera)
        if isinstance(camera, str) or not -1 <= camera < len(names):
            known = ", ".join(f"{number} ({name})" for number, name in enumerate(names))
            raise ValueError(f"the model has no camera {camera!r}; it has -1 (free), {known}")
        return camera


def _context(width: int, height: int) -> Any:
    """An OpenGL context of the library that MUJOCO_GL names, or of the first that works."""
    asked = os.environ.get("MUJOCO_GL", "").lower()
    tried = []
    for library in sorted(LIBRARIES, key=lambda each: each != asked):
        try:
            return importlib.import_module(f"mujoco.{library}").GLContext(width, height)
        except Exception as error:  # a missing library fails in whatever way its loader happens to
            tried.append(f"{library} ({str(error).splitlines()[0] if str(error) else type(error).__name__})")
    packages = " or ".join(f"apt install {package}" for package in LIBRARIES.values())
    raise RenderingError(f"no OpenGL library works on this machine: {', '.join(tried)}; {packages}")
