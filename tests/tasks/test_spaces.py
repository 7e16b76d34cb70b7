"""Gymnasium's spaces as flat arrays: as Gymnasium flattens them, and back to the space's own actions."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from spinrl.tasks.spaces import (
    SpaceError,
    action_spec,
    allowed_choices,
    flat_actions,
    flat_observation,
    flat_observations,
    observation_size,
    own_action,
)

CHOICES = st.one_of(
    st.builds(spaces.Discrete, st.integers(2, 5), start=st.integers(-3, 3)),
    st.builds(lambda *shape: spaces.MultiBinary(shape), st.integers(1, 3), st.integers(1, 2)),
    st.builds(
        lambda nvec, start: spaces.MultiDiscrete(
            np.array(nvec).reshape(-1, 2), start=np.full((len(nvec) // 2, 2), start)
        ),
        st.lists(st.integers(2, 4), min_size=2, max_size=2).map(lambda each: each * 2),
        st.integers(-2, 2),
    ),
    st.builds(lambda n: spaces.MultiDiscrete([n, 3], dtype=np.int8), st.integers(2, 6)),
)
NUMBERS = st.sampled_from(
    [spaces.Box(-1, 1, (2, 3)), spaces.Box(0, 255, (2,), np.uint8), spaces.Box(-9, 9, (), np.int64)]
)


def nested(parts):
    return st.recursive(
        parts,
        lambda inner: (
            st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple)
            | st.dictionaries(st.sampled_from("cab"), inner, min_size=1).map(spaces.Dict)
        ),
        max_leaves=4,
    )


def stacked(space, values):
    """Values of a space as arrays of rows, as data has them."""
    if isinstance(space, spaces.Dict):
        return {key: stacked(part, [each[key] for each in values]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stacked(part, [each[at] for each in values]) for at, part in enumerate(space.spaces))
    return np.stack(values)


@settings(max_examples=40, deadline=None)
@given(nested(NUMBERS | CHOICES), st.integers(0, 99))
def test_flat_observations_are_those_of_gymnasium(space, seed):
    space.seed(seed)
    values = [space.sample() for _ in range(3)]
    expected = np.stack([spaces.flatten(space, value) for value in values]).astype(np.float32)
    got = flat_observations(space, stacked(space, values), 3)
    assert got.dtype == np.float32 and got.shape == (3, observation_size(space))
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(flat_observation(space, values[1]), expected[1])


@settings(max_examples=40, deadline=None)
@given(nested(CHOICES), st.integers(0, 99))
def test_actions_come_back_as_the_space_has_them(space, seed):
    space.seed(seed)
    values = [space.sample() for _ in range(3)]
    choices = flat_actions(space, stacked(space, values), 3)
    assert choices.min() >= 0 and (choices < action_spec(space).nvec).all()
    for row, value in zip(choices, values, strict=True):
        own = own_action(space, row)
        assert space.contains(own)
        np.testing.assert_array_equal(spaces.flatten(space, own), spaces.flatten(space, value))


@pytest.mark.parametrize(
    ("space", "values", "reason"),
    [
        (
            spaces.Dict(ward=spaces.Discrete(4)),
            {"ward": np.array([0, 4])},
            r"observation\['ward'\], row 1: .* 0 to 3, found 4",
        ),
        (spaces.Discrete(4, start=1), np.array([0, 4]), "observation, row 0: expected 1 to 4, found 0"),
        (spaces.Box(-1, 1, (2,)), np.zeros((2, 3)), r"observation has the shape \(3,\); expected \(2,\)"),
        (spaces.Box(-1, 1, (2,)), np.zeros((1, 2)), "observation has 1 rows of Box.*; expected 2"),
        (spaces.Dict(a=spaces.MultiBinary(1)), {}, "observation has no 'a'"),
        (spaces.Tuple([spaces.MultiBinary(1)]), np.zeros((2, 1)), "observation is not a tuple of 1"),
        (spaces.Discrete(4), np.array([0.5, 1]), "observation holds float64; expected integers"),
    ],
)
def test_values_that_are_not_of_their_space_are_named(space, values, reason):
    with pytest.raises(SpaceError, match=reason):
        flat_observations(space, values, 2)


def test_an_action_that_its_space_does_not_have_is_named_in_the_spaces_own_numbers():
    space = spaces.Tuple([spaces.MultiDiscrete([3, 2], start=[1, -2])])
    with pytest.raises(SpaceError, match=r"action\[0\], row 1, entry 1: expected -2 to -1, found 0"):
        flat_actions(space, (np.array([[1, -2], [3, 0]]),), 2)


@pytest.mark.parametrize(
    ("space", "mask", "expected"),
    [
        (spaces.Discrete(3, start=7), np.array([1, 0, 1], dtype=np.int8), [[1, 0, 1]]),
        (spaces.MultiDiscrete([[3, 2]]), (([1, 0, 1], [0, 1]),), [[1, 0, 1], [0, 1, 0]]),
        (spaces.MultiDiscrete([3, 2]), np.array([[0, 1, 1], [1, 0, 1]], dtype=bool), [[0, 1, 1], [1, 0, 0]]),
        (spaces.MultiBinary(3), np.array([0, 1, 2], dtype=np.int8), [[1, 0], [0, 1], [1, 1]]),
        (spaces.MultiBinary(2), [True, False, True, True], [[1, 0], [1, 1]]),
        (spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3))), (None, [0, 0, 1]), [[1, 1, 0], [0, 0, 1]]),
        (spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3))), np.array([0, 1, 0, 0, 1]), [[0, 1, 0], [0, 0, 1]]),
        (
            spaces.Dict(b=spaces.Discrete(2), a=spaces.MultiBinary(1)),
            {"b": [0, 1], "a": np.array([1], dtype=np.int8)},
            [[0, 1], [0, 1]],
        ),
    ],
    ids=str,
)
def test_masks_in_every_form_are_one_row_of_choices_for_each_sub_action(space, mask, expected):
    allowed = allowed_choices(space, mask)
    assert allowed.dtype == bool and allowed.astype(int).tolist() == expected
