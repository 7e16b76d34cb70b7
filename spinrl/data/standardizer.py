"""Observations in standard units: with few gradient steps, raw ones are not learned from."""

from __future__ import annotations

import attrs
import torch

from spinrl.data.store.store import Store

LIMIT = 10.0  # standard deviations; what lies further out is cut off
SMALLEST = 1e-6  # standard deviation, as a share of the largest value, below which an entry counts as constant
RULE = 2  # counts the ways in which scales were chosen, for what is cached


@attrs.frozen(eq=False)
class Standardizer:
    """Shift and scale of every entry of an observation.

    Attributes:
        mean: (S,).
        scale: (S,), one over the standard deviation; 0 for what is constant, of which nothing can be learned.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, store: Store) -> Standardizer:
        """From all observations of a dataset, in whatever units they are."""
        observation = store.data["observations", "observation"]  # (R, S)
        std, largest = observation.std(0), torch.maximum(observation.amax(0), -observation.amin(0))
        return cls(observation.mean(0), torch.where(std > SMALLEST * largest, 1.0 / std, 0.0))

    def __call__(self, observation: torch.Tensor) -> torch.Tensor:
        """(..., S) to (..., S)."""
        return ((observation - self.mean) * self.scale).clamp(-LIMIT, LIMIT)

    def to(self, device: torch.device | str) -> Standardizer:
        """The same on a device."""
        return Standardizer(self.mean.to(device), self.scale.to(device))
