"""The benchmark's tasks as Gymnasium's and TorchRL's environments: found, checked, and equal to the batched ones."""

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from spinrl.tasks import TASKS, BatchedEnvironment, get_task
from spinrl.tasks import rendering as drawn_by
from spinrl.tasks.task_env import TaskEnv

NAME = "spinrl/cheetah-run-3bins-v0"


def test_every_task_and_number_of_bins_is_registered():
    names = {name for name in gymnasium.registry if name.startswith("spinrl/")} - {"spinrl/Clinic-v0"}
    assert names == {
        f"spinrl/{task}{bins}-v0" for task in TASKS for bins in ("", *(f"-{n}bins" for n in range(2, 101)))
    }


@pytest.mark.parametrize(
    "code",
    [
        f"import spinrl, gymnasium; gymnasium.spec('{NAME}'); assert 'mujoco' not in sys.modules",
        f"import gymnasium; gymnasium.make('spinrl:{NAME}')",
        # Libraries ask whether there is Gymnasium before somebody imports it.
        f"import spinrl, importlib.util as u; u.find_spec('gymnasium'); import gymnasium; gymnasium.spec('{NAME}')",
    ],
    ids=["spinrl first", "by the name alone", "asked for before"],
)
def test_gymnasium_finds_the_tasks_in_either_order_of_imports_and_needs_no_torch(code, tmp_path):
    code = f"import sys; {code}; assert 'torch' not in sys.modules"
    left_in_a_profile = {**os.environ, "MUJOCO_GL": "nonsense"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=left_in_a_profile, check=True)


@pytest.mark.filterwarnings("ignore::UserWarning")  # observations have no bounds
def test_gymnasiums_own_checks_pass():
    environment = gymnasium.make("spinrl/finger-spin-v0", bins=5).unwrapped
    assert environment.action_space == gymnasium.spaces.MultiDiscrete([5, 5])
    check_env(environment, skip_render_check=True)
    environment.close()


def test_steps_equal_those_of_the_batched_environment_to_the_bit():
    ours = BatchedEnvironment(get_task("cheetah-run"), 3, 2)
    environment, many = gymnasium.make(NAME), gymnasium.make_vec(NAME, num_envs=2)
    rng = np.random.default_rng(0)
    several, _ = many.reset(seed=[4, 9])
    for index, seed in enumerate((4, 9)):
        first, _ = environment.reset(seed=seed)
        assert ours.reset(index, seed).tobytes() == first.tobytes() == several[index].tobytes()
    for _ in range(5):
        actions = rng.integers(0, 3, (2, 6))
        expected, rewards = ours.step(actions)
        several, reward_of_each, *_ = many.step(actions)
        observation, reward, terminated, truncated, _ = environment.step(actions[1])
        assert observation.tobytes() == expected[1].tobytes() and (reward, terminated, truncated) == (rewards[1], 0, 0)
        assert several.tobytes() == expected.tobytes() and reward_of_each.tolist() == rewards.tolist()


def test_an_episode_is_cut_off_after_a_thousand_steps_and_an_unseeded_one_starts_elsewhere():
    environment = gymnasium.make("spinrl/finger-spin-3bins-v0")
    starts = [environment.reset(seed=0)[0], *(environment.reset()[0] for _ in range(2))]
    assert len({start.tobytes() for start in starts}) == 3
    ends = [environment.step(np.array([1, 1]))[2:4] for _ in range(1000)]
    assert ends[-1] == (False, True) and set(ends[:-1]) == {(False, False)}


def test_a_picture_of_the_state():
    environment = gymnasium.make(NAME, render_mode="rgb_array", width=64, height=48)
    environment.reset(seed=0)
    try:
        before = environment.render()
    except drawn_by.RenderingError as error:
        pytest.skip(str(error))
    for _ in range(5):
        environment.step(np.array([2, 0, 2, 0, 2, 0]))
    after = environment.render()
    environment.close()
    assert before.shape == (48, 64, 3) and before.dtype == np.uint8 and before.std() > 10
    assert not np.array_equal(before, after)


def test_without_a_library_that_draws_the_message_says_what_to_install(monkeypatch):
    environment = gymnasium.make(NAME, render_mode="rgb_array")
    environment.reset(seed=0)
    monkeypatch.setattr(drawn_by, "LIBRARIES", {"no_such_library": "libegl1"})
    with pytest.raises(drawn_by.RenderingError, match=r"no_such_library \(No module.*; apt install libegl1") as error:
        environment.render()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bins": 101}, "from 2 to 100"),
        ({"render_mode": "ansi"}, "render_mode must be 'rgb_array' or None, got 'ansi'"),
        ({"camera": "no"}, r"no camera 'no'; it has -1 \(free\), 0 \(side\)"),
        ({"width": 1000}, "up to 640 × 480 pixels, got 1000 × 240"),
    ],
)
def test_what_cannot_be_made_says_why(options, reason):
    with pytest.raises(ValueError, match=reason):
        environment = TaskEnv("cheetah-run", **{"render_mode": "rgb_array"} | options)
        environment.reset()
        environment.render()


@pytest.mark.filterwarnings("ignore")
def test_torchrl_makes_it_too():
    from torchrl.envs import GymEnv
    from torchrl.envs.utils import check_env_specs

    environment = GymEnv(NAME)
    check_env_specs(environment, seed=0)
    rollout = environment.rollout(3)
    assert rollout["observation"].shape == (3, 17) and rollout["next", "reward"].shape == (3, 1)
    environment.close()
