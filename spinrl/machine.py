"""The part of the machine that a run uses: device, precision, compilation, capture and threads."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sysconfig
from pathlib import Path
from typing import ClassVar, Literal

import attrs
import torch
from attrs.validators import ge, in_, optional

from spinrl.config.registry import Component, register

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


@register
@attrs.frozen(kw_only=True)
class Machine(Component):
    """Device, precision, compilation, capture and threads; `auto` takes what the machine reports.

    Attributes:
        device: device of the networks: auto (a GPU if there is one), cpu or cuda.
        precision: precision of the matrix products in policies and ASM: auto, fp32 or bf16. Losses, critics and last
            layers are always fp32.
        compile: whether to compile the update with torch.compile: True, False, or None for auto.
        capture: whether a GPU records gradient steps once and replays them (CUDA graphs): True, False, or None for
            auto, which does on a GPU.
        threads: CPU threads of this process; 0 for auto, torch's own choice.
    """

    kind: ClassVar[str] = "machine"

    device: Literal["auto", "cpu", "cuda"] = attrs.field(default="auto", validator=in_(("auto", "cpu", "cuda")))
    precision: Literal["auto", "fp32", "bf16"] = attrs.field(default="auto", validator=in_(("auto", "fp32", "bf16")))
    compile: bool | None = attrs.field(default=None, validator=optional(attrs.validators.instance_of(bool)))
    capture: bool | None = attrs.field(default=None, validator=optional(attrs.validators.instance_of(bool)))
    threads: int = attrs.field(default=0, validator=ge(0))

    def resolve(self) -> ResolvedMachine:
        """Resolve `auto` values on this machine.

        Raises:
            ValueError: when CUDA or capture without a GPU, bf16 on a GPU without it, or compilation without a compiler
                is asked for.
        """
        device = choose_device(self.device, "Machine.device")
        precision = self.precision
        if precision == "auto":
            precision = "bf16" if fast_bf16(device) else "fp32"
        can_compile = compiler_available(device)
        if self.compile and not can_compile:
            raise ValueError("Machine.compile is True, but there is no C++ compiler with Python headers (or Triton)")
        if self.capture and device != "cuda":
            raise ValueError("Machine.capture is True, but the device is cpu, and only a GPU captures; set it to None")
        capture = device == "cuda" if self.capture is None else self.capture
        gains = fast_bf16(device) and not capture  # a captured step launches nothing, and compiling takes a minute
        return ResolvedMachine(
            device=device,
            precision=precision,
            compile=can_compile and gains if self.compile is None else self.compile,
            capture=capture,
            threads=self.threads or torch.get_num_threads(),
            processor=torch.cuda.get_device_name() if device == "cuda" else _processor_name(),
        )


@attrs.frozen(kw_only=True)
class ResolvedMachine:
    """The resolved machine of a run.

    Attributes:
        device: cpu or cuda.
        precision: fp32 or bf16.
        compile: whether the update is compiled.
        capture: whether gradient steps are captured and replayed; the numbers are the same.
        threads: CPU threads.
        processor: name of the CPU or GPU.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    capture: bool = False
    threads: int = 1
    processor: str = ""

    def autocast(self) -> contextlib.AbstractContextManager:
        """A context in which matrix products run in the resolved precision."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")

    def share(self, jobs: int) -> ResolvedMachine:
        """The machine of one of `jobs` processes side by side: its share of the threads, at least one."""
        return attrs.evolve(self, threads=max(1, self.threads // jobs))

    def apply(self) -> None:
        """Set up this process: its thread count, and that freed memory stays with it."""
        torch.set_num_threads(self.threads)
        _keep_freed_memory()


def choose_device(asked: Literal["auto", "cpu", "cuda"], field: str) -> Literal["cpu", "cuda"]:
    """The device that is asked for; for `auto` a GPU if there is one.

    Args:
        asked: value of the field.
        field: name of the field, for the error.

    Raises:
        ValueError: when CUDA is asked for and torch finds none.
    """
    has_cuda = torch.cuda.is_available()
    if asked == "cuda" and not has_cuda:
        raise ValueError(f"{field} is cuda, but torch finds no CUDA device; set it to auto or cpu")
    return "cuda" if has_cuda and asked != "cpu" else "cpu"


def available_cores() -> int:
    """Cores that this process may run on; all of the machine where the system knows no other (macOS, Windows)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fast_bf16(device: str) -> bool:
    """Whether bf16 matrix products are done by hardware, so that they are faster than fp32 and not slower."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def compiler_available(device: str) -> bool:
    """Whether torch.compile can generate code for `device` here."""
    if device == "cuda":
        from torch.utils._triton import has_triton

        return has_triton()
    compilers = (os.environ.get("CXX"), "g++", "clang++")
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return any(shutil.which(name) for name in compilers if name) and headers.exists()


def _keep_freed_memory() -> None:
    """Have glibc keep large freed blocks: a training step frees and asks for the same ones again.

    By default each goes back to the system and comes back page by page, up to a fifth of a step's time. Where the C
    library has no such settings, nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _processor_name() -> str:
    return str(torch.cpu.get_capabilities().get("cpu_name", ""))
