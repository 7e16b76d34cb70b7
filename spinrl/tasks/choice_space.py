"""The action space of our environments: Gymnasium's MultiDiscrete, which stays choices in TorchRL."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from gymnasium import spaces


class ChoiceSpace(spaces.MultiDiscrete):
    """N sub-actions at once, each a choice from 0.

    TorchRL's `GymEnv` takes MultiDiscrete actions for one-hot vectors unless it is told
    ``categorical_action_encoding=True``. Of this space it takes them as they are, as policies and datasets have them:
    (N,) int64. A space made before TorchRL was imported is a MultiDiscrete to it, which needs that option.

    Args:
        choices: (N,) how many choices each sub-action has.
    """

    def __init__(self, choices: Sequence[int]) -> None:
        super().__init__(list(choices))
        # Not imported for it: only who has it can ask what the space is in it.
        torchrl = sys.modules.get("torchrl.envs.libs.gym")
        if torchrl is not None:
            torchrl.register_gym_spec_conversion(ChoiceSpace)(_as_choices)


def _as_choices(space: ChoiceSpace, **options: Any) -> Any:
    """TorchRL's spec of the space: Categorical where sub-actions have as many choices, else MultiCategorical."""
    from torchrl.envs.libs.gym import convert_multidiscrete_spec

    return convert_multidiscrete_spec(space, **{**options, "categorical_action_encoding": True})
