"""A trained algorithm from what a checkpoint holds of it."""

from __future__ import annotations

from typing import Any

from spinrl.algorithms.base import Algorithm, AlgorithmConfig
from spinrl.asm import ASMEncoder, FrozenASM
from spinrl.machine import ResolvedMachine
from spinrl.policies import PolicyConfig
from spinrl.specs import ActionSpec


def rebuilt(
    policy: PolicyConfig,
    algorithm: AlgorithmConfig,
    encoder: ASMEncoder,
    observation_size: int,
    action_spec: ActionSpec,
    asm_fingerprint: str | None,
    seed: int,
    state: dict[str, Any],
) -> Algorithm:
    """A trained algorithm, in evaluation mode, from its configuration and the `algorithm` state of a checkpoint.

    Raises:
        ValueError, RuntimeError, KeyError: when they do not fit together.
    """
    asm = None
    if policy.needs_asm:
        asm = FrozenASM.of(encoder.build(observation_size, action_spec, seed=0), asm_fingerprint or "", 0.0, {})
    built = policy.build(observation_size, action_spec, asm=asm, seed=seed)
    made = algorithm.build(built, observation_size, action_spec, seed=seed, machine=ResolvedMachine())
    made.load_state_dict(state)
    return made.eval()
