"""Single steps of a cell's work on random data, for the cost of a grid and for the benchmark."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDict

from spinrl.asm import FrozenASM, Pretraining, masked_prediction
from spinrl.asm.model import ASMEncoder
from spinrl.machine import ResolvedMachine
from spinrl.policies import Policy, PolicyConfig
from spinrl.specs import (
    ACTION,
    NEXT_OBSERVATION,
    NEXT_REWARD,
    NEXT_TERMINATED,
    OBSERVATION,
    ActionSpec,
)


def random_batch(batch: int, observation_size: int, spec: ActionSpec) -> TensorDict:
    """A valid batch of transitions with the keys of `spinrl.specs`."""
    flag = torch.zeros(batch, 1, dtype=torch.bool)
    values = {
        OBSERVATION: torch.randn(batch, observation_size),
        ACTION: torch.stack([torch.randint(0, choices, (batch,)) for choices in spec.nvec], -1),
        NEXT_OBSERVATION: torch.randn(batch, observation_size),
        NEXT_REWARD: torch.rand(batch, 1),
        NEXT_TERMINATED: flag,
    }
    return TensorDict(values, batch_size=[batch])


def untrained_policy(config: PolicyConfig, encoder: ASMEncoder, observation_size: int, spec: ActionSpec) -> Policy:
    """A policy with fresh weights, on an untrained ASM if it needs one; sizes and speed are those of a trained one."""
    asm = FrozenASM.untrained(encoder, observation_size, spec) if config.needs_asm else None
    return config.build(observation_size, spec, asm=asm, seed=0)


def pretraining_step(
    config: Pretraining, observation_size: int, spec: ActionSpec, machine: ResolvedMachine
) -> Callable[[], None]:
    """A function that does one step of ASM pre-training and returns when the device is done."""
    model = config.encoder.build(observation_size, spec, seed=0).to(machine.device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    batch = random_batch(config.batch_size, observation_size, spec).to(machine.device)
    generator = torch.Generator(device=machine.device).manual_seed(0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with machine.autocast():
            loss, _ = masked_prediction(model, config.masking, batch[OBSERVATION], batch[ACTION], generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
        optimizer.step()
        finish(machine)

    return step


def finish(machine: ResolvedMachine) -> None:
    """Wait until the device has finished its queued work."""
    if machine.device == "cuda":
        torch.cuda.synchronize()
