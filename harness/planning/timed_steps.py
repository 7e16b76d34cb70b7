"""Single steps of a cell's work on random data, for the cost of a grid and for the benchmark."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDict

from spinrl.algorithms import Algorithm
from spinrl.asm import FrozenASM, Pretraining, masked_prediction
from spinrl.asm.model import ASMEncoder
from spinrl.captured import WARM_UP, Captured, adam
from spinrl.machine import ResolvedMachine
from spinrl.policies import Policy, PolicyConfig
from spinrl.specs import (
    ACTION,
    NEXT_OBSERVATION,
    NEXT_REWARD,
    NEXT_TERMINATED,
    OBSERVATION,
    POLICY_INPUT,
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


def update_step(algorithm: Algorithm, batch_size: int, observation_size: int, spec: ActionSpec) -> Captured[TensorDict]:
    """One gradient step on a random batch, captured where the algorithm's machine captures."""
    device = algorithm.machine.device
    batch = random_batch(batch_size, observation_size, spec).to(device)
    if frozen := algorithm.policy.frozen_input():
        batch[POLICY_INPUT] = torch.randn(batch_size, *frozen.shape, dtype=torch.bfloat16, device=device)
    return Captured(lambda: algorithm.update(batch), on=algorithm.machine.capture)


def pretraining_step(
    config: Pretraining, observation_size: int, spec: ActionSpec, machine: ResolvedMachine
) -> Captured[torch.Tensor]:
    """One step of ASM pre-training on a random batch, captured where the machine captures."""
    model = config.encoder.build(observation_size, spec, seed=0).to(machine.device)
    optimizer = adam(model.parameters(), config.learning_rate, capture=machine.capture, scheduled=True)
    batch = random_batch(config.batch_size, observation_size, spec).to(machine.device)
    generator = torch.Generator(device=machine.device).manual_seed(0)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with machine.autocast():
            loss, _ = masked_prediction(model, config.masking, batch[OBSERVATION], batch[ACTION], generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
        optimizer.step()
        return loss.detach()

    return Captured(step, on=machine.capture, generators=[generator])


def seconds_of(steps: Sequence[Callable[[], object]], machine: ResolvedMachine, repeats: int = 3) -> float:
    """Seconds in which each of the steps is done once: a CPU does one at a time, a GPU each on a stream of its own."""
    on_gpu = machine.device == "cuda"
    streams = [torch.cuda.Stream() if on_gpu else None for _ in steps]

    def round_of(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            for step, stream in zip(steps, streams, strict=True):
                with torch.cuda.stream(stream):
                    step()
        finish(machine)
        return (time.perf_counter() - began) / times

    finish(machine)
    round_of(WARM_UP + 1 if machine.capture else 1)
    # A GPU works on while the next step is asked for: a single one would be little but waiting for its end.
    return statistics.median(round_of(10 if on_gpu else 1) for _ in range(repeats))


def finish(machine: ResolvedMachine) -> None:
    """Wait until the device has finished its queued work."""
    if machine.device == "cuda":
        torch.cuda.synchronize()


def finished(step: Callable[[], object], machine: ResolvedMachine) -> Callable[[], None]:
    """The step as a function that returns when the device is done."""

    def done() -> None:
        step()
        finish(machine)

    return done
