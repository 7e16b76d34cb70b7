"""The strip of a cell's last evaluation: its first episode is played once more, by its actions, and drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from harness.experiment import Cell, Experiment
from spinrl.evaluation.film import STRIP, write_strip
from spinrl.face.filming import camera
from spinrl.tasks import Environment, Gymnasium, RenderingError


class Remembered:
    """Environments that remember the first episode of the first of them: its seed and its actions.

    Drawing while they step would need each simulator in this process, and would be timed as evaluation.

    Args:
        environment: the environments.

    Attributes:
        seed: of the episode, None before it.
        actions: each (N,) choices.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.num_envs, self.action_spec = environment.num_envs, environment.action_spec
        self.seed: int | None = None
        self.actions: list[np.ndarray] = []
        self._first = True

    def reset(self, index: int, seed: int) -> np.ndarray:
        if index == 0:
            self._first = self.seed is None
            self.seed = seed if self.seed is None else self.seed
        return self._environment.reset(index, seed)

    def step(self, actions: np.ndarray, indices: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        if self._first and not self.over([0]):
            self.actions.append(np.array(actions[0 if indices is None else list(indices).index(0)]))
        return self._environment.step(actions, indices)

    def over(self, indices: Sequence[int]) -> bool:
        return self._environment.over(indices)

    def allowed(self, indices: Sequence[int]) -> np.ndarray | None:
        return self._environment.allowed(indices)

    def close(self) -> None:
        self._environment.close()


def strip_of(experiment: Experiment, cell: Cell, episode: Remembered) -> bytes | None:
    """`STRIP` pictures of an episode side by side, as PNG; None where nothing draws its simulator.

    Raises:
        Exception: whatever a simulator of somebody's raises when it is drawn.
    """
    simulator = experiment.simulators.get(cell.key.task)
    if episode.seed is None or not isinstance(simulator, Gymnasium | None):
        return None
    given, options = (simulator.id, simulator.options) if simulator else (cell.key.task, {})
    last = len(episode.actions)
    shown = np.linspace(0, last, STRIP).round().astype(int).tolist()
    drawn: dict[int, np.ndarray] = {}
    try:
        with camera(given, max(episode.action_spec.nvec), **options) as (_name, environment, draw, _fps):
            environment.reset(0, episode.seed)
            for step in range(last + 1):
                if step in shown:
                    drawn[step] = draw()
                if step < last:
                    environment.step(episode.actions[step][None], [0])
    except RenderingError:
        return None
    file = io.BytesIO()
    write_strip([drawn[step] for step in shown], file)
    return file.getvalue()
