"""Tasks as data, bins as control values, and environments whose returns depend on their own seeds alone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dm_control import suite
from dm_control.rl.control import PhysicsError
from hypothesis import given
from hypothesis import strategies as st

from harness.reporting.statistics import normalized_score
from spinrl.tasks import (
    TASKS,
    BatchedEnvironment,
    ParallelEnvironment,
    control_values,
    get_task,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TASKS)
def test_sizes_and_first_observation_are_the_suites(name):
    task = get_task(name)
    environment = BatchedEnvironment(task, 3, 1)
    observation = environment.reset(0, 5)
    reference = suite.load(task.domain, task.task, task_kwargs={"random": np.random.RandomState(5)}).reset()
    expected = np.concatenate([np.ravel(value) for value in reference.observation.values()])
    assert observation.shape == (task.observation_size,)
    np.testing.assert_allclose(observation, expected, rtol=1e-5)
    as_elsewhere = (environment.controls == np.linspace(-1, 1, 3)).all()  # dmc_datasets takes no other limits
    assert as_elsewhere == (name != "quadruped-walk")


@pytest.mark.parametrize("name", TASKS)
def test_every_environment_steps_as_the_suites_own_whatever_another_does(name):
    task = get_task(name)
    both, own = BatchedEnvironment(task, 3, 2), suite.load(task.domain, task.task)
    actions = np.random.default_rng(0).integers(0, 3, (20, 2, task.num_sub_actions))
    own.task._random = np.random.RandomState(7)
    both.reset(1, 7), both.reset(0, 8), own.reset()
    for pair in actions:
        observations, rewards = both.step(pair)
        expected = own.step(both.controls[np.arange(task.num_sub_actions), pair[1]])
        flat = np.concatenate([np.ravel(value) for value in expected.observation.values()]).astype(np.float32)
        assert rewards[1] == expected.reward and observations[1].tobytes() == flat.tobytes()


def test_a_simulation_that_blows_up_is_an_error_each_time_and_a_reset_mends_it():
    task = get_task("cheetah-run")
    environment = BatchedEnvironment(task, 3, 2)
    actions = np.ones((2, task.num_sub_actions), dtype=np.int64)
    for _ in range(2):
        environment.reset(0, 1), environment.reset(1, 1)
        environment.step(actions)
        environment.simulators[1].physics.data.qvel[0] = np.nan
        with pytest.raises(PhysicsError, match="mjWARN_BADQ"):
            environment.step(actions)
        environment.step(actions)  # nothing new


@given(st.integers(2, 100), st.floats(-5, 0), st.floats(0.1, 5))
def test_bins_include_both_ends_evenly(bins, low, span):
    values = control_values(np.array([low]), np.array([low + span]), [bins])[0]
    assert values[0] == low and values[-1] == pytest.approx(low + span)
    np.testing.assert_allclose(np.diff(values), span / (bins - 1), rtol=1e-6)


def test_three_bins_are_exactly_minus_one_zero_one():
    assert control_values(np.array([-1.0]), np.array([1.0]), [3]).tolist() == [[-1.0, 0.0, 1.0]]


def test_fewer_choices_are_padded_with_nan():
    assert np.isnan(control_values(np.zeros(2), np.ones(2), [2, 3])[0, 2])


@pytest.mark.parametrize("bins", [1, 101, 3.0, True, "3"])
def test_bins_outside_two_to_hundred_are_refused(bins):
    with pytest.raises(ValueError, match="from 2 to 100"):
        get_task("finger-spin").action_spec(bins)


def test_unknown_task_names_the_nearest():
    with pytest.raises(KeyError, match="did you mean 'humanoid-stand'"):
        get_task("humanoid-stnad")


def test_normalized_score_is_zero_at_random_and_hundred_at_expert():
    task = get_task("dog-trot")

    def score(bins, value):
        return normalized_score(value, task.random_return(bins), task.expert_return(bins))

    assert score(10, 6.48) == 0
    assert score(10, 736.95) == 100
    assert score(7, 724.37) == 100  # unpublished bin counts fall back on 3 bins


def _play(environment, seeds, steps=15):
    observations = np.stack([environment.reset(i, seed) for i, seed in enumerate(seeds)])
    trace = [observations]
    rng = [np.random.default_rng(seed) for seed in seeds]
    for _ in range(steps):
        actions = np.stack([each.integers(0, 3, environment.task.num_sub_actions) for each in rng])
        observations, rewards = environment.step(actions, range(len(seeds)))
        trace.append(np.concatenate([observations, rewards[:, None].astype(np.float32)], 1))
    return trace


def test_an_episode_is_the_same_whatever_runs_beside_it_and_before_it():
    task = get_task("humanoid-stand")
    alone, many = BatchedEnvironment(task, 3, 1), BatchedEnvironment(task, 3, 3)
    _play(many, [7, 8, 9])  # an earlier episode must leave no trace
    together = _play(many, [1, 2, 3])
    single = _play(alone, [2])
    for a, b in zip(together, single, strict=True):
        np.testing.assert_array_equal(a[1], b[0])


def test_worker_processes_give_the_same_episodes():
    task = get_task("cheetah-run")
    parallel = ParallelEnvironment(task, 3, 3, workers=2)
    try:
        for a, b in zip(_play(parallel, [4, 5, 6]), _play(BatchedEnvironment(task, 3, 3), [4, 5, 6]), strict=True):
            np.testing.assert_array_equal(a, b)
        with pytest.raises(RuntimeError, match="has died"):
            for process in parallel._processes:
                process.kill()
                process.join()
            _play(parallel, [1, 2, 3])
    finally:
        parallel.close()


def test_default_pose_starts_upright():
    environment = BatchedEnvironment(get_task("humanoid-stand"), 3, 1)
    assert environment.reset(0, 1)[21] < 1.5
    assert environment.start_in_default_pose(0)[21] == pytest.approx(1.69, abs=0.01)  # head height, metres


def _in_a_new_process(program):
    environment = {**os.environ, "MUJOCO_GL": "nonsense"}
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, check=True, timeout=200)


def test_what_another_project_set_for_drawing_does_not_matter():
    _in_a_new_process("""
import os
from spinrl.tasks import BatchedEnvironment
assert os.environ["MUJOCO_GL"] == "nonsense"
""")


def test_own_data_does_without_mujoco():
    _in_a_new_process("""
import sys
from harness.command_line import use_packaged_configs
from harness.experiment import Experiment
from harness.study import make_plan
from spinrl.config import load
use_packaged_configs()
load(Experiment, ["gin/own_data.gin"], ["Experiment.tasks=['clinic']"])
import harness.cells.run_cell, spinrl
all(getattr(spinrl, name) for name in spinrl.__all__)
assert {"mujoco", "mujoco.mjx", "dm_control"}.isdisjoint(sys.modules)  # nor is there a trace of hiding it
""")
