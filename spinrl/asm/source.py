"""Where the ASM of a dataset comes from: the base of its sources, and the cache that keeps what they made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Self

import attrs

from spinrl.asm.frozen import Curve, FrozenASM
from spinrl.asm.model import ASMEncoder
from spinrl.cache import OnDamage, OnWait, get_sound
from spinrl.config.registry import Component
from spinrl.data import Store, home, standardize
from spinrl.machine import ResolvedMachine
from spinrl.specs import ActionSpec

# Called with the steps done and, by name, the loss and the share of masked entries predicted right.
PretrainingProgress = Callable[[int, dict[str, float]], None]


@attrs.frozen(kw_only=True)
class ASMRequest:
    """For what an ASM is to be made, and who is told of it.

    Attributes:
        store: the dataset.
        seed: of weights, batches, masks and dropout.
        machine: device and precision.
        standardized: whether the ASM sees observations in the store's standard units.
        fingerprint: that it will have.
        folder: that it will be saved as; what is needed to go on after a kill may lie beside it.
        progress: told every `report_every` steps.
        on_resume: told what an interrupted pre-training reported.
        on_damage: told of what is damaged or cannot be written, which otherwise is an error.
    """

    store: Store
    seed: int
    machine: ResolvedMachine
    standardized: bool
    fingerprint: str
    folder: Path
    progress: PretrainingProgress | None = None
    on_resume: Callable[[Curve], None] | None = None
    on_damage: OnDamage | None = None


class ASMSource(Component, ABC):
    """Base of kind "pretraining": where the ASM of a dataset comes from.

    Attributes:
        encoder: sizes of the ASM.
    """

    kind: ClassVar[str] = "pretraining"

    encoder: ASMEncoder

    @abstractmethod
    def total_steps(self, transitions: int) -> int:
        """Gradient steps on a dataset of so many transitions."""

    def passes(self, transitions: int) -> float | None:
        """Epochs that `total_steps` come to on a dataset of so many transitions; None where nobody knows."""
        return None

    @abstractmethod
    def fingerprint(self, dataset: str, seed: int, *, standardized: bool = False, precision: str = "fp32") -> str:
        """Of everything that the weights depend on, but for the rounding that differs between machines.

        Args:
            dataset: the store's fingerprint.
            seed: of the pre-training.
            standardized: whether observations are in the dataset's standard units.
            precision: of the matrix products, fp32 or bf16.
        """

    @abstractmethod
    def check(self, observation_size: int, action_spec: ActionSpec, *, standardized: bool) -> None:
        """Find out what can be known to be wrong before anything runs.

        Raises:
            ValueError, CheckpointError: in one line.
        """

    @abstractmethod
    def make(self, request: ASMRequest) -> FrozenASM:
        """The ASM, which the cache did not have. Errors are those of `pretrained_asm`."""

    def with_snapshots(self, shares: Sequence[float]) -> Self:
        """The same, keeping the weights at these shares of it; itself where it has no way to."""
        return self

    @abstractmethod
    def smaller(self) -> Self:
        """The same of a size that takes a second."""


def asm_folder(fingerprint: str) -> Path:
    """Where the ASM of a fingerprint is cached."""
    return home() / "asms" / fingerprint


def pretrained_asm(
    config: ASMSource,
    store: Store,
    *,
    seed: int,
    machine: ResolvedMachine,
    standardized: bool = False,
    progress: PretrainingProgress | None = None,
    on_resume: Callable[[Curve], None] | None = None,
    on_wait: OnWait | None = None,
    on_damage: OnDamage | None = None,
) -> FrozenASM:
    """The ASM of a configuration, dataset and seed: from the cache, else made and put there.

    Args:
        config: how.
        store: on what.
        seed: of weights, batches, masks and dropout.
        machine: device and precision.
        standardized: whether the ASM sees observations in the store's standard units.
        progress: told every `report_every` steps; never called when the cache has it.
        on_resume: told what an interrupted pre-training reported, since a kill may have kept the latest of it from
            being logged.
        on_wait: called when another run is making the same one.
        on_damage: told of a damaged ASM or checkpoint, in whose place pre-training begins anew, and of a checkpoint
            that the disk does not take; without it the error is raised.

    Raises:
        ASMError: when the cached one is damaged, or the loss is no longer finite.
        CheckpointError: when a checkpoint of the pre-training is damaged, or cannot be written.
    """
    identity = config.fingerprint(store.fingerprint, seed, standardized=standardized, precision=machine.precision)

    def build(folder: Path) -> None:
        request = ASMRequest(
            store=store,
            seed=seed,
            machine=machine,
            standardized=standardized,
            fingerprint=identity,
            folder=folder,
            progress=progress,
            on_resume=on_resume,
            on_damage=on_damage,
        )
        config.make(request).save(folder)
        checkpoint_path(folder).unlink(missing_ok=True)

    def opened(folder: Path) -> FrozenASM:
        asm = FrozenASM.load(folder, fingerprint=identity)
        if standardized:  # one that an earlier version wrote does not hold its units
            standardize(asm.model, store)
        return asm

    asm = get_sound("asms", identity, build, opened, on_wait=on_wait, on_damage=on_damage)
    asm.model.to(machine.device)
    return asm


def checkpoint_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.pretraining.pt")
