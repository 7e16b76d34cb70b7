"""The shape of an action, and the TensorDict key names, shared by all packages.

Shapes: B batch, S observation size, N sub-actions, K the largest number of choices of any sub-action.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import torch

OBSERVATION = "observation"  # float32 (B, S)
ACTION = "action"  # int64 (B, N)
NEXT_OBSERVATION = ("next", "observation")  # float32 (B, S)
NEXT_REWARD = ("next", "reward")  # float32 (B, 1)
NEXT_TERMINATED = ("next", "terminated")  # bool (B, 1); the only thing that stops bootstrapping
NEXT_TRUNCATED = ("next", "truncated")  # bool (B, 1), cut by a time limit
NEXT_DONE = ("next", "done")  # bool (B, 1), terminated or truncated
# Choices that may be made at an observation, where the data tells; no key means that all of them are allowed.
ALLOWED = "allowed"  # bool (B, N, K)
NEXT_ALLOWED = ("next", "allowed")
# Precomputed output of a policy's frozen part for its observations, (B, ...); see `Policy.frozen_input`.
POLICY_INPUT = "policy_input"
NEXT_POLICY_INPUT = ("next", "policy_input")
LOGITS = "logits"  # float32 (B, N, K), -inf where a sub-action has fewer than K choices
SAMPLE_LOG_PROB = "sample_log_prob"  # float32 (B,), of the joint action


def _as_nvec(value: Iterable[int]) -> tuple[int, ...]:
    return tuple(int(choices) for choices in value)


@attrs.frozen
class ActionSpec:
    """A combinatorial action: N sub-actions, of which the i-th has ``nvec[i]`` choices.

    A sub-action with one choice is carried along: it always takes it.

    Raises:
        ValueError: when a sub-action has no choice, or none has two or more.
    """

    nvec: tuple[int, ...] = attrs.field(converter=_as_nvec)

    @nvec.validator
    def _check(self, _attribute: attrs.Attribute, value: tuple[int, ...]) -> None:
        if not value or min(value) < 1 or max(value) < 2:
            raise ValueError(f"nvec must be numbers of choices, at least one of them two or more; found {value}")

    @property
    def num_sub_actions(self) -> int:
        """N."""
        return len(self.nvec)

    @property
    def max_choices(self) -> int:
        """K."""
        return max(self.nvec)

    def valid(self) -> torch.Tensor:
        """(N, K) bool: True where choice k exists for sub-action i."""
        import torch  # not above: Gymnasium's users have no need of it

        return torch.arange(self.max_choices)[None, :] < torch.tensor(self.nvec)[:, None]
