"""The Q-network, its update, and shipped weights that must belong to their cards."""

import importlib
import json
from importlib import resources
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spinrl import checkpoint, machine
from spinrl.behaviors import BehaviorError, DecoupledQNetwork, load_behavior, shipped
from spinrl.behaviors.train.decqn import DecQN
from spinrl.behaviors.train.learner import Learner
from spinrl.behaviors.train.loop import train
from spinrl.behaviors.train.shaping import Progressive, Upright
from spinrl.behaviors.train.ship import Candidate, _choose, choose, ship
from spinrl.specs import ActionSpec
from spinrl.tasks import TASKS, get_task

TINY = DecQN(
    task="finger-spin",
    hidden=(16,),
    num_actors=1,
    envs_per_actor=2,
    device="cpu",
    warmup_steps=1000,
    replay_capacity=2000,
    training_episode_steps=100,
)
BATCH = (  # as `SharedReplay.sample` gives it, of two transitions
    np.zeros((2, 9), np.float32),
    np.zeros((2, 2), np.int64),
    np.ones(2, np.float32),
    np.zeros(2, np.float32),
    np.zeros((2, 9), np.float32),
)


def test_a_fresh_network_values_everything_at_zero_whatever_the_scale():
    network = DecoupledQNetwork(4, ActionSpec((3, 3)), (8,))
    network.set_normalizer(torch.full((4,), 1e6), torch.tensor([1e6, 1.0, 0.0, 5.0]))
    utilities = network(torch.randn(5, 4) * 1e8)
    assert utilities.shape == (5, 2, 3) and (utilities == 0).all()


def test_mixed_cardinalities_are_refused():
    with pytest.raises(ValueError, match="equally many choices"):
        DecoupledQNetwork(4, ActionSpec((3, 2)), (8,))


@given(st.integers(2, 6), st.integers(2, 40))
def test_more_choices_are_interpolated_and_the_outermost_stay(before, after):
    network = DecoupledQNetwork(4, ActionSpec((before, before)), (8,))
    torch.nn.init.normal_(network.head.weight)
    torch.nn.init.normal_(network.head.bias)
    spec = ActionSpec((after, after))
    other = DecoupledQNetwork(4, spec, (8,))
    other.load_state_dict(network.state_for(spec))
    observation = torch.randn(5, 4)
    old, new = network(observation).detach().numpy(), other(observation).detach().numpy()
    points = np.linspace(0, before - 1, after)
    wanted = [[np.interp(points, np.arange(before), row) for row in rows] for rows in old]
    np.testing.assert_allclose(new, wanted, atol=1e-5)


def test_a_training_goes_on_from_a_behaviour_of_other_bins(tmp_path):
    start = load_behavior("cheetah-run", 3, "expert")
    config = attrs.evolve(TINY, task="cheetah-run", bins=5, hidden=tuple(start.card["hidden"]), critics=2)
    learner = Learner(config)
    learner.start_from(start)
    observation = torch.randn(6, get_task("cheetah-run").observation_size)
    assert torch.equal(learner.network(observation)[..., ::2], start.network(observation))
    # The second critic has another opinion, near the first one's, and targets are as their networks.
    first, second = (network(observation) for network in learner.networks)
    assert 0 < float((first - second).abs().max()) < float(first.abs().max())
    for network, target in zip(learner.networks, learner.targets, strict=True):
        assert torch.equal(network(observation), target(observation))
    other = Learner(config)
    other.load(learner.state())
    assert other.can_act and other.started_from == f"cheetah-run-3bins-expert ({start.fingerprint})"


def test_a_learner_goes_on_from_any_device_on_any_other(device, tmp_path):
    start = load_behavior("cheetah-run", 3, "expert")
    config = attrs.evolve(TINY, task="cheetah-run", hidden=tuple(start.card["hidden"]), critics=2)
    there, here = Learner(attrs.evolve(config, device=device)), Learner(config)
    for learner in (there, here):
        learner.start_from(start)
    size = get_task("cheetah-run").observation_size
    rng = np.random.default_rng(0)
    observation = rng.normal(size=(64, size)).astype(np.float32)
    action, reward = rng.integers(0, 3, (64, 6)), rng.random(64, np.float32)
    batch = (observation, action, reward, np.full(64, 0.9, np.float32), observation)
    assert float(there.update(batch)) == pytest.approx(float(here.update(batch)), rel=1e-3)
    assert {value.device.type for value in there.networks.state_dict().values()} == {device}

    for first, second in ((there, config), (here, attrs.evolve(config, device=device))):
        checkpoint.save(first.state(), tmp_path / "learner.pt")
        other = Learner(second)
        other.load(checkpoint.load(tmp_path / "learner.pt"))
        assert other.updates == 1
        for kept, read in zip(first.networks.parameters(), other.networks.parameters(), strict=True):
            assert read.device.type == second.device and torch.equal(kept.cpu(), read.cpu())
        assert float(first.update(batch)) == pytest.approx(float(other.update(batch)), rel=1e-3)


def test_what_is_left_to_the_machine_is_what_it_has(monkeypatch):
    config = attrs.evolve(TINY, num_actors=0, device="auto")
    for cores, has_gpu, wanted in ((1, False, (1, "cpu")), (2, True, (1, "cuda")), (16, False, (15, "cpu"))):
        monkeypatch.setattr("spinrl.behaviors.train.decqn.available_cores", lambda cores=cores: cores)
        monkeypatch.setattr(machine.torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        taken = config.on_this_machine()
        assert (taken.num_actors, taken.device) == wanted
    assert attrs.evolve(config, num_actors=4).on_this_machine().num_actors == 4
    with pytest.raises(ValueError, match="no CUDA device"):
        attrs.evolve(config, device="cuda").on_this_machine()


def test_a_phase_lasts_until_the_command_is_another_and_some_of_it_was_learnt():
    learner = Learner(TINY)
    for command, updates in (("abandoned", 0), ("first", 0), ("first", 1), ("abandoned", 1), ("first", 1), ("last", 0)):
        learner.begin_phase(command)
        for _ in range(updates):
            learner.update(BATCH)
        resumed = Learner(TINY)
        resumed.load(learner.state())
        learner = resumed
    wanted = [(0, "first"), (1, "abandoned"), (2, "first"), (3, "last")]
    assert [(phase["from_updates"], phase["command"]) for phase in learner.phases] == wanted


def test_a_resumed_training_has_the_learning_rate_that_is_configured_now():
    first = Learner(TINY)
    second = Learner(attrs.evolve(TINY, learning_rate=1e-5))
    second.load(first.state())
    second.update(BATCH)
    assert [group["lr"] for group in second.optimizer.param_groups] == [1e-5]


def test_the_learning_rate_falls_over_all_updates_those_before_a_resumption_too():
    config = attrs.evolve(TINY, learning_rate=1e-2, final_learning_rate=1e-4, decay_updates=4)
    learner, rates = Learner(config), []
    for update in range(6):
        if update == 3:
            resumed = Learner(config)
            resumed.load(learner.state())
            learner = resumed
        learner.update(BATCH)
        rates += [group["lr"] for group in learner.optimizer.param_groups]
    assert rates == pytest.approx([1e-2, 10**-2.5, 1e-3, 10**-3.5, 1e-4, 1e-4])
    assert attrs.evolve(TINY, learning_rate=1e-2).learning_rate_at(10**9) == 1e-2


@pytest.mark.slow
def test_what_a_training_starts_from_can_be_chosen_again(tmp_path):
    start = load_behavior("cheetah-run", 3, "expert")
    config = attrs.evolve(TINY, task="cheetah-run", bins=4, hidden=tuple(start.card["hidden"]))
    for _progress in train(config, tmp_path, command="by hand", start=start, report_every=0.1):
        break  # before the first update
    chosen = choose(config, tmp_path, episodes=2, shortlist=1)
    for level, candidate in chosen.items():
        behavior = load_behavior("cheetah-run", 3, level)
        assert (
            candidate.updates == 0 and candidate.started_from == f"cheetah-run-3bins-{level} ({behavior.fingerprint})"
        )
    assert chosen["expert"].mean > 2 * chosen["medium"].mean > 0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40).map(sorted), st.floats(0, 30))
def test_medium_is_nearest_to_a_third_of_expert_however_far_the_running_return_lags(returns, lag):
    paths = [Path(f"{number:03d}") for number in range(len(returns))]
    running = {path: max(value - lag, 0.0) for path, value in zip(paths, returns, strict=True)}

    def judge(path):
        return Candidate(path=path, updates=0, env_steps=0, seconds=0.0, returns=(returns[int(path.name)],))

    chosen = _choose(running, judge, shortlist=len(returns))
    assert chosen["expert"].mean == returns[-1]
    third = returns[-1] / 3
    assert abs(chosen["medium"].mean - third) == pytest.approx(min(abs(value - third) for value in returns))


def test_updates_drive_the_value_to_the_target_of_double_q():
    learner = Learner(attrs.evolve(TINY, learning_rate=3e-3))
    rng = np.random.default_rng(0)
    observation = rng.normal(size=(32, 9)).astype(np.float32)
    action = rng.integers(0, 3, (32, 2))
    reward, discount = np.full(32, 0.7, np.float32), np.zeros(32, np.float32)  # no bootstrap: the target is known
    losses = [float(learner.update((observation, action, reward, discount, observation))) for _ in range(300)]
    with torch.no_grad():
        chosen = learner.network(torch.from_numpy(observation)).gather(-1, torch.from_numpy(action)[..., None]).mean(1)
    assert losses[-1] < losses[0] / 50
    np.testing.assert_allclose(chosen.squeeze().numpy(), 0.7, atol=0.1)


def test_the_least_of_the_targets_judges():
    learner = Learner(attrs.evolve(TINY, critics=2))
    for target, value in zip(learner.targets, (3.0, 1.0), strict=True):
        target.head.bias.data.fill_(value)
    observation, action = torch.zeros(4, 9), torch.zeros(4, 2, dtype=torch.int64)
    loss = learner.loss(observation, action, torch.full((4,), 0.5), torch.full((4,), 0.9), observation)
    # Both networks start at 0, the target is 0.5 + 0.9 * 1, and Huber's loss of 1.4 is 1.4 - 0.5.
    assert float(loss) == pytest.approx(2 * 0.9)


def test_the_upright_bonus_grows_with_height_and_uprightness():
    shaping = Upright(weight=0.5, height_index=0, height=1.4, upright_index=1)
    assert shaping.bonus(np.array([1.4, 1.0])) == pytest.approx(0.5)
    assert shaping.bonus(np.array([2.0, 1.0])) == pytest.approx(0.5)
    assert shaping.bonus(np.array([0.7, 1.0])) == pytest.approx(0.25)
    assert shaping.bonus(np.array([1.4, -1.0])) == 0


def test_progressive_bonuses_add_up_and_end_at_their_targets():
    shaping = Progressive(indices=[2, 0], targets=[2.0, 0.5], weights=[0.1, 0.6])
    assert shaping.bonus(np.array([0.25, 9.0, 1.0])) == pytest.approx(0.05 + 0.3)
    assert shaping.bonus(np.array([5.0, 9.0, 5.0])) == pytest.approx(0.7)
    assert shaping.bonus(np.array([-1.0, 9.0, -1.0])) == 0
    with pytest.raises(ValueError, match="same length"):
        Progressive(indices=[1], targets=[1.0, 1.0], weights=[1.0])


@pytest.mark.parametrize("name", shipped())
def test_shipped_weights_belong_to_their_cards_and_stay_small(name):
    task, bins, level = name.rsplit("-", 2)
    loaded = load_behavior(task, int(bins.removesuffix("bins")), level)
    spec = get_task(task)
    observation = np.random.default_rng(0).normal(size=(5, spec.observation_size)).astype(np.float32)
    actions = loaded.act(observation)
    assert actions.shape == (5, spec.num_sub_actions)
    np.testing.assert_array_equal(actions[1:2], loaded.act(observation[1:2]))  # the same alone
    weights = resources.files("spinrl.behaviors") / "weights" / f"{name}.safetensors"
    assert len(weights.read_bytes()) < 1_000_000
    assert len(loaded.card["returns"]) >= 10
    assert loaded.card["return_mean"] == pytest.approx(np.mean(loaded.card["returns"]), abs=0.01)
    assert loaded.card["learning_curve"] and loaded.card["phases"][0]["from_updates"] == 0
    assert all(trial["what"] and trial["return"] >= 0 for trial in loaded.card["trials"])


def test_every_task_ships_expert_and_medium():
    sizes = [(task, 3) for task in TASKS] + [("dog-trot", 10), ("dog-trot", 30)]
    wanted = {f"{task}-{bins}bins-{level}" for task, bins in sizes for level in ("expert", "medium")}
    assert wanted <= set(shipped())


def test_what_is_not_shipped_is_named_with_the_command_that_trains_it():
    with pytest.raises(BehaviorError, match=r"tools\.train_behavior --task dog-trot --bins 7"):
        load_behavior("dog-trot", 7, "expert")


@pytest.mark.slow
def test_training_resumes_from_its_folder_on_another_machine_and_ships(device, tmp_path, monkeypatch):
    def until(updates, env_steps, command, **machine):
        often = {"report_every": 0.2, "save_every": 0.2, "snapshot_every": 0.2}
        for progress in train(attrs.evolve(TINY, **machine), tmp_path, command=command, **often):
            enough = progress["updates"] >= updates and progress["env_steps"] > env_steps
            if enough and progress.get("greedy") is not None:
                return progress

    first = until(20, 0, "first", device=device)
    assert checkpoint.load(tmp_path / "learner.pt")["updates"] >= 20
    second = until(first["updates"] + 20, first["env_steps"], "second", num_actors=2)
    assert second["seconds"] > first["seconds"]

    weights = tmp_path / "weights"
    for level, candidate in choose(TINY, tmp_path, episodes=2, shortlist=1).items():
        ship(TINY, candidate, level, weights, command="", notes="a test")
    monkeypatch.setattr(importlib.import_module("spinrl.behaviors.shipped"), "_weights_folder", lambda: weights)
    loaded = load_behavior("finger-spin", 3, "expert")
    phases = checkpoint.load(tmp_path / "learner.pt")["phases"]
    assert [phase["command"] for phase in phases] == ["first", "second"]
    assert phases[1]["from_updates"] >= first["updates"]
    reached = [phase for phase in phases if phase["from_updates"] < loaded.card["updates"]]
    assert loaded.card["phases"] == reached
    assert loaded.card["configuration"]["fields"]["num_actors"] == len(reached)  # one, then two
    curve = loaded.card["learning_curve"]
    assert [point["updates"] for point in curve] == sorted(point["updates"] for point in curve)
    assert 1 <= len(curve) <= 24 and all(point["return"] >= 0 and point["env_steps"] > 0 for point in curve)
    assert loaded.act(np.zeros((1, 9), np.float32)).shape == (1, 2)

    card = json.loads((weights / "finger-spin-3bins-expert.json").read_text())
    (weights / "finger-spin-3bins-expert.json").write_text(json.dumps({**card, "weights_sha256": "0" * 64}))
    with pytest.raises(BehaviorError, match="does not belong to its card"):
        load_behavior("finger-spin", 3, "expert")
