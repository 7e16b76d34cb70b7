"""Returns of a policy in the simulator, many episodes in lock-step with one policy call a step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch

from spinrl.captured import Captured
from spinrl.nn.fixed_batch import in_fixed_batches
from spinrl.policies import Policy
from spinrl.seeding import child_seed, numpy_generator
from spinrl.tasks import EPISODE_STEPS, Environment
from spinrl.turns import apart, hand_over

ROWS = 10  # of a policy call: the protocol's ten episodes fill it, so that nothing is padded

ActionChoice = Literal["sample", "mode"]


def episode_seeds(seed: int, episodes: int) -> list[int]:
    """The seeds of `episodes` evaluation episodes; the first ones are the same for any number of them."""
    return [child_seed(seed, "evaluation", episode) for episode in range(episodes)]


@attrs.frozen
class EpisodeReturns:
    """Undiscounted and discounted return of each episode."""

    returns: list[float]
    discounted: list[float]


def evaluate(policy: Policy, environment: Environment, seeds: Sequence[int], **options: Any) -> list[float]:
    """The undiscounted returns alone of `evaluate_episodes`, which has the arguments."""
    return evaluate_episodes(policy, environment, seeds, **options).returns


@torch.inference_mode()
def evaluate_episodes(
    policy: Policy,
    environment: Environment,
    seeds: Sequence[int],
    *,
    action: ActionChoice = "sample",
    steps: int = EPISODE_STEPS,
    gamma: float = 1.0,
    capture: bool = False,
) -> EpisodeReturns:
    """Return of one episode per seed.

    An episode's start and the noise its actions are sampled with come from its own seed, so that a seed's
    return is the same whatever other episodes run beside it. The policy makes no choice that the environment does not
    allow (`Environment.allowed`).

    Args:
        policy: the policy, left in the mode (training or evaluation) that it came in.
        environment: environments, at least one; episodes beyond their number run in further rounds.
        seeds: one per episode.
        action: sample from the policy (the published protocol) or take each sub-action's most likely choice.
        steps: control steps per episode, at most.
        gamma: discount of the discounted returns.
        capture: whether a GPU captures the policy's call, and replays it at every step.

    Returns:
        len(seeds) returns of each kind.
    """
    was_training = policy.training
    policy.eval()
    try:
        rounds = [seeds[at : at + environment.num_envs] for at in range(0, len(seeds), environment.num_envs)]
        captured = Captured(
            policy.mode if action == "mode" else policy.sample,
            on=capture,
            on_refusal=lambda reason: warnings.warn(f"acting is {reason}", stacklevel=2),
        )

        def choose(*given: torch.Tensor) -> torch.Tensor:
            return captured(*given).clone()  # the next batch of the same step overwrites it

        parts = [_lock_step(policy, choose, environment, part, action, steps, gamma) for part in rounds]
        returns, discounted = np.concatenate(parts, axis=1) if parts else np.empty((2, 0))
        return EpisodeReturns(returns.tolist(), discounted.tolist())
    finally:
        policy.train(was_training)


def _lock_step(
    policy: Policy,
    choose: Callable[..., torch.Tensor],
    environment: Environment,
    seeds: Sequence[int],
    action: ActionChoice,
    steps: int,
    gamma: float,
) -> np.ndarray:
    """Undiscounted and discounted returns, (2, len(seeds))."""
    device = next((parameter.device for parameter in policy.parameters()), torch.device("cpu"))
    spec = environment.action_spec
    noise = [numpy_generator(seed, "sampling") for seed in seeds]
    shape = (spec.num_sub_actions, spec.max_choices)
    indices = range(len(seeds))
    observations = np.stack([environment.reset(index, seed) for index, seed in zip(indices, seeds, strict=True)])
    returns = np.zeros((2, len(seeds)))
    discounts = np.ones((2, 1))
    for _ in range(steps):
        inputs = [observations]
        if action == "sample":
            inputs.append(np.stack([rng.gumbel(size=shape).astype(np.float32) for rng in noise]))
        if (allowed := environment.allowed(indices)) is not None:
            inputs.append(allowed)
        actions = in_fixed_batches(choose, *(torch.from_numpy(part).to(device) for part in inputs), rows=ROWS)
        hand_over()  # while the device works
        chosen = actions.cpu().numpy()
        with apart():
            observations, rewards = environment.step(chosen, indices)
        returns += discounts * rewards
        discounts[1] *= gamma
        if environment.over(indices):
            break
    return returns
