"""What an exported folder says of actions that the user's own data gave numbers to."""

import attrs
import numpy as np

from harness.exporting.card import logged_values
from spinrl.specs import ActionSpec


@attrs.frozen
class Policy:
    action_spec: ActionSpec


@attrs.frozen
class Cell:
    policy: Policy
    action_start: tuple


def test_choices_have_the_numbers_of_the_log():
    policy = Policy(ActionSpec([3, 2]))
    np.testing.assert_array_equal(logged_values(Cell(policy, (1, -2))), [[1, 2, 3], [-2, -1, np.nan]])
    np.testing.assert_array_equal(logged_values(Cell(policy, ())), [[0, 1, 2], [0, 1, np.nan]])
