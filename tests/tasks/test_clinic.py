"""The clinic: an environment by Gymnasium's rules, whose best action hangs together, and the log of a behaviour."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from spinrl.evaluation import evaluate_episodes
from spinrl.policies import Factored
from spinrl.specs import ActionSpec
from spinrl.tasks import Gymnasium
from spinrl.tasks.clinic import CHOICES, MEASURED, VISITS, ClinicEnv, clinic_log


@pytest.mark.filterwarnings("error")
def test_gymnasiums_own_checks_pass():
    check_env(gymnasium.make("spinrl/Clinic-v0").unwrapped)


def test_it_is_a_simulator_of_policies():
    environment = Gymnasium(id="spinrl/Clinic-v0").build(3)
    assert environment.action_spec == ActionSpec(tuple(CHOICES.values()))
    policy = Factored(hidden=(16,)).build(len(MEASURED), environment.action_spec, seed=0)
    found = evaluate_episodes(policy, environment, range(3), gamma=0.9)
    assert environment.over(range(3))
    assert all(0 < few < whole < VISITS for few, whole in zip(found.discounted, found.returns, strict=True))


def test_each_choice_of_the_best_action_depends_on_the_two_others():
    """With the two others as they are, the best of a sub-action changes when one of them does."""
    environment = ClinicEnv()
    depends = np.zeros((3, 3), dtype=bool)
    for seed in range(30):
        environment.reset(seed=seed)
        expected = _expected(environment)  # (3, 2, 5)
        for sub_action in range(3):
            best = np.expand_dims(expected.argmax(sub_action), sub_action)
            for other in {0, 1, 2} - {sub_action}:
                depends[sub_action, other] |= (best != best.take([0], other)).any()
        assert tuple(environment.best()) == np.unravel_index(expected.argmax(), expected.shape)
    assert depends.sum() == 6


def _expected(environment):
    """(3, 2, 5) reward of each action where nothing is random."""
    state = environment._values.copy()
    rewards = np.zeros(tuple(CHOICES.values()))
    for action in np.ndindex(rewards.shape):
        environment._values, environment._visit = state.copy(), 0
        environment.np_random = _Noiseless()
        rewards[action] = environment.step(np.array(action))[1]
    environment._values = state
    return rewards


class _Noiseless:
    def normal(self, mean, _deviation, size):
        return np.full(size, float(mean))


def test_a_patient_ends_by_a_crisis_or_after_thirty_visits():
    ends = []
    for seed in range(20):
        environment = ClinicEnv()
        environment.reset(seed=seed)
        for visit in range(1, VISITS + 1):
            observation, _, terminated, truncated, _ = environment.step(np.array([0, 0, 0]))
            assert not truncated and observation in environment.observation_space
            assert terminated == (visit == VISITS or observation[3:].max() > 3)
            if terminated:
                ends.append(visit)
                break
    assert min(ends) < VISITS and len(ends) == 20


def test_a_log_repeats_and_has_the_propensities_of_what_was_drawn():
    log, again = (clinic_log(patients=200, quality=0.5, seed=3) for _ in range(2))
    for name in ("observations", "actions", "rewards", "terminals", "propensities"):
        assert np.array_equal(getattr(log, name), getattr(again, name)), name
    assert log.observations.dtype == np.float32 and log.terminals.sum() == 200
    counts = np.array(list(CHOICES.values()))
    is_best = log.propensities > 1 / counts  # (T, 3)
    # The best choice has a half and its share of the random half; it was made as often as that says.
    assert np.allclose(log.propensities, np.where(is_best, 0.5 + 0.5 / counts, 0.5 / counts))
    assert is_best.mean(0) == pytest.approx(0.5 + 0.5 / counts, abs=0.03)


def test_better_behaviour_has_better_returns():
    means = [clinic_log(patients=60, quality=quality).rewards.sum() / 60 for quality in (0.0, 0.5, 1.0)]
    assert means[0] + 4 < means[1] < means[2] - 4
    assert (clinic_log(patients=5, quality=1.0).propensities == 1).all()


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"quality": 1.5}])
def test_what_cannot_be_logged_is_refused(wrong):
    with pytest.raises(ValueError, match="patients must be from 1 and quality from 0 to 1"):
        clinic_log(**wrong)


def test_the_table_holds_what_the_arrays_hold(tmp_path):
    log = clinic_log(patients=3, seed=1)
    log.to_csv(tmp_path / "log.csv")
    table = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)
    assert table.dtype.names[:5] == MEASURED and len(table) == len(log.rewards)
    assert np.array_equal(table["glucose"].astype(np.float32), log.observations[:, 4])
    assert np.array_equal(table["schedule"], log.actions[:, 2])
    assert np.array_equal(table["drug_propensity"], log.propensities[:, 1])
    assert np.array_equal(table["outcome"], log.rewards) and np.array_equal(table["last"], log.terminals)
