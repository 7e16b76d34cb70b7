"""What every policy is: logits, log-probabilities, sampling with given noise, and a TensorDict module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Protocol

import attrs
import torch
from tensordict import TensorDictBase
from tensordict.nn import InteractionType, TensorDictModuleBase
from tensordict.nn.probabilistic import interaction_type

from spinrl.asm.model import ASM, ASMEncoder
from spinrl.config.registry import Component
from spinrl.nn import forbid
from spinrl.specs import ACTION, ALLOWED, LOGITS, OBSERVATION, SAMPLE_LOG_PROB, ActionSpec


class PretrainedASM(Protocol):
    """What a policy needs of a pre-trained ASM: the network, and what it came from."""

    @property
    def model(self) -> ASM: ...

    @property
    def fingerprint(self) -> str: ...


class PolicyConfig(Component, ABC):
    """Base of every policy's configuration."""

    kind: ClassVar[str] = "policy"
    needs_asm: ClassVar[bool] = False  # whether `build` needs a pre-trained ASM

    @abstractmethod
    def build(
        self, observation_size: int, action_spec: ActionSpec, *, asm: PretrainedASM | None = None, seed: int
    ) -> Policy:
        """The policy with fresh weights from a child seed of `seed`.

        Args:
            observation_size: S.
            action_spec: the action's shape.
            asm: a pre-trained ASM, for the policies that need one; the others leave it alone.
            seed: the experiment's seed.

        Raises:
            ValueError: when a needed ASM is missing or of other sizes.
        """

    @property
    def starts_as_asm(self) -> bool:
        """Whether the policy decides, before any training, as its ASM does for the fully masked action."""
        return False

    def frozen_shape(self, encoder: ASMEncoder, action_spec: ActionSpec) -> tuple[int, ...] | None:
        """The shape of the policy's `frozen_input` at the end of training, if it has one then.

        Args:
            encoder: sizes of the ASM that the policy would be built on.
            action_spec: the action's shape.

        Raises:
            ValueError: when the policy would fix what an ASM of those sizes leaves to be trained.
        """
        return None


@attrs.frozen
class FrozenInput:
    """The part of a policy between the observation and what is trained, while it never changes.

    Attributes:
        encode: observations (B, S) → (B, *shape), which may stand in for the observations in `Policy.log_prob`.
        shape: of what one observation becomes.
        identity: fingerprint of all that `encode` depends on.
        shared: whether other trainings have the same one, so that it is worth keeping.
    """

    encode: Callable[[torch.Tensor], torch.Tensor]
    shape: tuple[int, ...]
    identity: str
    shared: bool


class Policy(TensorDictModuleBase, ABC):
    """A distribution over joint actions given an observation.

    As a TensorDict module it reads `observation` (and `allowed`, where that is given) and writes `logits`, `action`
    and `sample_log_prob`; it samples from torch's global generator unless the interaction type asks for a deterministic
    action.

    Choices that are not allowed have no part in the distribution: every method that takes `allowed`, (B, N, K) bool or
    None for all, is about the policy given that none of them is made. Networks know nothing of it: `log_probs` and
    `decide` apply it to their logits.

    Args:
        observation_size: S.
        action_spec: the action's shape.
    """

    def __init__(self, observation_size: int, action_spec: ActionSpec) -> None:
        super().__init__()
        self.observation_size = observation_size
        self.action_spec = action_spec
        self.in_keys = [OBSERVATION]
        self.out_keys = [LOGITS, ACTION, SAMPLE_LOG_PROB]

    @abstractmethod
    def logits(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
        """(B, S), (B, N) → (B, N, K), -inf where a sub-action has fewer choices; as if every choice were allowed.

        Policies whose sub-actions depend on one another condition them on `action`, or, without one, on their own
        most likely choices.
        """

    @abstractmethod
    def decide(
        self, observation: torch.Tensor, noise: torch.Tensor | None, allowed: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose actions.

        Args:
            observation: (B, S).
            noise: Gumbel noise (B, N, K) to sample with, or None for the most likely choices.
            allowed: (B, N, K) bool, False for choices that must not be made; None for all. Of a sub-action none of
                whose choices is allowed, the chosen one means nothing.

        Returns:
            action (B, N) and logits (B, N, K), -inf where a choice does not exist or is not allowed.
        """

    @property
    def milestones(self) -> tuple[float, ...]:
        """The shares of the training budget, within (0, 1), at which `set_trained_parts` changes what is trained."""
        return ()

    def set_trained_parts(self, share: float) -> None:
        """Choose the parameters that are trained from this share of the training budget on, 0 to 1."""

    def frozen_input(self) -> FrozenInput | None:
        """What may be computed once for a whole dataset now, where the policy's configuration asks for that."""
        return None

    def log_probs(
        self, observation: torch.Tensor, action: torch.Tensor | None = None, allowed: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Log-probabilities of every choice of every sub-action, (B, N, K); `action` as in `logits`."""
        if action is None and allowed is not None:  # the policy's own most likely choices are allowed ones
            return self.decide(observation, None, allowed)[1].log_softmax(-1)
        return forbid(self.logits(observation, action), allowed).log_softmax(-1)

    def expected_minimum(
        self, observation: torch.Tensor, values: torch.Tensor, samples: int, allowed: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What an ensemble expects of the policy's actions, each worth Σ_i values[i, a_i]: its cautious member's word.

        The mean over `samples` joint actions of the ensemble's smallest sum for each; where sub-actions are
        independent, the smallest over the ensemble of its exact expectations.

        Args:
            observation: (B, S).
            values: (E, B, N, K) of every choice; those of choices that do not exist are left alone.
            samples: joint actions drawn from torch's global generator; exact policies draw none.
            allowed: (B, N, K) bool.

        Returns:
            (B,).
        """
        spec = self.action_spec
        shape = (len(observation), spec.num_sub_actions, spec.max_choices)
        drawn = [self.sample(observation, gumbel_noise(shape, device=values.device), allowed) for _ in range(samples)]
        index = torch.stack(drawn, -1).expand(values.shape[0], -1, -1, -1)  # (E, B, N, samples)
        return values.gather(-1, index).sum(2).amin(0).mean(-1)

    def log_prob(
        self, observation: torch.Tensor, action: torch.Tensor, allowed: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Log-probability of joint actions: (B, S), (B, N) → (B,); -inf for those that are not allowed."""
        return joint_log_prob(self.log_probs(observation, action, allowed), action)

    def sample(
        self, observation: torch.Tensor, noise: torch.Tensor, allowed: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Actions (B, N) drawn with the caller's Gumbel noise (B, N, K), so that the caller decides what is equal."""
        return self.decide(observation, noise, allowed)[0]

    def mode(self, observation: torch.Tensor, allowed: torch.Tensor | None = None) -> torch.Tensor:
        """The most likely choice of every sub-action in turn, (B, N)."""
        return self.decide(observation, None, allowed)[0]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write logits (..., N, K), an action (..., N) and its log-probability (...) for the observations (..., S)."""
        given = tensordict[OBSERVATION]
        batch = given.shape[:-1]  # that of an environment of TorchRL: () of one, (E,) of many
        observation = given.reshape(-1, given.shape[-1])
        allowed = tensordict.get(ALLOWED, None)
        if allowed is not None:
            allowed = allowed.reshape(-1, *allowed.shape[-2:])
        noise = None
        if interaction_type() in (None, InteractionType.RANDOM):
            spec = self.action_spec
            shape = (observation.shape[0], spec.num_sub_actions, spec.max_choices)
            noise = gumbel_noise(shape, device=observation.device)
        action, logits = self.decide(observation, noise, allowed)
        tensordict[LOGITS] = logits.reshape(*batch, *logits.shape[1:])
        tensordict[ACTION] = action.reshape(*batch, *action.shape[1:])
        tensordict[SAMPLE_LOG_PROB] = joint_log_prob(logits.log_softmax(-1), action).reshape(batch)
        return tensordict


class IndependentPolicy(Policy):
    """A policy whose sub-actions are independent given the observation: N categoricals from one set of logits."""

    def expected_minimum(
        self, observation: torch.Tensor, values: torch.Tensor, samples: int = 0, allowed: torch.Tensor | None = None
    ) -> torch.Tensor:
        # (B, N, K), 0 where a choice does not exist or is not allowed
        probabilities = self.log_probs(observation, allowed=allowed).float().exp()
        return (probabilities * values.masked_fill(probabilities == 0, 0.0)).sum((-1, -2)).amin(0)

    def decide(
        self, observation: torch.Tensor, noise: torch.Tensor | None, allowed: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = forbid(self.logits(observation), allowed)
        return (logits if noise is None else logits + noise).argmax(-1), logits


def joint_log_prob(log_probs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """(B, N, K), (B, N) → (B,): the sum over sub-actions of the chosen log-probabilities."""
    return log_probs.gather(-1, action[..., None]).squeeze(-1).sum(-1)


def gumbel_noise(
    shape: tuple[int, ...], *, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> torch.Tensor:
    """Standard Gumbel noise, finite throughout: the argmax of logits plus it is a sample of their categorical."""
    return uniform_to_gumbel(torch.rand(shape, generator=generator, device=device))


def uniform_to_gumbel(uniform: torch.Tensor) -> torch.Tensor:
    """Gumbel noise from uniform numbers in [0, 1)."""
    tiny = torch.finfo(uniform.dtype).tiny
    return -(-uniform.clamp_min(tiny).log()).clamp_min(tiny).log()


def gumbel_to_uniform(noise: torch.Tensor) -> torch.Tensor:
    """The inverse of `uniform_to_gumbel`."""
    return (-(-noise).exp()).exp()
