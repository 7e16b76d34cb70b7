"""What is learned by plain regression before the first update: seeded, cached, and timed.

Starts draw from seeds of their own and use optimizers of their own, so that the training after them has fresh
optimizers and the same batches as a training without one.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import attrs
import torch
from attrs.validators import ge, gt, in_, optional
from tensordict import TensorDictBase
from torch import nn

from spinrl import checkpoint
from spinrl.algorithms.base import Algorithm, DivergedError
from spinrl.cache import DamagedError, OnDamage, OnWait, get_sound
from spinrl.captured import Captured, adam
from spinrl.checkpoint import CheckpointError
from spinrl.config import fingerprint, to_plain
from spinrl.config.registry import Component
from spinrl.data import Store
from spinrl.files import replacing
from spinrl.seeding import child_seed, torch_generator
from spinrl.turns import hand_over

FORMAT_VERSION = 1
STATE = "start.pt"

Gather = Callable[[torch.Tensor], TensorDictBase]  # indices of transitions (B,) → their batch
Losses = Callable[[TensorDictBase, torch.Tensor], Mapping[str, torch.Tensor]]  # of a batch, and its indices
Progress = Callable[[int, dict[str, float]], None]  # steps done, losses by name
Curve = list[tuple[int, dict[str, float]]]


class DamagedStartError(DamagedError):
    """A cached start that is not as it was written."""


@attrs.frozen(eq=False)
class Started:
    """A start that has been made.

    Attributes:
        seconds: what it took, whether it was made now or found in the cache.
        curve: its losses by step.
    """

    seconds: float
    curve: Curve


@attrs.frozen(kw_only=True)
class SupervisedStart(Component, ABC):
    """Base of starts: so many steps of Adam on losses of the dataset alone.

    Attributes:
        steps: gradient steps.
        batch_size: transitions per step, drawn with replacement.
        learning_rate: Adam's, at the start; none for the algorithm's own.
        schedule: constant, or cosine down to zero.
        max_gradient_norm: gradients are clipped to this norm; none leaves them as they are.
        report_every: steps between two reported losses.
    """

    seed_name: ClassVar[str]  # of its child seed

    steps: int = attrs.field(default=1000, validator=ge(1))
    batch_size: int = attrs.field(default=256, validator=ge(1))
    learning_rate: float | None = attrs.field(default=None, validator=optional(gt(0)))
    schedule: Literal["constant", "cosine"] = attrs.field(default="constant", validator=in_(("constant", "cosine")))
    max_gradient_norm: float | None = attrs.field(default=None, validator=optional(gt(0)))
    report_every: int = attrs.field(default=20, validator=ge(1))

    @abstractmethod
    def modules(self, algorithm: Algorithm) -> dict[str, nn.Module]:
        """The networks that it trains, by name."""

    @abstractmethod
    def losses(self, algorithm: Algorithm, store: Store) -> Losses:
        """The losses to add up, as a function of a batch and the indices of its transitions."""

    @abstractmethod
    def follows_policy(self, algorithm: Algorithm) -> bool:
        """Whether its result depends on the policy; if not, all policies of a seed share it."""

    @abstractmethod
    def depends_on(self, algorithm: Algorithm) -> dict[str, Any]:
        """Plain data of the algorithm that its result depends on, besides weights and policy."""

    def finish(self, algorithm: Algorithm) -> None:
        """Whatever follows from the trained networks."""
        return

    def smaller(self) -> Self:
        """The same of a size that takes a second."""
        return attrs.evolve(self, steps=5, batch_size=32)

    def make(
        self,
        algorithm: Algorithm,
        store: Store,
        gather: Gather,
        *,
        seed: int,
        policy: Mapping[str, Any],
        standardized: bool,
        progress: Progress | None = None,
        on_wait: OnWait | None = None,
        on_damage: OnDamage | None = None,
    ) -> Started:
        """Give the algorithm's networks their start: from the cache, else trained now and put there.

        Args:
            algorithm: with fresh networks; its optimizers are left as they are.
            store: the dataset.
            gather: gives the batch of transitions of the store by their indices.
            seed: the experiment's.
            policy: plain data that tells the policy and its ASM from others of the same weights, e.g. its dropout.
            standardized: whether observations are in the dataset's standard units.
            progress: called every `report_every` steps; never when the cache has it.
            on_wait: called when another run is making the same one.
            on_damage: told of a damaged cache entry, which is then made anew; without it that is an error.

        Raises:
            DivergedError: when a loss is no longer finite.
            CheckpointError: when the disk does not take the result.
        """
        parts: dict[str, Any] = {
            "version": FORMAT_VERSION,
            "start": to_plain(attrs.evolve(self, report_every=1)),
            "dataset": store.fingerprint,
            "standardized": standardized,
            "seed": seed,
            "networks": {name: weights_digest(module) for name, module in self.modules(algorithm).items()},
            "algorithm": self.depends_on(algorithm),
        }
        if self.follows_policy(algorithm):
            precision = algorithm.machine.precision
            parts["policy"] = {**policy, "weights": weights_digest(algorithm.policy), "precision": precision}
        identity = fingerprint(parts)

        def build(path: Path) -> None:
            seconds, curve = self._train(algorithm, store, gather, seed, progress)
            networks = {name: module.state_dict() for name, module in self.modules(algorithm).items()}
            state = {"format_version": FORMAT_VERSION, "networks": networks, "seconds": seconds, "curve": curve}
            try:
                with replacing(path) as beside:
                    checkpoint.save(state, beside / STATE)
            except OSError as error:
                raise CheckpointError(f"{path} could not be written: {error.strerror}") from error

        state = get_sound("starts", identity, build, _opened, on_wait=on_wait, on_damage=on_damage)
        for name, module in self.modules(algorithm).items():
            module.load_state_dict(state["networks"][name])
        self.finish(algorithm)
        return Started(state["seconds"], state["curve"])

    def _train(
        self, algorithm: Algorithm, store: Store, gather: Gather, seed: int, progress: Progress | None
    ) -> tuple[float, Curve]:
        torch.manual_seed(child_seed(seed, self.seed_name, "dropout"))
        machine = algorithm.machine
        generator = torch_generator(seed, self.seed_name, device=machine.device)
        began = time.perf_counter()
        losses_of = self.losses(algorithm, store)
        parameters = [
            parameter
            for module in self.modules(algorithm).values()
            for parameter in module.parameters()
            if parameter.requires_grad
        ]
        optimizer = adam(parameters, self._rate(algorithm), capture=machine.capture, scheduled=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._decay)

        def gradient_step() -> dict[str, torch.Tensor]:
            size = (self.batch_size,)
            index = torch.randint(len(store), size, generator=generator, device=generator.device)
            losses = losses_of(gather(index), index)
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            if self.max_gradient_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, self.max_gradient_norm)
            optimizer.step()
            return {name: loss.detach() for name, loss in losses.items()}

        captured = Captured(
            gradient_step,
            on=machine.capture,
            generators=[generator],
            on_refusal=lambda reason: warnings.warn(f"the start's steps are {reason}", stacklevel=2),
        )
        curve: Curve = []
        algorithm.train()
        for step in range(1, self.steps + 1):
            losses = captured()
            scheduler.step()
            if step % self.report_every == 0 or step == self.steps:
                hand_over()
                values = {f"start/{name}": float(loss) for name, loss in losses.items()}
                self._check_finite(values, step)
                curve.append((step, values))
                if progress is not None:
                    progress(step, values)
        return time.perf_counter() - began, curve

    def _rate(self, algorithm: Algorithm) -> float:
        return algorithm.config.learning_rate if self.learning_rate is None else self.learning_rate

    def _decay(self, step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.schedule == "cosine" else 1.0

    def _check_finite(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"{name} is {value} at step {step} of {type(self).__name__}; a smaller "
                    f"{type(self).__name__}.learning_rate may help"
                )


def _opened(path: Path) -> dict[str, Any]:
    try:
        state = checkpoint.load(path / STATE)
    except CheckpointError as error:
        raise DamagedStartError(f"{error}; delete the folder to make it anew") from error
    if state.get("format_version") != FORMAT_VERSION:
        raise DamagedStartError(f"{path} has another format; delete the folder to make it anew")
    return state


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of a network's weights and buffers, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
