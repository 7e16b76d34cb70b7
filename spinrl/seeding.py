"""Named child seeds: every use of randomness has a seed of its own, derived from one experiment seed.

Deriving by name rather than by drawing in order means that adding a new use of randomness, or running
cells in another order or process, changes no other stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def child_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and every name, e.g. ``child_seed(0, "evaluation", 3)``."""
    text = "/".join([str(int(seed)), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator on the named child seed."""
    return np.random.default_rng(child_seed(seed, *names))


def torch_generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on the named child seed, living on `device`."""
    return torch.Generator(device=device).manual_seed(child_seed(seed, *names))


def random_state() -> dict[str, torch.Tensor | None]:
    """State of torch's own generators, from which dropout and sampled actions draw, as entries of a checkpoint."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    return {"torch_rng": torch.get_rng_state(), "cuda_rng": cuda}


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Go on from the `random_state` that a checkpoint holds, on a machine with a GPU or without."""
    torch.set_rng_state(state["torch_rng"])
    if state.get("cuda_rng") is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda_rng"])
