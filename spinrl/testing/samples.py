"""Small policies, algorithms and batches to check, over equal, mixed and single sub-actions."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from tensordict import TensorDict

from spinrl.algorithms import Algorithm, AlgorithmConfig
from spinrl.asm import ASM, ASMEncoder
from spinrl.machine import ResolvedMachine
from spinrl.policies import Policy, PolicyConfig
from spinrl.specs import (
    ACTION,
    ALLOWED,
    NEXT_ALLOWED,
    NEXT_OBSERVATION,
    NEXT_REWARD,
    NEXT_TERMINATED,
    OBSERVATION,
    ActionSpec,
)

SIZE = 6  # S
SPECS = (ActionSpec([3, 3, 3]), ActionSpec([2, 5, 3]), ActionSpec([4]), ActionSpec([3, 1, 5]))
SMALL = ASMEncoder(d_model=16, num_heads=2, num_blocks=2, num_state_tokens=2, head_width=8, dropout=0.1)


@attrs.frozen
class FakeFrozenASM:
    """An untrained ASM as a policy sees a pre-trained one."""

    model: ASM
    fingerprint: str = "0123456789abcdef"


def frozen_asm(spec: ActionSpec, *, size: int = SIZE, encoder: ASMEncoder = SMALL, **fields: Any) -> FakeFrozenASM:
    """An untrained ASM of these sizes."""
    return FakeFrozenASM(encoder.build(size, spec, seed=1), **fields)


def build_policy(config: PolicyConfig, spec: ActionSpec, *, seed: int = 0, size: int = SIZE) -> Policy:
    """A policy on an untrained ASM."""
    return config.build(size, spec, asm=frozen_asm(spec, size=size), seed=seed)


def random_batch(spec: ActionSpec, batch: int = 8, *, seed: int = 0, masked: bool = False) -> TensorDict:
    """A valid batch of transitions, with masks or without."""
    generator = torch.Generator().manual_seed(seed)
    data = TensorDict(batch_size=[batch])
    data[OBSERVATION] = torch.randn(batch, SIZE, generator=generator)
    data[NEXT_OBSERVATION] = torch.randn(batch, SIZE, generator=generator)
    data[ACTION] = torch.stack([torch.randint(m, (batch,), generator=generator) for m in spec.nvec], dim=1)
    data[NEXT_REWARD] = torch.rand(batch, 1, generator=generator)
    data[NEXT_TERMINATED] = torch.rand(batch, 1, generator=generator) < 0.2
    if masked:
        data[ALLOWED] = random_masks(spec, data[ACTION], generator)
        other = torch.stack([torch.randint(m, (batch,), generator=generator) for m in spec.nvec], dim=1)
        data[NEXT_ALLOWED] = random_masks(spec, other, generator)
    return data


def random_masks(spec: ActionSpec, action: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, N, K) bool: the choices of the actions (B, N), and about half of the others."""
    allowed = torch.rand(*action.shape, spec.max_choices, generator=generator) < 0.5
    return allowed.scatter(-1, action[..., None], True)


def build_algorithm(
    config: AlgorithmConfig,
    policy: PolicyConfig,
    spec: ActionSpec,
    *,
    machine: ResolvedMachine | None = None,
    size: int = SIZE,
) -> Algorithm:
    """An algorithm with a policy on an untrained ASM."""
    built = build_policy(policy, spec, size=size)
    return config.build(built, size, spec, seed=0, machine=machine or ResolvedMachine())


def require(holds: object, promise: str) -> None:
    """Raise where a promise is not kept; `assert` would be left out under ``python -O``."""
    if not bool(holds):
        raise AssertionError(promise)


def require_close(found: torch.Tensor, expected: torch.Tensor, promise: str, **tolerance: Any) -> None:
    """Raise where two tensors are not close to one another."""
    torch.testing.assert_close(found, expected, msg=lambda text: f"{promise}: {text}", **tolerance)
