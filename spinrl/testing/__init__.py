"""What every policy and every algorithm must do, as checks for the tests of one's own: ``check_policy(New())``.

A check raises AssertionError with what was expected, what was found and for which action sizes.
"""

from spinrl.testing.algorithms import check_algorithm
from spinrl.testing.policies import check_forbidden_choices, check_policy
from spinrl.testing.samples import (
    SIZE,
    SMALL,
    SPECS,
    FakeFrozenASM,
    build_algorithm,
    build_policy,
    frozen_asm,
    random_batch,
    random_masks,
)

__all__ = [
    "SIZE",
    "SMALL",
    "SPECS",
    "FakeFrozenASM",
    "build_algorithm",
    "build_policy",
    "check_algorithm",
    "check_forbidden_choices",
    "check_policy",
    "frozen_asm",
    "random_batch",
    "random_masks",
]
