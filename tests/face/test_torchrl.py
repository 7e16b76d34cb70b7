"""TorchRL takes our environments, policies and data as its own."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from tensordict.nn import InteractionType, set_interaction_type
from torchrl.collectors import Collector
from torchrl.envs import GymEnv, SerialEnv
from torchrl.envs.utils import check_env_specs

import spinrl
from spinrl.data import ReplayLoader
from spinrl.specs import ActionSpec
from tests.face.samples import CHOICES, arrays, fit

NAME = "spinrl/humanoid-stand-3bins-v0"
pytestmark = pytest.mark.filterwarnings("ignore")  # of TorchRL, about its own next versions


@pytest.fixture(scope="module")
def policy():
    rng = np.random.default_rng(0)
    data = spinrl.Dataset.from_arrays(
        rng.normal(size=(60, 67)),
        rng.integers(0, 3, (60, 21)),
        rng.random(60),
        terminals=np.arange(60) % 20 == 19,
        choices=3,
    )
    return fit(data, spinrl.Factored(), training=spinrl.Training(gradient_steps=2))


@pytest.mark.slow
def test_a_space_made_before_torchrl_is_imported_is_one_of_choices_too():
    code = """
import sys, spinrl, gymnasium
made = gymnasium.make("spinrl/Clinic-v0")
assert "torchrl" not in sys.modules
from torchrl.envs import GymWrapper
assert GymWrapper(made).action_spec.shape == (3,)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_environment_steps_with_the_policys_module(policy):
    environment = GymEnv(NAME)
    check_env_specs(environment, seed=0)
    with torch.no_grad():
        drawn = environment.rollout(1000, policy.module)
    assert drawn.shape == (1000,) and drawn["next", "truncated"][-1] and not drawn["next", "terminated"].any()
    assert environment.action_spec.is_in(drawn["action"][0])
    environment.set_seed(4)
    with torch.no_grad(), set_interaction_type(InteractionType.DETERMINISTIC):
        steps = environment.rollout(5, policy.module)
    assert (policy.act(steps["observation"].numpy()) == steps["action"].numpy()).all()
    environment.close()
    alone = gymnasium.make(NAME)
    alone.reset(seed=4)  # as `set_seed` does; the rollout begins with the next episode
    alone.reset()
    for action, observation, reward in zip(
        steps["action"], steps["next", "observation"], steps["next", "reward"], strict=True
    ):
        found = alone.step(action.numpy())
        assert found[0].tobytes() == observation.numpy().tobytes() and found[1] == pytest.approx(reward.item())
    alone.close()


@pytest.mark.parametrize("policy", ["Factored", "Autoregressive", "SAINT"])
def test_environments_side_by_side_with_mixed_choices(policy):
    policy = getattr(spinrl, policy)().build(5, ActionSpec(CHOICES), seed=0)
    environments = SerialEnv(2, lambda: GymEnv("spinrl/Clinic-v0"))
    check_env_specs(environments, seed=0)
    steps = environments.rollout(3, policy, break_when_any_done=False)
    assert steps["action"].shape == (2, 3, 3) and environments.action_spec.is_in(steps["action"][:, 0])
    assert policy(steps.select("observation"))["logits"].shape == (2, 3, 3, 5)
    environments.close()


def test_a_collector_takes_the_policys_module(policy):
    collector = Collector(GymEnv(NAME), policy.module, frames_per_batch=4, total_frames=8)
    batches = [batch.clone() for batch in collector]
    collector.shutdown()
    assert [batch["action"].shape for batch in batches] == [(4, 21), (4, 21)]
    assert torch.isfinite(batches[1]["sample_log_prob"]).all()


def test_a_replay_buffer_has_torchrls_keys_and_the_batches_of_a_training(data):
    batch = data.replay_buffer(64, seed=5).sample()
    assert batch["observation"].shape == (64, 4) and batch["action"].shape == (64, len(CHOICES))
    ends = ("reward", "terminated", "truncated", "done")
    assert set(batch["next"].keys()) == {"observation", *ends}
    assert all(batch["next", key].shape == (64, 1) for key in ends)
    trained_on = ReplayLoader(data.store, 64, seed=5).sample()
    assert all(torch.equal(batch[key], trained_on[key]) for key in trained_on.keys(True, True))


def test_a_replay_buffer_tells_ends_of_the_task_from_cut_episodes():
    rows = arrays()
    cut = spinrl.Dataset.from_arrays(
        rows["observations"],
        rows["actions"],
        np.arange(300),
        terminals=np.arange(300) % 30 == 14,
        timeouts=np.arange(300) % 30 == 29,
        next_observations=np.roll(rows["observations"], -1, axis=0),  # without it, a cut has none
        choices=CHOICES,
    )
    batch = cut.replay_buffer(400).sample()["next"]
    step = batch["reward"].long() % 30
    assert {14, 29} < set(step.flatten().tolist())
    assert torch.equal(batch["terminated"], step == 14) and torch.equal(batch["truncated"], step == 29)
    assert torch.equal(batch["done"], (step == 14) | (step == 29))
