"""What every policy promises, checked of this one as spinrl checks its own."""

import sys
from pathlib import Path

import spinrl
from spinrl.testing import check_algorithm, check_policy

sys.path.insert(0, str(Path(__file__).parent))

from my_policy import Linear


def test_the_policy_keeps_its_promises():
    check_policy(Linear())


def test_it_can_be_trained():
    check_algorithm(spinrl.IQL(hidden=(16,)), Linear())
