"""An evaluation episode as a video, and as a strip of a few of its pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import numpy as np

from spinrl.errors import UserError
from spinrl.evaluation.rollout import ActionChoice, evaluate
from spinrl.policies import Policy
from spinrl.tasks import Environment

STRIP = 8  # pictures of a strip
_KEPT = 64  # pictures that are kept for the strip at most, while nobody knows how long the episode is


@attrs.frozen
class Film:
    """What was filmed.

    Attributes:
        returned: undiscounted return of the episode.
        steps: its steps.
        video: the video file.
        strip: PNG of `STRIP` pictures, evenly spaced from the first to the last.
    """

    returned: float
    steps: int
    video: Path
    strip: Path


def film(
    policy: Policy,
    environment: Environment,
    draw: Callable[[], np.ndarray],
    path: Path,
    *,
    fps: float,
    seed: int,
    action: ActionChoice = "sample",
    steps: int,
) -> Film:
    """Film an episode: the very one that an evaluation with this episode seed has.

    Args:
        policy: the policy.
        environment: one environment.
        draw: gives the environment's present state, (height, width, 3) uint8, the same size each time.
        path: of the video, ending in .mp4; the strip lies beside it, ending in .png.
        fps: pictures per second, one for each step.
        seed: seed of the episode.
        action: sample from the policy, or take each sub-action's most likely choice (mode).
        steps: of the episode, at most.

    Raises:
        UserError: for another ending, a folder that is not there, or when imageio-ffmpeg is not installed.
    """
    if path.suffix.lower() != ".mp4":
        raise UserError(f"a video's name must end in .mp4; found {path.name}")
    if not path.resolve().parent.is_dir():
        raise UserError(f"there is no folder {path.parent} to write {path.name} into")
    with _Recording(environment, draw, path, fps) as recorded:
        (returned,) = evaluate(policy, recorded, [seed], action=action, steps=steps)
    strip = path.with_suffix(".png")
    write_strip(recorded.kept, strip)
    return Film(returned, recorded.pictures - 1, path, strip)


def write_strip(pictures: Sequence[np.ndarray], file: Path | BinaryIO) -> None:
    """Write `STRIP` of the pictures side by side as PNG, evenly spaced from the first to the last."""
    from matplotlib.image import imsave

    chosen = np.linspace(0, len(pictures) - 1, STRIP).round().astype(int)
    imsave(file, np.concatenate([pictures[index] for index in chosen], axis=1), format="png")


class _Recording:
    """One environment, of which a picture is taken at its start and after each step."""

    def __init__(self, environment: Environment, draw: Callable[[], np.ndarray], path: Path, fps: float) -> None:
        try:
            from imageio_ffmpeg import write_frames
        except ModuleNotFoundError as error:
            raise UserError("a video needs imageio-ffmpeg; pip install 'spinrl[video]'") from error
        self.num_envs, self.action_spec = 1, environment.action_spec
        self.pictures = 0
        self.kept: list[np.ndarray] = []
        self._every = 1
        self._environment, self._draw, self._path, self._fps = environment, draw, path, fps
        self._write_frames = write_frames
        self._writer: Any = None

    def __enter__(self) -> _Recording:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def reset(self, index: int, seed: int) -> np.ndarray:
        observation = self._environment.reset(index, seed)
        self._take()
        return observation

    def step(self, actions: np.ndarray, indices: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        result = self._environment.step(actions, indices)
        self._take()
        return result

    def over(self, indices: Sequence[int]) -> bool:
        return self._environment.over(indices)

    def allowed(self, indices: Sequence[int]) -> np.ndarray | None:
        return self._environment.allowed(indices)

    def close(self) -> None:
        self._environment.close()

    def _take(self) -> None:
        picture = np.ascontiguousarray(self._draw(), dtype=np.uint8)
        if self._writer is None:
            height, width, _ = picture.shape
            # Players need sides that are multiples of two; of sixteen, as the library has it, would scale the picture.
            self._writer = self._write_frames(
                str(self._path), (width, height), fps=self._fps, macro_block_size=2, ffmpeg_log_level="error"
            )
            self._writer.send(None)
        self._writer.send(picture)
        if self.pictures % self._every == 0:
            if len(self.kept) == _KEPT:
                self.kept, self._every = self.kept[::2], 2 * self._every
            if self.pictures % self._every == 0:
                self.kept.append(picture)
        self.pictures += 1
