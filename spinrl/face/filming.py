"""A policy's episode on film: which environment, and what draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from spinrl.errors import UserError
from spinrl.evaluation import ActionChoice, Film, episode_seeds, film
from spinrl.policies import Policy
from spinrl.tasks import TASKS, Environment, get_task

Camera = Callable[[], np.ndarray]


def filmed(
    module: Policy, environment: Any, path: str | Path, *, seed: int, action: ActionChoice = "sample", steps: int
) -> Film:
    """Film the first episode of an evaluation.

    Args:
        module: the policy.
        environment: a task of the benchmark, an id of Gymnasium, or an environment of Gymnasium that was made with
            ``render_mode="rgb_array"``.
        path: of the video, ending in .mp4; a strip of eight pictures is written beside it, ending in .png.
        seed: of the evaluation.
        action: sample from the policy, or take each sub-action's most likely choice (mode).
        steps: of the episode, at most.

    Raises:
        UserError: when there is no such environment, it draws no pictures, its sizes are not the policy's, or no video
            can be written.
    """
    nvec, size = module.action_spec.nvec, module.observation_size
    with camera(environment, max(nvec)) as (name, made, draw, fps):
        found = (made.action_spec.nvec, len(made.reset(0, 0)))
        if found != (nvec, size):
            raise UserError(
                f"{name} takes actions of {list(found[0])} choices and gives {found[1]} observation entries; the "
                f"policy was trained on {list(nvec)} and {size}"
            )
        (first,) = episode_seeds(seed, 1)
        return film(module, made, draw, Path(path), fps=fps, seed=first, action=action, steps=steps)


@contextmanager
def camera(given: Any, bins: int, **options: Any) -> Iterator[tuple[str, Environment, Camera, float]]:
    """What draws an environment: its name, one of it, a function that draws its state, and pictures per second.

    Args:
        given: as for `filmed`.
        bins: choices of each sub-action of a task of the benchmark.
        options: of an environment that Gymnasium makes here.

    Raises:
        UserError: when there is no such environment, or it draws no pictures.
    """
    if isinstance(given, str) and given in TASKS:
        with _benchmark_camera(given, bins) as (made, draw, fps):
            yield given, made, draw, fps
        return
    from spinrl.tasks.gymnasium_env import GymnasiumEnvironment

    made_here = isinstance(given, str)
    environment, name = given, getattr(getattr(given, "spec", None), "id", None) or type(given).__name__
    if made_here:
        import gymnasium

        try:
            environment, name = gymnasium.make(given, **{**options, "render_mode": "rgb_array"}), given
        except Exception as error:  # whatever an environment of somebody's raises
            raise UserError(f"{given} draws no pictures: {' '.join(str(error).split())}") from error
    if getattr(environment, "render_mode", None) != "rgb_array":
        raise UserError(f"{name} has to be made with render_mode='rgb_array' to be filmed")
    try:
        fps = float(environment.metadata.get("render_fps", 30))
        yield name, GymnasiumEnvironment(name, [environment]), environment.render, fps
    finally:
        if made_here:
            environment.close()


@contextmanager
def _benchmark_camera(task: str, bins: int) -> Iterator[tuple[Environment, Camera, float]]:
    from spinrl.tasks.dm_control_env import BatchedEnvironment  # MuJoCo is imported by those alone who simulate
    from spinrl.tasks.rendering import Drawing

    made = BatchedEnvironment(get_task(task), bins, 1)
    simulator = made.simulators[0]
    try:
        drawing = Drawing(simulator.physics)
        try:
            yield made, drawing, round(1 / simulator.control_timestep())
        finally:
            drawing.close()
    finally:
        made.close()
