"""Where the cells of a grid run: on this machine, on a Ray cluster, or as Slurm jobs. Each is swapped by a binding.

These classes are configuration alone; `harness.launching.dispatch` does what they say.
"""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

import attrs
from attrs.validators import ge

from spinrl.config import Component, register


@attrs.frozen(kw_only=True)
class Launcher(Component, ABC):
    """Base of kind "launcher".

    Attributes:
        jobs: cells at a time, at most; 0 for as many as there is room for.
    """

    kind: ClassVar[str] = "launcher"
    jobs: int = attrs.field(default=0, validator=ge(0))


@register
@attrs.frozen(kw_only=True)
class Local(Launcher):
    """Cells side by side on this machine: on its CPU in a process each, on a GPU in one process that has the data once.

    Attributes:
        jobs: cells at a time; 0 for as many as cores and memory carry, on GPUs as many as their memory carries too.
        together: cells at a time in each process; 0 for one on a CPU, and on GPUs for all of a GPU's. They take turns,
            and their numbers are those of a process each.
    """

    together: int = attrs.field(default=0, validator=ge(0))


@attrs.frozen(kw_only=True)
class RemoteLauncher(Launcher):
    """Base of launchers whose cells run on other machines, with the cache on a file system that all of them share.

    Attributes:
        jobs: cells at a time, at most; 0 for as many as there is room for.
        cpus: cores per cell.
        gpus: GPUs per cell; a fraction where several cells share one.
        memory_gb: memory per cell in GiB; 0 for an estimate made on this machine.
    """

    cpus: int = attrs.field(default=1, validator=ge(1))
    gpus: float = attrs.field(default=0.0, validator=ge(0))
    memory_gb: float = attrs.field(default=0.0, validator=ge(0))


@register
@attrs.frozen(kw_only=True)
class Ray(RemoteLauncher):
    """Cells as tasks of a Ray cluster; a cell of a lost node goes on from its checkpoint on another one.

    Attributes:
        jobs: cells at a time, at most; 0 for as many as the cluster has room for.
        cpus: cores per cell.
        gpus: GPUs per cell; 0.25 puts four cells on one.
        memory_gb: memory per cell in GiB; 0 for an estimate made on this machine.
        address: address of the cluster, as for ray.init; empty uses the cluster on this machine, or starts one.
        retries: most restarts of a cell whose node or process was lost.
    """

    address: str = ""
    retries: int = attrs.field(default=3, validator=ge(0))


@register
@attrs.frozen(kw_only=True)
class Slurm(RemoteLauncher):
    """Cells as the jobs of one Slurm array, through submitit; one that was preempted or timed out goes on by itself.

    Attributes:
        jobs: cells at a time, at most; 0 for no limit but Slurm's own.
        cpus: cores per cell.
        gpus: GPUs per cell, a whole number.
        memory_gb: memory per cell in GiB; 0 for an estimate made on this machine.
        minutes: time limit of a job; a cell that takes longer goes on in another job. At least 5, since Slurm warns a
            job up to two and a half minutes before its end.
        partition: partition of the cluster; empty for the default one.
        account: account that is charged; empty for the user's default.
        cluster: slurm, or local for jobs as plain processes on this machine.
        parameters: further sbatch parameters, by name.
    """

    minutes: int = attrs.field(default=24 * 60, validator=ge(5))
    partition: str = ""
    account: str = ""
    cluster: str = attrs.field(default="slurm", validator=attrs.validators.in_(("slurm", "local")))
    parameters: dict[str, str] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if self.gpus != int(self.gpus):
            raise ValueError(f"Slurm.gpus has to be a whole number, got {self.gpus:g}")
