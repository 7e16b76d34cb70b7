"""What every algorithm must do."""

from __future__ import annotations

import copy
import io
from typing import Any

import torch
from tensordict import TensorDict

from spinrl.algorithms import Algorithm, AlgorithmConfig
from spinrl.nn import CriticEnsemble
from spinrl.policies import Policy, PolicyConfig
from spinrl.specs import (
    ACTION,
    ALLOWED,
    NEXT_ALLOWED,
    ActionSpec,
)
from spinrl.testing.policies import check_forbidden_choices
from spinrl.testing.samples import SPECS, build_algorithm, random_batch, require


def check_algorithm(config: AlgorithmConfig, policy: PolicyConfig) -> None:
    """Check everything an algorithm promises with one kind of policy, over equal, mixed and single sub-actions.

    An update trains what is to be trained alone, gives finite losses and leaves its batch; a training that is saved and
    loaded goes on bit for bit.

    Args:
        config: the algorithm's configuration.
        policy: that of the policy to train.

    Raises:
        AssertionError: naming the first promise that is broken.
    """
    for spec in SPECS:
        algorithm = build_algorithm(config, policy, spec)
        _check_update(algorithm, spec)
        _check_resuming(config, policy, spec)
    _check_masks(config, policy, SPECS[1])


def _check_update(algorithm: Algorithm, spec: ActionSpec) -> None:
    batch = random_batch(spec)
    untouched = batch.clone()
    before = {name: parameter.detach().clone() for name, parameter in algorithm.policy.named_parameters()}
    for _ in range(3):
        losses = algorithm.update(batch)
    named = any(name.startswith("loss_") for name in losses.keys())  # noqa: SIM118 (iterating goes over the batch)
    require(named, "update must give losses, called loss_...")
    for name, loss in losses.items():
        sound = loss.shape == () and not loss.requires_grad and loss.isfinite()
        require(sound, f"{name} must be one finite number without gradient")
    require((batch == untouched).all(), "update must leave its batch as it is")
    for name, parameter in algorithm.policy.named_parameters():
        if parameter.requires_grad:
            # A single sub-action leaves nothing to relate, and a shift of all keys is never seen.
            moot = spec.num_sub_actions == 1 or "key.bias" in name
            require(moot or not torch.equal(parameter, before[name]), f"{name} must be trained")
        else:
            require(torch.equal(parameter, before[name]), f"frozen {name} must stay as it is")
    require(isinstance(algorithm.acting_policy(), Policy), "acting_policy must give a Policy")


def _check_masks(config: AlgorithmConfig, policy: PolicyConfig, spec: ActionSpec) -> None:
    """Masks that allow everything change nothing; what critics say of a forbidden choice never matters."""
    plain, masked = random_batch(spec), random_batch(spec, masked=True)
    free = plain.clone()
    free[ALLOWED] = free[NEXT_ALLOWED] = torch.ones_like(masked[ALLOWED])
    slot, choice = 1, 4  # forbidden everywhere
    masked[ACTION][:, slot] %= choice
    for key in (ALLOWED, NEXT_ALLOWED):
        masked[key][:, slot, 0] = True
        masked[key].scatter_(-1, masked[ACTION][..., None], True)
        masked[key][:, slot, choice] = False

    def losses(batch: TensorDict, value: float = 0.0) -> dict[str, Any]:
        algorithm = build_algorithm(config, policy, spec)
        for critics in algorithm.modules():
            if isinstance(critics, CriticEnsemble):
                with torch.no_grad():
                    critics.biases[-1][..., critics.offsets[slot] + choice] += value
        torch.manual_seed(0)
        found = [algorithm.update(batch).to_dict() for _ in range(2)][-1]
        with torch.no_grad():
            check_forbidden_choices(algorithm.acting_policy().eval(), spec)
        return found

    assert losses(free) == losses(plain)
    restricted = losses(masked)
    assert all(loss.isfinite() for loss in restricted.values())
    assert restricted == losses(masked, 1e6)


def _check_resuming(config: AlgorithmConfig, policy: PolicyConfig, spec: ActionSpec) -> None:
    """A training that is saved and loaded goes on bit for bit, given torch's random state."""
    first = build_algorithm(config, policy, spec)
    first.update(random_batch(spec, seed=1))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = build_algorithm(config, policy, spec)
    second.load_state_dict(torch.load(file, weights_only=True))
    for algorithm in (first, second):
        torch.manual_seed(7)
        algorithm.update(random_batch(spec, seed=2))
    expected = copy.deepcopy(first.state_dict())
    for name, value in second.state_dict().items():
        if isinstance(value, torch.Tensor):
            require(torch.equal(value, expected[name]), f"{name} must be the same after resuming")
