"""What every algorithm is: a module with networks, optimizers and one unit of work, `update`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import attrs
import torch
from attrs.validators import deep_iterable, ge, gt, le
from tensordict import TensorDict, TensorDictBase
from torch import nn

from spinrl.captured import adam, load_optimizer
from spinrl.config.registry import Component
from spinrl.errors import UserError
from spinrl.machine import ResolvedMachine
from spinrl.nn import CriticEnsemble, ValueNetwork, seeded_initialization
from spinrl.policies.base import Policy
from spinrl.specs import (
    ACTION,
    ALLOWED,
    NEXT_OBSERVATION,
    NEXT_POLICY_INPUT,
    NEXT_REWARD,
    NEXT_TERMINATED,
    OBSERVATION,
    POLICY_INPUT,
    ActionSpec,
)


class AlgorithmConfig(Component, ABC):
    """Base of every algorithm's configuration."""

    kind: ClassVar[str] = "algorithm"
    asks_next_policy: ClassVar[bool] = False  # whether `update` evaluates the policy at next observations too

    @abstractmethod
    def build(
        self, policy: Policy, observation_size: int, action_spec: ActionSpec, *, seed: int, machine: ResolvedMachine
    ) -> Algorithm:
        """The algorithm around `policy`, on the machine's device, with fresh critics from a child seed of `seed`."""


@attrs.frozen(kw_only=True)
class ActorCriticConfig(AlgorithmConfig):
    """Base of the configurations of algorithms with critics.

    Attributes:
        gamma: discount.
        polyak_rate: share of the online networks that the targets take over in a step.
        learning_rate: of Adam, for all networks.
        hidden: widths of the hidden layers of critics and state values.
        num_critics: critics in the ensemble, of which the smallest counts.
    """

    gamma: float = attrs.field(default=0.99, validator=[ge(0), le(1)])
    polyak_rate: float = attrs.field(default=0.005, validator=[gt(0), le(1)])
    learning_rate: float = attrs.field(default=3e-4, validator=gt(0))
    hidden: tuple[int, ...] = attrs.field(default=(256, 256), converter=tuple, validator=deep_iterable(gt(0)))
    num_critics: int = attrs.field(default=2, validator=gt(0))

    def build_critics(
        self, observation_size: int, action_spec: ActionSpec, seed: int
    ) -> tuple[CriticEnsemble, ValueNetwork]:
        """Critics and a state value with fresh weights from a child seed of `seed`."""
        with seeded_initialization(seed, "critics"):
            qvalue = CriticEnsemble(observation_size, action_spec, hidden=self.hidden, num_critics=self.num_critics)
            return qvalue, ValueNetwork(observation_size, hidden=self.hidden)


class DivergedError(UserError):
    """A training whose loss is no longer finite; the message says which and where."""


class Algorithm(nn.Module, ABC):
    """Networks, targets and optimizers of one training.

    `state_dict` holds all of them, so that with torch's random state (dropout draws from it) a resumed training
    goes on exactly.

    Args:
        config: its configuration.
        policy: the policy to train; parameters without gradient are never touched.
        machine: precision and compilation of `update`.
    """

    values_follow_policy: ClassVar[bool] = False  # whether `critic_losses` depend on the policy

    def __init__(self, config: ActorCriticConfig, policy: Policy, machine: ResolvedMachine) -> None:
        super().__init__()
        self.config = config
        self.policy = policy
        self.machine = machine
        # Nearly all of an update's work is in here. Its backward pass is compiled with it; compiling around `backward`
        # and the optimizers would break the graph at each of them and gain nothing.
        self._log_prob = torch.compile(policy.log_prob) if machine.compile else policy.log_prob
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    def policy_log_prob(self, batch: TensorDictBase) -> torch.Tensor:
        """The policy's log π(a|s) of a batch (B,) in float32, computed in the machine's precision, compiled or not."""
        with self.machine.autocast():
            return self._log_prob(policy_input(batch), batch[ACTION], batch.get(ALLOWED, None)).float()

    @abstractmethod
    def update(self, batch: TensorDictBase) -> TensorDict:
        """One gradient step on a batch of transitions, without a host sync.

        Returns:
            Detached 0-d losses `loss_*`, and what helps to read them.
        """

    def critics(self) -> dict[str, nn.Module]:
        """The networks that hold values, by name: qvalue and, where the algorithm has one, value; without targets."""
        return {name: module for name, module in self.named_children() if name in ("qvalue", "value")}

    def critic_losses(self, batch: TensorDictBase, returns: torch.Tensor) -> dict[str, torch.Tensor]:
        """Losses of the critics on observed returns, for `MonteCarloCritics`.

        Q by MSE on the returns; V, where there is one, by the algorithm's own rule on the Q of the batch.

        Args:
            batch: transitions.
            returns: (B,) discounted returns-to-go.

        Raises:
            NotImplementedError: when the algorithm has no critics that could be started so.
        """
        raise NotImplementedError(f"{type(self).__name__} has no start for critics; set Experiment.critic_start=None")

    def copy_to_targets(self) -> None:
        """Make every target network equal to the network that it follows."""
        for name, module in self.critics().items():
            if (target := getattr(self, f"target_{name}", None)) is not None:
                target.load_state_dict(module.state_dict())

    def acting_policy(self) -> Policy:
        """The policy to evaluate and export: the trained one, unless the algorithm acts by more than it."""
        return self.policy

    def add_optimizer(
        self, name: str, parameters: Iterable[nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        """An Adam over the parameters, kept in the state dict. Parameters that have no gradient stay as they are."""
        self.optimizers[name] = adam(parameters, learning_rate, capture=self.machine.capture)
        return self.optimizers[name]

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizers' states, for `state_dict`."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def set_extra_state(self, state: Any) -> None:
        """Load the optimizers' states.

        Raises:
            ValueError: when they are not those of this algorithm.
        """
        if set(state) != set(self.optimizers):
            raise ValueError(f"expected optimizer states of {sorted(self.optimizers)}, got {sorted(state)}")
        for name, optimizer in self.optimizers.items():
            load_optimizer(optimizer, state[name])


def transition(batch: TensorDictBase) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """observation (B, S), action (B, N), reward (B,), terminated (B,) bool, next observation (B, S) of a batch."""
    return (
        batch[OBSERVATION],
        batch[ACTION],
        batch[NEXT_REWARD].squeeze(-1),
        batch[NEXT_TERMINATED].squeeze(-1),
        batch[NEXT_OBSERVATION],
    )


def policy_input(batch: TensorDictBase) -> torch.Tensor:
    """What the policy is given for the observations of a batch: these, or what was computed of them before."""
    return batch.get(POLICY_INPUT, batch[OBSERVATION])


def next_policy_input(batch: TensorDictBase) -> torch.Tensor:
    """As `policy_input`, for the next observations."""
    return batch.get(NEXT_POLICY_INPUT, batch[NEXT_OBSERVATION])


def detached(**values: torch.Tensor) -> TensorDict:
    """What an update reports, by name, cut off from what it was computed from."""
    return TensorDict({name: value.detach() for name, value in values.items()})


def minimize(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One optimizer step down the gradient of `loss`."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.no_grad()
def polyak_update(target: nn.Module, online: nn.Module, rate: float) -> None:
    """target ← target + rate · (online − target), for every parameter at once."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), rate)
