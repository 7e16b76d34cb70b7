"""How weights get their first values: from a seed of their own, and as ``nn.Linear`` would draw them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spinrl.seeding import child_seed


@contextmanager
def seeded_initialization(seed: int, *names: str | int) -> Iterator[None]:
    """Within the block, new modules draw from the named child seed; the global stream is left where it was."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would seed GPUs too, which nothing puts back.
        torch.default_generator.manual_seed(child_seed(seed, "initialization", *names))
        yield


def uniform_fan_in(*shape: int, fan_in: int) -> torch.Tensor:
    """A tensor of `shape`, uniform in ±1/√fan_in: what ``nn.Linear`` gives both its weight and its bias."""
    bound = 1 / math.sqrt(fan_in)
    return torch.empty(*shape).uniform_(-bound, bound)
