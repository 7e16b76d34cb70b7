"""A start for critics: values regressed on the returns that the dataset itself holds.

Critics that bootstrap from fresh networks approach their values with the time constant
1 / (polyak_rate · (1 − gamma)) steps, and until then the policy follows noise. Such a start more than halves training
time in Jelley et al. (arXiv 2406.13376).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from attrs.validators import ge
from scipy.signal import lfilter
from tensordict import TensorDictBase
from torch import nn

from spinrl.algorithms.base import Algorithm
from spinrl.algorithms.starts import Losses, SupervisedStart
from spinrl.config import to_plain
from spinrl.config.registry import register
from spinrl.data import Store, StoreError


@register
@attrs.frozen(kw_only=True)
class MonteCarloCritics(SupervisedStart):
    """Q regressed on discounted returns-to-go, V beside it by the algorithm's own rule, targets copied from both.

    A return-to-go ends with the episode where the episode was terminated. Where it was cut by time, it goes on for ever
    with the mean of the episode's last rewards: it is bootstrapped, not zero.

    Attributes:
        steps: gradient steps.
        batch_size: transitions per step, drawn with replacement.
        learning_rate: Adam's, at the start; none for the algorithm's own.
        schedule: constant, or cosine down to zero.
        max_gradient_norm: gradients are clipped to this norm; none leaves them as they are.
        report_every: steps between two reported losses.
        last_rewards: number of rewards at the end of an episode cut by time, whose mean goes on for ever.
    """

    kind: ClassVar[str] = "critic_start"
    seed_name: ClassVar[str] = "critic_start"

    steps: int = attrs.field(default=2000, validator=ge(1))
    last_rewards: int = attrs.field(default=50, validator=ge(1))

    def modules(self, algorithm: Algorithm) -> dict[str, nn.Module]:
        return algorithm.critics()

    def losses(self, algorithm: Algorithm, store: Store) -> Losses:
        returns = torch.from_numpy(returns_to_go(store, algorithm.config.gamma, self.last_rewards)).float()
        returns = returns.to(algorithm.machine.device)  # (T,)

        def losses_of(batch: TensorDictBase, index: torch.Tensor) -> Mapping[str, torch.Tensor]:
            return algorithm.critic_losses(batch, returns[index])

        return losses_of

    def follows_policy(self, algorithm: Algorithm) -> bool:
        return algorithm.values_follow_policy

    def depends_on(self, algorithm: Algorithm) -> dict[str, Any]:
        return to_plain(algorithm.config)

    def finish(self, algorithm: Algorithm) -> None:
        algorithm.copy_to_targets()


def returns_to_go(store: Store, gamma: float, last_rewards: int) -> np.ndarray:
    """The discounted sum of rewards from every transition on, (T,) float64, in the order of the store.

    Args:
        store: the dataset.
        gamma: discount.
        last_rewards: number of rewards at the end of an episode cut by time, whose mean goes on for ever.

    Raises:
        StoreError: when gamma is 1 and an episode was cut by time, since its return is infinite.
    """
    rewards = store.data["transitions", "reward"].numpy().astype(np.float64)
    terminated = store.data["transitions", "terminated"].numpy()
    episodes = store.data["episodes"]
    returns = np.empty_like(rewards)
    for start, length in zip(episodes["start"].tolist(), episodes["length"].tolist(), strict=True):
        steps = slice(start, start + length)
        beyond = 0.0
        if not terminated[start + length - 1]:
            if gamma == 1:
                raise StoreError(
                    f"store {store.path}: an episode is cut by time, so its undiscounted return has no end; "
                    "set the algorithm's gamma below 1, or Experiment.critic_start=None"
                )
            beyond = rewards[steps][-last_rewards:].mean() / (1 - gamma)
        # G_t = r_t + gamma · G_{t+1}, backwards from what lies beyond the end.
        returns[steps] = lfilter([1.0], [1.0, -gamma], rewards[steps][::-1], zi=[gamma * beyond])[0][::-1]
    return returns
