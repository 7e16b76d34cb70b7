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
    """Cells side by side in processes of this machine.

    Attributes:
        jobs: cells at a time; 0 for as many as cores and memory carry on CPU, and one a GPU on GPUs.
    """


@attrs.frozen(kw_only=True)
class RemoteLauncher(Launcher):
    """Base of launchers whose cells run on other machines, with the cache on a file system that all of them share.

    Attributes:
        jobs: cells at a time, at most; 0 for as many as there is room for.
        cpus: cores of a cell.
        gpus: of a cell; a part of one where several cells share it.
        memory_gb: of a cell; 0 for what this machine estimates.
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
        cpus: cores of a cell.
        gpus: of a cell; 0.25 puts four on one.
        memory_gb: of a cell; 0 for what this machine estimates.
        address: of the cluster, as for ray.init; empty for one that runs here, or is started.
        retries: how often a cell is begun again after its node or process was lost.
    """

    address: str = ""
    retries: int = attrs.field(default=3, validator=ge(0))


@register
@attrs.frozen(kw_only=True)
class Slurm(RemoteLauncher):
    """Cells as the jobs of one Slurm array, through submitit; one that was preempted or timed out goes on by itself.

    Attributes:
        jobs: cells at a time, at most; 0 for no limit but Slurm's own.
        cpus: cores of a cell.
        gpus: of a cell, whole ones.
        memory_gb: of a cell; 0 for what this machine estimates.
        minutes: of a job, at most; a cell that takes longer goes on in another. At least 5, since Slurm tells a job of
            its end up to two and a half minutes before.
        partition: of the cluster; empty for its default.
        account: that is charged; empty for the user's default.
        cluster: slurm; or local, for jobs as plain processes of this machine.
        parameters: further ones of sbatch, by name.
    """

    minutes: int = attrs.field(default=24 * 60, validator=ge(5))
    partition: str = ""
    account: str = ""
    cluster: str = attrs.field(default="slurm", validator=attrs.validators.in_(("slurm", "local")))
    parameters: dict[str, str] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if self.gpus != int(self.gpus):
            raise ValueError(f"gpus wants a whole number for Slurm, got {self.gpus}")
