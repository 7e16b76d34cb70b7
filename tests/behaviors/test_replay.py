"""N-step transitions and the replay that actors and learner share."""

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinrl.behaviors.train.replay import NStepTransition, NStepWindow, ReplayLayout, SharedReplay, share_out


@given(st.integers(1, 5), st.integers(1, 12), st.floats(0.5, 0.999))
def test_every_step_becomes_one_transition_with_the_sum_until_its_bootstrap(n_step, length, gamma):
    window = NStepWindow(n_step, gamma)
    made = []
    for step in range(length):
        made += window.push(np.array([step]), np.array([0]), float(step + 1), np.array([step + 1]), step == length - 1)
    assert [int(each.observation[0]) for each in made] == list(range(length))
    for start, (_, _, total, discount, bootstrap) in enumerate(made):
        steps = min(n_step, length - start)  # the time limit cuts the sum
        assert total == pytest.approx(sum(gamma**k * (start + k + 1) for k in range(steps)))
        assert discount == pytest.approx(gamma**steps)
        assert bootstrap[0] == start + steps


LAYOUT = ReplayLayout(num_actors=2, capacity=9, observation_size=3, num_sub_actions=2)  # four rows each, one unused


def _append(replay, actor, value):
    row = np.full(3, value, np.float32)
    replay.append(actor, NStepTransition(row, np.array([value % 3, 1]), float(value), 0.9, row + 1))


def test_replay_overwrites_the_oldest_and_survives_reopening(tmp_path):
    replay = SharedReplay(tmp_path, LAYOUT)
    for value in range(6):
        _append(replay, 0, value)
    _append(replay, 1, 50)
    again = SharedReplay(tmp_path, LAYOUT)
    observation, action, reward, discount, bootstrap = again.sample(500, np.random.default_rng(0))
    assert set(reward.tolist()) == {2.0, 3.0, 4.0, 5.0, 50.0}
    np.testing.assert_array_equal(observation[:, 0], reward)
    np.testing.assert_array_equal(bootstrap[:, 0], reward + 1)
    np.testing.assert_array_equal(action[:, 0], reward.astype(int) % 3)
    assert (discount == np.float32(0.9)).all()


def test_replay_of_other_sizes_is_refused(tmp_path):
    SharedReplay(tmp_path, LAYOUT)
    with pytest.raises(ValueError, match=r"observation\.bin holds 108 bytes"):
        SharedReplay(tmp_path, attrs.evolve(LAYOUT, capacity=10))


def test_a_file_that_a_kill_left_empty_is_begun_anew(tmp_path):
    (tmp_path / "reward.bin").touch()
    replay = SharedReplay(tmp_path, LAYOUT)
    _append(replay, 1, 7)
    assert replay.sample(1, np.random.default_rng(0))[2].tolist() == [7.0]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 3), (3, 2), (3, 3)])
@pytest.mark.parametrize("each", [3, 20])
def test_another_number_of_actors_goes_on_with_what_was_written(tmp_path, before, after, each):
    layout = attrs.evolve(LAYOUT, capacity=12)
    replay = SharedReplay(tmp_path, attrs.evolve(layout, num_actors=before))
    for value in range(each):
        for actor in range(before):
            _append(replay, actor, 100 * actor + value)
            replay.env_steps[actor] += 1
    held = set(replay.sample(2000, np.random.default_rng(0))[2].tolist())

    layout = attrs.evolve(layout, num_actors=after)
    share_out(tmp_path, layout)
    replay = SharedReplay(tmp_path, layout)
    assert replay.env_steps.sum() == each * before
    kept = set(replay.sample(2000, np.random.default_rng(0))[2].tolist())
    assert kept <= held and len(kept) > len(held) - after  # but for the rest of a round
    for actor in range(after):
        _append(replay, actor, 1000 + actor)
    now = set(replay.sample(2000, np.random.default_rng(0))[2].tolist())
    assert {1000.0 + actor for actor in range(after)} <= now
    assert len(now & kept) == min(len(kept), 12 - after)  # a full one has overwritten as many


def test_a_folder_that_holds_no_replay_yet_has_none_to_share_out(tmp_path):
    share_out(tmp_path, LAYOUT)
    assert not list(tmp_path.iterdir())


def test_a_cleared_replay_holds_what_comes_after_alone(tmp_path):
    replay = SharedReplay(tmp_path, LAYOUT)
    for value in range(3):
        _append(replay, 0, value)
    replay.env_steps[0] = 3
    replay.clear()
    _append(replay, 1, 7)
    assert set(replay.sample(20, np.random.default_rng(0))[2].tolist()) == {7.0}
    assert replay.env_steps.tolist() == [3, 0]
