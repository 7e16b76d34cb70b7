"""A policy's decisions for estimates, drawn from a generator of their own, and their log-probabilities."""

from __future__ import annotations

import copy

import torch

from spinrl.algorithms import Algorithm
from spinrl.evaluation.estimators import WithheldError
from spinrl.evaluation.rollout import ActionChoice
from spinrl.nn.standardizer import Standardizer, standardizers
from spinrl.policies import gumbel_noise


class Acting:
    """How an algorithm acts.

    Args:
        algorithm: in evaluation mode.
        action: by sampling, or by the most likely choices.
        generator: of what is sampled.

    Attributes:
        policy: that acts.
        standardizer: of its observations; the identity where it has none.
    """

    def __init__(self, algorithm: Algorithm, action: ActionChoice, generator: torch.Generator) -> None:
        self.policy = algorithm.acting_policy()
        self.standardizer = next(iter(standardizers(self.policy)), Standardizer(self.policy.observation_size))
        self._action, self._generator = action, generator

    def drawing(self, generator: torch.Generator) -> Acting:
        """The same, drawn from another generator."""
        other = copy.copy(self)
        other._generator = generator
        return other

    @torch.no_grad()
    def __call__(self, observation: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
        """(B, S), (B, N, K) → (B, N)."""
        if self._action == "mode":
            return self.policy.mode(observation, allowed)
        spec = self.policy.action_spec
        shape = (len(observation), spec.num_sub_actions, spec.max_choices)
        noise = gumbel_noise(shape, generator=self._generator).to(observation.device)
        return self.policy.sample(observation, noise, allowed)

    @torch.no_grad()
    def log_probs(self, observation: torch.Tensor, taken: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
        """(B, N) log-probability of each sub-action that was taken given those before it; −inf where it never is.

        Raises:
            WithheldError: where the policy draws its actions in a way that has none.
        """
        if self._action == "mode" or self.policy.drawn_by == "mode":
            same = self.policy.mode(observation, allowed) == taken
            return torch.where(same, 0.0, -torch.inf)
        if self.policy.drawn_by != "log_probs":
            raise WithheldError(f"nobody knows the probabilities with which a {type(self.policy).__name__} decides")
        found = self.policy.log_probs(observation, taken, allowed)
        return found.gather(-1, taken[..., None]).squeeze(-1).float()
