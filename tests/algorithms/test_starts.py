"""Starts of critics and policies: what they compute, and what every algorithm promises of them."""

import numpy as np
import pytest
import torch

from spinrl import testing as contracts
from spinrl.algorithms import AWAC, BCQ, IQL, DivergedError, Imitation, MonteCarloCritics, returns_to_go
from spinrl.cache import home
from spinrl.data import Episode, ReplayLoader, StoreError
from spinrl.machine import ResolvedMachine
from spinrl.policies import Factored
from spinrl.specs import ActionSpec
from tests.algorithms.policy_samples import POLICIES
from tests.data.store_samples import random_episode, write_store

SPEC = ActionSpec([2, 3])
ALGORITHMS = (IQL(hidden=[16, 16]), AWAC(hidden=[16, 16]), BCQ(hidden=[16, 16]))
CRITICS = MonteCarloCritics(steps=3, batch_size=8)


@pytest.fixture
def store(tmp_path):
    episodes = [random_episode(9, SPEC, contracts.SIZE, seed, terminated=seed % 2 == 0) for seed in range(4)]
    return write_store(tmp_path / "s", episodes, SPEC, contracts.SIZE, bins=None)


def make(start, algorithm, store, *, seed=0, dropout=0.1, **told):
    gather = ReplayLoader(store, 8, seed).gather
    policy = {"dropout": dropout}
    return start.make(algorithm, store, gather, seed=seed, policy=policy, standardized=False, **told)


def test_returns_to_go_end_with_termination_and_go_on_after_a_cut(tmp_path):
    flags = np.array([False, False, True])
    whole = dict(observations=np.zeros((4, contracts.SIZE), np.float32), actions=np.zeros((3, 2), int))
    rewards = np.array([1.0, 2.0, 4.0])
    ended = Episode(**whole, rewards=rewards, terminated=flags, truncated=~flags & False)
    cut = Episode(**whole, rewards=rewards, terminated=flags & False, truncated=flags)
    store = write_store(tmp_path / "s", [ended, cut], SPEC, contracts.SIZE, bins=None)
    beyond = 3.0 / (1 - 0.5)  # the mean of the last two rewards, for ever
    last = [4 + 0.5 * beyond]
    last.insert(0, 2 + 0.5 * last[0])
    last.insert(0, 1 + 0.5 * last[0])
    np.testing.assert_allclose(returns_to_go(store, 0.5, 2), [1 + 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4.0, *last])
    with pytest.raises(StoreError, match="set the algorithm's gamma below 1"):
        returns_to_go(store, 1.0, 2)


@pytest.mark.parametrize("config", ALGORITHMS, ids=lambda config: type(config).__name__)
@pytest.mark.parametrize("policy", ["factored", "autoregressive", "spin_fixed"])
def test_critics_start_at_the_returns_and_leave_all_else_alone(store, config, policy):
    algorithm = contracts.build_algorithm(config, POLICIES[policy], SPEC)
    before = {name: value.clone() for name, value in algorithm.policy.named_parameters()}
    started = make(CRITICS, algorithm, store)
    assert started.seconds > 0 and [step for step, _ in started.curve] == [3]
    assert all(torch.equal(value, before[name]) for name, value in algorithm.policy.named_parameters())
    assert all(not optimizer.state for optimizer in algorithm.optimizers.values())
    for name, module in algorithm.critics().items():
        target = getattr(algorithm, f"target_{name}", None)
        assert target is None or all(
            torch.equal(ours, theirs) for ours, theirs in zip(module.parameters(), target.parameters(), strict=True)
        )
    assert set(algorithm.critics()) == ({"qvalue"} if isinstance(config, BCQ) else {"qvalue", "value"})
    algorithm.update(contracts.random_batch(SPEC))


def test_q_and_v_learn_the_returns_by_their_rules(tmp_path):
    """Of one state with two returns, Q of each action is its return, and V their expectile."""
    episodes = [
        Episode(
            observations=np.zeros((2, contracts.SIZE), np.float32),
            actions=np.array([[choice, 0]]),
            rewards=np.array([float(choice)]),
            terminated=np.array([True]),
            truncated=np.array([False]),
        )
        for choice in (0, 1)
    ]
    store = write_store(tmp_path / "s", episodes, SPEC, contracts.SIZE, bins=None)
    algorithm = contracts.build_algorithm(IQL(hidden=[16], expectile=0.8), POLICIES["factored"], SPEC)
    make(MonteCarloCritics(steps=300, batch_size=32, learning_rate=1e-2), algorithm, store)
    state = torch.zeros(2, contracts.SIZE)
    values = algorithm.qvalue(state, torch.tensor([[0, 0], [1, 0]]))
    torch.testing.assert_close(values, torch.tensor([[0.0, 1.0]] * 2), atol=0.02, rtol=0)
    assert algorithm.value(state[:1]).item() == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(("config", "entries"), [(ALGORITHMS[0], 1), (ALGORITHMS[1], 2)], ids=["IQL", "AWAC"])
def test_policies_share_critics_that_do_not_follow_them(store, config, entries):
    found = []
    for policy in ("factored", "saint"):
        algorithm = contracts.build_algorithm(config, POLICIES[policy], SPEC)
        make(CRITICS, algorithm, store)
        found.append(algorithm.critics()["value"].network[0].weight)
    assert len(list((home() / "starts").glob("[!.]*"))) == entries
    assert torch.equal(*found) == (entries == 1)


@pytest.mark.parametrize("start", [CRITICS, Imitation(steps=3, batch_size=8)], ids=lambda start: type(start).__name__)
def test_a_start_is_the_same_from_the_cache_and_made_anew(store, start):
    states, seconds, progress = [], [], []
    for _ in range(2):
        algorithm = contracts.build_algorithm(ALGORITHMS[0], POLICIES["factored"], SPEC)
        progress.append([])
        seconds.append(make(start, algorithm, store, progress=lambda *told: progress[-1].append(told)).seconds)
        states.append(algorithm.state_dict())
    assert progress[0] and not progress[1] and seconds[0] == seconds[1]
    entry = next((home() / "starts").glob("[!.]*"))
    (entry / "start.pt").write_bytes(b"damaged")
    damages = []
    algorithm = contracts.build_algorithm(ALGORITHMS[0], POLICIES["factored"], SPEC)
    make(start, algorithm, store, on_damage=damages.append)
    assert len(damages) == 1 and "made anew" in damages[0]
    states.append(algorithm.state_dict())
    for other in states[1:]:
        for name, value in states[0].items():
            assert not isinstance(value, torch.Tensor) or torch.equal(value, other[name]), name


def test_imitation_makes_the_datas_actions_likely_and_depends_on_the_seed(store):
    likelihoods, weights = {}, []
    for seed, start in ((0, None), (0, Imitation(steps=60, batch_size=8, learning_rate=1e-2)), (1, Imitation(steps=3))):
        policy = Factored(hidden=[16]).build(contracts.SIZE, SPEC, seed=0)
        algorithm = ALGORITHMS[0].build(policy, contracts.SIZE, SPEC, seed=0, machine=ResolvedMachine())
        if start:
            make(start, algorithm, store, seed=seed)
        weights.append(algorithm.policy.heads.weight.detach())
        transitions = store.data["transitions"]
        rows = store.data["observations", "observation"][transitions["row"]]
        likelihoods[start] = algorithm.policy.eval().log_prob(rows, transitions["action"].long()).mean().item()
    assert likelihoods[Imitation(steps=60, batch_size=8, learning_rate=1e-2)] > likelihoods[None] + 0.1
    assert not torch.equal(weights[0], weights[2])


def test_a_diverging_start_names_its_learning_rate(store):
    algorithm = contracts.build_algorithm(ALGORITHMS[0], POLICIES["factored"], SPEC)
    with pytest.raises(DivergedError, match=r"a smaller MonteCarloCritics\.learning_rate may help"):
        make(MonteCarloCritics(steps=30, batch_size=8, learning_rate=1e30), algorithm, store)
