"""The learner of a behaviour training: networks, targets and the update of double decoupled Q-learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from spinrl.behaviors.network import DecoupledQNetwork, joint_value
from spinrl.behaviors.shipped import Behavior, weights_name
from spinrl.behaviors.train.decqn import DecQN
from spinrl.config.serialize import to_plain
from spinrl.seeding import child_seed
from spinrl.tasks import get_task


class Learner:
    """Networks, targets and optimiser, with the update of double decoupled Q-learning."""

    def __init__(self, config: DecQN) -> None:
        self.config = config = config.on_this_machine()
        torch.manual_seed(child_seed(config.seed, "behavior", "weights"))
        self.networks = nn.ModuleList([config.network() for _ in range(config.critics)]).to(config.device)
        self.targets = nn.ModuleList([config.network() for _ in range(config.critics)]).to(config.device)
        self.targets.load_state_dict(self.networks.state_dict())
        self.optimizer = torch.optim.Adam(self.networks.parameters(), lr=config.learning_rate, fused=True)
        self.updates = 0
        self.seconds = 0.0
        self.started_from: str | None = None  # name and fingerprint of a behaviour
        self.phases: list[dict[str, Any]] = []  # command and its first update
        self.can_act = False  # before that, actors act at random, and their observations fix the normalisation
        self._loss = torch.compile(self.loss) if config.compile else self.loss

    @property
    def network(self) -> DecoupledQNetwork:
        """The network that acts."""
        network = self.networks[0]
        assert isinstance(network, DecoupledQNetwork)
        return network

    def set_normalizer(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Fix the input normalisation of all networks, from (S,) statistics of observations."""
        for network in (*self.networks, *self.targets):
            assert isinstance(network, DecoupledQNetwork)
            network.set_normalizer(mean, std)
        self.can_act = True

    def start_from(self, behavior: Behavior) -> None:
        """Begin with the network of a behaviour of the same task; the number of choices may differ.

        Critics beside the first keep a fifth of their random hidden layers, since equal critics would stay equal, and
        their minimum would correct nothing.
        """
        assert behavior.network is not None
        state = behavior.network.state_for(get_task(self.config.task).action_spec(self.config.bins))
        for number, network in enumerate(self.networks):
            before = network.state_dict().items()
            random = {key: value.to("cpu", copy=True) for key, value in before if key.startswith("body.")}
            network.load_state_dict(state)
            if number > 0:
                network.load_state_dict({**state, **{key: state[key].lerp(random[key], 0.2) for key in random}})
        self.targets.load_state_dict(self.networks.state_dict())
        self.started_from = source_of(behavior)
        self.can_act = True

    def begin_phase(self, command: str) -> None:
        """Record that `command` trains from now on; a phase without an update is dropped."""
        self.phases = [phase for phase in self.phases if phase["from_updates"] < self.updates]
        if not self.phases or self.phases[-1]["command"] != command:
            self.phases.append({"from_updates": self.updates, "command": command})

    def loss(
        self,
        observation: torch.Tensor,
        action: torch.Tensor,
        reward: torch.Tensor,
        discount: torch.Tensor,
        bootstrap: torch.Tensor,
    ) -> torch.Tensor:
        """Huber losses of the joint action's values against the n-step double-Q target; shapes as `sample` gives."""
        with torch.no_grad():
            best = self.network(bootstrap).argmax(-1)  # (B, N): the online network chooses,
            values = [joint_value(target(bootstrap), best) for target in self.targets]  # the target ones judge
            goal = reward + discount * torch.stack(values).amin(0)  # (B,)
        losses = [
            functional.smooth_l1_loss(joint_value(network(observation), action), goal) for network in self.networks
        ]
        return torch.stack(losses).sum()

    def update(self, batch: tuple[np.ndarray, ...]) -> torch.Tensor:
        """One gradient step on a replay sample; gives the detached loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.updates)
        loss = self._loss(*(torch.from_numpy(part).to(self.config.device) for part in batch))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), self.config.max_gradient_norm)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.targets.parameters()), list(self.networks.parameters()), self.config.polyak_rate
            )
        self.updates += 1
        return loss.detach()

    def state(self) -> dict[str, Any]:
        return {
            "networks": self.networks.state_dict(),
            "targets": self.targets.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "seconds": self.seconds,
        } | self.origin()

    def origin(self) -> dict[str, Any]:
        """The history of the training as plain data."""
        return {"started_from": self.started_from, "phases": self.phases, "configuration": to_plain(self.config)}

    def load(self, state: dict[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        self.targets.load_state_dict(state["targets"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates, self.seconds = state["updates"], state["seconds"]
        self.started_from, self.phases = state.get("started_from"), state.get("phases", [])
        self.can_act = True


def source_of(behavior: Behavior) -> str:
    """Name and fingerprint of a behaviour that a training starts from."""
    return f"{weights_name(behavior.task, behavior.bins, behavior.level)} ({behavior.fingerprint})"
