"""Estimates from data alone, against cases whose answer is known."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

from spinrl.algorithms import IQL
from spinrl.data import Episode, SourceRecord, Store, StoreWriter, standardize
from spinrl.evaluation import Estimate, EstimationData, Estimator, FittedQ, HeldOutLikelihood, estimators, joint_q
from spinrl.evaluation.joint_q import JointQ
from spinrl.machine import Machine
from spinrl.nn import Standardizer
from spinrl.policies import Autoregressive, Factored
from spinrl.specs import ActionSpec

SPEC = ActionSpec((3, 2))
SIZE = 4
QUICK = FittedQ(
    gamma=0.5,
    start_steps=200,
    gradient_steps=600,
    batch_size=64,
    learning_rate=3e-3,
    polyak_rate=0.05,
    hidden=(32, 32),
)


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch):
    monkeypatch.setattr(estimators, "_KEPT", {})


def nothing(_done: int, _total: int) -> None:
    pass


def algorithm(policy=None):
    policy = (policy or Factored(hidden=(16,), dropout=0.1)).build(SIZE, SPEC, seed=0)
    return IQL(hidden=(16,)).build(policy, SIZE, SPEC, seed=0, machine=Machine(device="cpu").resolve())


def store(path: Path, episodes: int, length: int, reward, *, terminated: bool, seed: int = 0, masked=False) -> Store:
    """Random actions on random observations; `reward` is a function of the actions (L, N).

    Where it is `masked`, the first sub-action's choice 2 is never allowed.
    """
    rng = np.random.default_rng(seed)
    with StoreWriter(
        path,
        task="own",
        bins=None,
        action_spec=SPEC,
        observation_size=SIZE,
        tier="logged",
        sources=[SourceRecord(behavior="random")],
        extras=("allowed",) if masked else (),
    ) as writer:
        for _ in range(episodes):
            actions = rng.integers(0, (2, 2) if masked else SPEC.nvec, (length, 2))
            last = np.arange(length) == length - 1
            writer.append(
                Episode(
                    observations=rng.normal(size=(length + 1, SIZE)).astype(np.float32),
                    actions=actions,
                    rewards=np.asarray(reward(actions), dtype=float),
                    terminated=last & terminated,
                    truncated=last & (not terminated),
                    allowed=np.tile([[True, True, False]], (length + 1, 2, 1)) if masked else None,
                )
            )
    return Store.open(path)


def data_of(training: Store, held_out: Store | None = None) -> EstimationData:
    return EstimationData(training=training, held_out=held_out)


def estimate(estimator: Estimator, data: EstimationData, trained=None, action: str = "sample") -> Estimate:
    found = timeless(estimator.estimate(trained or algorithm(), data, seed=0, action=action, progress=nothing))
    assert found.metric == estimator.metric
    return found


def timeless(found: Estimate) -> Estimate:
    return attrs.evolve(found, details={name: value for name, value in found.details.items() if name != "seconds"})


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "policy", [None, Autoregressive(state_width=8, lstm_width=8)], ids=["factored", "autoregressive"]
)
def test_the_likelihood_is_the_mean_over_held_out_episodes(tmp_path: Path, policy, masked) -> None:
    held_out = store(tmp_path / "h", 30, 7, lambda actions: actions[:, 0], terminated=False, masked=masked)
    trained = algorithm(policy)
    standardize(trained, held_out)
    found = estimate(HeldOutLikelihood(), data_of(held_out, held_out), trained)
    trained.policy.eval()
    values = []
    for episode in held_out.episodes():
        observation = torch.from_numpy(episode.observations[:-1])
        action, allowed = torch.from_numpy(episode.actions).long(), None
        if masked:
            allowed = torch.from_numpy(episode.allowed[:-1])
            assert (
                trained.policy.log_prob(observation, action, allowed) > trained.policy.log_prob(observation, action)
            ).all()
        values.append(float(trained.policy.log_prob(observation, action, allowed).mean().detach()))
    mean, error = np.mean(values), np.std(values, ddof=1) / np.sqrt(30)
    assert found.value == pytest.approx(mean, abs=1e-5) and found.value < 0
    assert (found.low, found.high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.3 * error)
    assert found.effective_episodes == 30 and not found.remark


def test_fitted_q_of_one_step_is_the_expected_reward(tmp_path: Path) -> None:
    """Episodes of one step: the value is the mean reward of the policy's own choices, not of the data's."""
    trained = algorithm()
    with torch.no_grad():  # a policy that all but always makes choice 2 of the first sub-action
        heads = [parameter for name, parameter in trained.policy.named_parameters() if "bias" in name][-1]
        heads.view(-1, SPEC.max_choices)[0] = torch.tensor([-9.0, -9.0, 9.0])
    training = store(tmp_path / "t", 400, 1, lambda actions: actions[:, 0], terminated=True)
    found = estimate(QUICK, data_of(training), trained)
    assert found.value == pytest.approx(2.0, abs=0.1)  # of the data: 1
    assert found.low < found.value < found.high and found.effective_episodes == 400
    assert np.mean(training.returns) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("action", ["sample", "mode"])
def test_fitted_q_takes_no_choice_that_is_not_allowed(tmp_path: Path, action) -> None:
    """A policy that prefers the forbidden choice 2, and choice 1 to 0, is worth 1/(1-γ), not 2/(1-γ)."""
    trained = algorithm()
    with torch.no_grad():
        heads = [parameter for name, parameter in trained.policy.named_parameters() if "bias" in name][-1]
        heads.view(-1, SPEC.max_choices)[0] = torch.tensor([-18.0, 0.0, 18.0])
    training = store(tmp_path / "t", 40, 10, lambda actions: actions[:, 0], terminated=False, masked=True)
    taken, ask = [], JointQ.inputs

    def remember(self, observation, action):
        taken.append(action)
        return ask(self, observation, action)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(JointQ, "inputs", remember)
        found = estimate(QUICK, data_of(training), trained, action)
    assert found.value == pytest.approx(2.0, abs=0.2)
    assert all((actions[:, 0] < 2).all() for actions in taken)


def test_fitted_q_goes_on_over_time_limits_and_ends_at_terminations(tmp_path: Path) -> None:
    """A reward of 1 in every step is worth 1/(1-γ) where only a time limit ends it."""

    def one(actions: np.ndarray) -> np.ndarray:
        return np.ones(len(actions))

    forever = estimate(QUICK, data_of(store(tmp_path / "f", 40, 10, one, terminated=False)))
    assert forever.value == pytest.approx(2.0, abs=0.1)
    once = estimate(QUICK, data_of(store(tmp_path / "o", 40, 1, one, terminated=True)))
    assert once.value == pytest.approx(1.0, abs=0.05)


def test_fitted_q_says_where_it_has_not_converged(tmp_path: Path) -> None:
    """Values of a thousand steps cannot have come through in twenty updates; the interval is widened by what is due."""
    training = store(tmp_path / "t", 40, 10, lambda actions: actions[:, 0], terminated=False)
    held_out = store(tmp_path / "h", 20, 10, lambda actions: actions[:, 0], terminated=False, seed=1)
    short = attrs.evolve(QUICK, gamma=0.99, start_steps=0, gradient_steps=20)
    trained = algorithm()
    found, done = (estimate(each, data_of(training, held_out), trained) for each in (short, QUICK))
    assert "has not converged" in found.remark and "FittedQ.gradient_steps" in found.remark and not done.remark
    assert found.details["drift"] > 0.1 > done.details["drift"] and done.details["residual"] > 0
    assert found.high - found.low > 2 * found.details["drift"] > done.high - done.low


def test_fitted_q_asks_for_the_first_states_of_held_out_episodes(tmp_path: Path) -> None:
    training = store(tmp_path / "t", 20, 5, lambda actions: actions[:, 0], terminated=True)
    held_out = store(tmp_path / "h", 3, 5, lambda actions: actions[:, 0], terminated=True, seed=1)
    assert estimate(QUICK.smaller(), data_of(training, held_out)).effective_episodes == 3


@pytest.mark.parametrize("estimator", [HeldOutLikelihood(), QUICK.smaller()], ids=["likelihood", "fitted_q"])
@pytest.mark.parametrize("action", ["sample", "mode"])
def test_an_estimate_leaves_training_as_it_was_and_repeats(tmp_path: Path, estimator: Estimator, action: str) -> None:
    data = data_of(*(store(tmp_path / name, 4, 5, lambda a: a[:, 0], terminated=False) for name in "th"))
    trained = algorithm()
    trained.policy.train()
    before = {name: value.clone() for name, value in trained.state_dict().items() if torch.is_tensor(value)}
    state = torch.get_rng_state()
    seen: list[tuple[int, int]] = []
    first = estimator.estimate(trained, data, seed=3, action=action, progress=lambda *each: seen.append(each))
    assert torch.equal(torch.get_rng_state(), state) and trained.policy.training
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items() if name in before)
    assert seen[-1][0] == seen[-1][1]
    once = estimate(estimator, data, trained, action)
    estimators._KEPT.clear()
    assert estimate(estimator, data, trained, action) == once
    assert np.isfinite([first.value, first.low, first.high]).all() and first.details["seconds"] > 0


def test_q_sees_which_choice_of_which_sub_action_was_made() -> None:
    q = JointQ(Standardizer(SIZE), SPEC, (8,), 2)
    observation = torch.zeros(6, SIZE)
    actions = torch.tensor([[i, j] for i in range(3) for j in range(2)])
    for member in q(q.inputs(observation, actions)).tolist():
        assert len({round(value, 6) for value in member}) == 6


def test_fractions_are_checked() -> None:
    with pytest.raises(ValueError, match="fractions must be numbers above 0 and at most 1"):
        FittedQ(fractions=(0.0,))
    assert HeldOutLikelihood().fractions is None and FittedQ().fractions == (1.0,)


@pytest.mark.parametrize("estimator", [HeldOutLikelihood(), QUICK.smaller()], ids=["likelihood", "fitted_q"])
def test_of_very_many_episodes_the_same_few_are_judged_in_pieces(tmp_path: Path, monkeypatch, estimator) -> None:
    """A log of a million short episodes leaves neither a million numbers, nor is it given to the policy at once."""
    held_out = store(tmp_path / "h", 60, 3, lambda actions: actions[:, 0], terminated=True)
    data, trained = data_of(held_out, held_out), algorithm()
    everything = estimate(estimator, data, trained, "mode")
    for module in (estimators, joint_q):
        monkeypatch.setattr(module, "ROWS", 33)
    estimators._KEPT.clear()
    given = []
    for name in ("mode", "log_prob"):
        real = getattr(trained.policy, name)
        monkeypatch.setattr(trained.policy, name, lambda *each, real=real: given.append(len(each[0])) or real(*each))
    assert estimate(estimator, data, trained, "mode").value == pytest.approx(everything.value, abs=1e-5)
    assert max(given) == 33
    monkeypatch.setattr(estimators, "MOST_EPISODES", 20)
    few = estimate(estimator, data, trained, "mode")
    assert few.effective_episodes == 20 and few == estimate(estimator, data, trained, "mode")
    start, _ = estimators.judged_episodes(held_out)
    assert len(set(start.tolist())) == 20 and start.tolist() == sorted(start.tolist())
    assert start.tolist() != held_out.data["episodes", "start"][:20].tolist()
