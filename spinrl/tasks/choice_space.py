"""The action space of our environments: Gymnasium's MultiDiscrete, which stays choices in TorchRL."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces


class ChoiceSpace(spaces.MultiDiscrete):
    """N sub-actions at once, each a choice from 0.

    TorchRL's `GymEnv` takes MultiDiscrete actions for one-hot vectors unless it is told
    ``categorical_action_encoding=True``. Of this space it takes them as they are, as policies and datasets have them:
    (N,) int64.
    """


def register_with_torchrl() -> None:
    """Tell TorchRL, which must have been imported, how it takes a `ChoiceSpace`."""
    from torchrl.envs.libs import gym

    def as_choices(space: ChoiceSpace, **options: Any) -> Any:
        """Categorical where all sub-actions have as many choices, else MultiCategorical."""
        return gym.convert_multidiscrete_spec(space, **{**options, "categorical_action_encoding": True})

    gym.register_gym_spec_conversion(ChoiceSpace)(as_choices)
