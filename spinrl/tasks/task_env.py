"""A task of the benchmark as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from spinrl.tasks.benchmark import get_task
from spinrl.tasks.choice_space import ChoiceSpace
from spinrl.tasks.dm_control_env import BatchedEnvironment
from spinrl.tasks.rendering import Drawing


class TaskEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One environment of a task; `gymnasium.make` makes it, e.g. ``spinrl/humanoid-stand-3bins-v0``.

    Its steps equal those of `spinrl.tasks.BatchedEnvironment`, in which policies are evaluated, to the bit. An episode
    ends only by the time limit of 1,000 steps, which `gymnasium.make` adds.

    Args:
        task: name of the task.
        bins: choices of each sub-action, 2 to 100, spread evenly over the actuator's range with both ends.
        render_mode: "rgb_array" or None.
        width, height: size of a picture in pixels.
        camera: number or name of one of the model's cameras; -1 for the free one.

    Attributes:
        action_space: MultiDiscrete, N sub-actions with `bins` choices.
        observation_space: Box (S,) of float32.

    Raises:
        KeyError: for an unknown task; the message lists the known ones.
        ValueError: for another number of bins or render mode.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 40}  # noqa: RUF012, as Gymnasium has it

    def __init__(
        self,
        task: str,
        bins: int = 3,
        render_mode: str | None = None,
        width: int = 320,
        height: int = 240,
        camera: int | str = 0,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
        self._environment = BatchedEnvironment(get_task(task), bins, 1)
        self._simulator = self._environment.simulators[0]
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": round(1 / self._simulator.control_timestep())}
        self._drawing: Drawing | None = None
        self._width, self._height, self._camera = width, height, camera
        self.action_space = ChoiceSpace(list(self._environment.action_spec.nvec))
        size = self._environment.task.observation_size
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode: with a seed as `BatchedEnvironment.reset` does with it, else with a drawn one."""
        super().reset(seed=seed)
        return self._environment.reset(0, int(self.np_random.integers(2**31)) if seed is None else seed), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step with (N,) choices."""
        observations, rewards = self._environment.step(np.asarray(action)[None])
        return observations[0], float(rewards[0]), False, False, {}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The state as a picture, (height, width, 3) uint8; None without a render mode.

        Raises:
            RenderingError: when no library draws here.
        """
        if self.render_mode is None:
            return None
        if self._drawing is None:
            self._drawing = Drawing(
                self._simulator.physics, width=self._width, height=self._height, camera=self._camera
            )
        return self._drawing()

    def close(self) -> None:
        """Free the simulator."""
        if self._drawing is not None:
            self._drawing.close()
            self._drawing = None
        self._environment.close()
