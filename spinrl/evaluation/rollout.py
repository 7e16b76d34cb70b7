"""Returns of a policy in the simulator, many episodes in lock-step with one policy call a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from spinrl.nn.fixed_batch import in_fixed_batches
from spinrl.policies import Policy
from spinrl.seeding import child_seed, numpy_generator
from spinrl.tasks import EPISODE_STEPS, Environment

ROWS = 10  # of a policy call: the protocol's ten episodes fill it, so that nothing is padded

ActionChoice = Literal["sample", "mode"]


def episode_seeds(seed: int, episodes: int) -> list[int]:
    """The seeds of `episodes` evaluation episodes; the first ones are the same for any number of them."""
    return [child_seed(seed, "evaluation", episode) for episode in range(episodes)]


@torch.inference_mode()
def evaluate(
    policy: Policy,
    environment: Environment,
    seeds: Sequence[int],
    *,
    action: ActionChoice = "sample",
    steps: int = EPISODE_STEPS,
) -> list[float]:
    """Undiscounted return of one episode per seed.

    An episode's start and the noise its actions are sampled with come from its own seed, so that a seed's
    return is the same whatever other episodes run beside it.

    Args:
        policy: the policy, left in the mode (training or evaluation) that it came in.
        environment: environments, at least one; episodes beyond their number run in further rounds.
        seeds: one per episode.
        action: sample from the policy (the published protocol) or take each sub-action's most likely choice.
        steps: control steps per episode, at most.

    Returns:
        len(seeds) returns.
    """
    was_training = policy.training
    policy.eval()
    try:
        rounds = [seeds[at : at + environment.num_envs] for at in range(0, len(seeds), environment.num_envs)]
        return [value for part in rounds for value in _lock_step(policy, environment, part, action, steps)]
    finally:
        policy.train(was_training)


def _lock_step(
    policy: Policy,
    environment: Environment,
    seeds: Sequence[int],
    action: ActionChoice,
    steps: int,
) -> list[float]:
    device = next((parameter.device for parameter in policy.parameters()), torch.device("cpu"))
    spec = environment.action_spec
    noise = [numpy_generator(seed, "sampling") for seed in seeds]
    shape = (spec.num_sub_actions, spec.max_choices)
    indices = range(len(seeds))
    observations = np.stack([environment.reset(index, seed) for index, seed in zip(indices, seeds, strict=True)])
    returns = np.zeros(len(seeds))
    for _ in range(steps):
        inputs = torch.from_numpy(observations).to(device)
        if action == "mode":
            actions = in_fixed_batches(policy.mode, inputs, rows=ROWS)
        else:
            gumbel = torch.from_numpy(np.stack([rng.gumbel(size=shape).astype(np.float32) for rng in noise]))
            actions = in_fixed_batches(lambda *part: policy.sample(*part), inputs, gumbel.to(device), rows=ROWS)
        observations, rewards = environment.step(actions.cpu().numpy(), indices)
        returns += rewards
        if environment.over(indices):
            break
    return returns.tolist()
