"""Behaviour policies as shipped: safetensors weights with a JSON card each, inside the package."""

from __future__ import annotations

import functools
import hashlib
import json
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Literal

import attrs
import numpy as np
import torch
from safetensors.torch import load as load_safetensors

from spinrl.behaviors.network import DecoupledQNetwork
from spinrl.errors import UserError
from spinrl.nn.fixed_batch import in_fixed_batches
from spinrl.tasks import get_task

Level = Literal["expert", "medium", "random"]


class BehaviorError(UserError):
    """A behaviour policy is not shipped, or its files do not fit together."""


@attrs.frozen(eq=False)
class Behavior:
    """A behaviour policy, which collects data.

    Attributes:
        task: name of the task.
        bins: choices per sub-action.
        level: "expert", "medium" or "random".
        fingerprint: fingerprint of the weights; it is part of the provenance of collected data.
        card: record of its training and returns; empty for the random policy.
        network: frozen Q-network, shared by all who load it; None for the random policy.
    """

    task: str
    bins: int
    level: str
    fingerprint: str
    card: dict[str, Any]
    network: DecoupledQNetwork | None

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Greedy bins for (B, S) float32 observations: (B, N) int64; a row's result does not depend on other rows.

        Raises:
            BehaviorError: for the random policy, which has no greedy action.
        """
        if self.network is None:
            raise BehaviorError("the random behaviour has no greedy action; collect with epsilon 1")
        with torch.inference_mode():
            return in_fixed_batches(self.network, torch.from_numpy(observation)).argmax(-1).numpy()


def load_behavior(task: str, bins: int, level: Level | str) -> Behavior:
    """The shipped behaviour of a task, number of bins and level.

    Raises:
        BehaviorError: when none is shipped (the message lists those that are, and how to train one), or its files
            are damaged.
    """
    get_task(task)  # names the tasks that there are
    if level == "random":
        return Behavior(task, bins, level, "random", {}, None)
    name = weights_name(task, bins, level)
    weights, card_file = _weights_folder() / f"{name}.safetensors", _weights_folder() / f"{name}.json"
    if not (weights.is_file() and card_file.is_file()):
        raise BehaviorError(
            f"no {level} behaviour is shipped for {task} with {bins} bins (shipped: {', '.join(shipped()) or 'none'}); "
            f"train one with: python -m tools.train_behavior --task {task} --bins {bins}"
        )
    content = weights.read_bytes()
    card = json.loads(card_file.read_text(encoding="utf-8"))
    fingerprint = hashlib.sha256(content).hexdigest()[:16]
    if card.get("weights_sha256", "")[:16] != fingerprint:
        raise BehaviorError(f"{name}.safetensors does not belong to its card (fingerprint {fingerprint}); reinstall")
    return Behavior(task, bins, level, fingerprint, card, _network(content, task, bins, tuple(card["hidden"])))


@functools.lru_cache(maxsize=32)  # a grid plans the same few datasets for every one of its cells
def _network(content: bytes, task: str, bins: int, hidden: tuple[int, ...]) -> DecoupledQNetwork:
    spec = get_task(task)
    network = DecoupledQNetwork(spec.observation_size, spec.action_spec(bins), hidden)
    network.load_state_dict({key: value.float() for key, value in load_safetensors(content).items()})
    return network.eval().requires_grad_(False)


def weights_name(task: str, bins: int, level: str) -> str:
    """File name, without ending, of a behaviour's weights and card."""
    return f"{task}-{bins}bins-{level}"


def shipped() -> list[str]:
    """Names of the behaviours that this package carries."""
    folder = _weights_folder()
    if not folder.is_dir():
        return []
    return sorted(file.name.removesuffix(".safetensors") for file in folder.iterdir() if file.name.endswith("tensors"))


def _weights_folder() -> Traversable:
    return resources.files("spinrl.behaviors") / "weights"
