"""A film shows the episode of an evaluation, from its first state to its last."""

import gymnasium
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from spinrl.errors import UserError
from spinrl.evaluation.film import STRIP
from spinrl.face.filming import filmed
from spinrl.policies import Factored
from spinrl.specs import ActionSpec


class Lamp(gymnasium.Env):
    """Gets brighter with each step, up to its end; rewards the first sub-action's choice."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, as Gymnasium has it
    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.MultiDiscrete([3, 2])

    def __init__(self, length=200, render_mode="rgb_array"):
        self.length, self.render_mode, self.at = length, render_mode, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = 0
        return self.observe(), {}

    def step(self, action):
        self.at += 1
        return self.observe(), float(action[0]), self.at == self.length, False, {}

    def observe(self):
        return np.array([self.at / self.length], np.float32)

    def render(self):
        return np.full((16, 24, 3), self.at, np.uint8)


def policy(nvec=(3, 2)):
    return Factored().build(1, ActionSpec(nvec), seed=0)


@pytest.mark.parametrize("length", [3, 63, 64, 200])
def test_a_strip_goes_from_the_first_state_to_near_the_last(length, tmp_path):
    film = filmed(policy(), Lamp(length), tmp_path / "lamp.mp4", seed=0, steps=1000)
    assert film.steps == length and film.video.stat().st_size > 500
    strip = imread(film.strip)
    assert strip.shape[:2] == (16, STRIP * 24)
    shown = (255 * strip[0, ::24, 0]).round()
    assert shown[0] == 0 and (np.diff(shown) >= 0).all()
    assert length - shown[-1] < max(1, length / 16)  # of long episodes, every second or fourth picture is kept


def test_a_film_is_of_the_policys_own_choices_and_cut_where_it_is_told_to(tmp_path):
    module = policy().eval()
    with torch.no_grad():
        module.heads.bias[0, 0, :2] = torch.tensor([-9.0, 9.0])  # the first sub-action's own choice is the second
        assert module.mode(torch.tensor([[0.0], [1 / 200]]))[:, 0].tolist() == [1, 1]
    film = filmed(module, Lamp(), tmp_path / "lamp.mp4", seed=0, action="mode", steps=2)
    assert film.steps == 2 and film.returned == 2.0


@pytest.mark.parametrize(
    ("environment", "name", "reason"),
    [
        (Lamp(), "lamp.avi", "a video's name must end in .mp4; found lamp.avi"),
        (Lamp(), "none/lamp.mp4", "there is no folder"),
        (Lamp(render_mode=None), "lamp.mp4", "Lamp has to be made with render_mode='rgb_array'"),
        ("NoSuch-v0", "lamp.mp4", "NoSuch-v0 draws no pictures: "),
        ("CartPole-v1", "lamp.mp4", r"takes actions of \[2\] choices and gives 4 observation entries"),
    ],
)
def test_what_cannot_be_filmed_is_refused_in_one_line(environment, name, reason, tmp_path):
    with pytest.raises(UserError, match=reason) as error:
        filmed(policy(), environment, tmp_path / name, seed=0, steps=5)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
