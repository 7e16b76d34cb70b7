"""Observations in standard units: with few gradient steps, raw ones are not learned from."""

from __future__ import annotations

import attrs
import torch

from spinrl.data.store import Store

LIMIT = 10.0  # standard deviations; what lies further out is cut off
SMALLEST = 1e-2  # standard deviation below which an entry counts as constant


@attrs.frozen(eq=False)
class Standardizer:
    """Shift and scale of every entry of an observation.

    Attributes:
        mean: (S,).
        scale: (S,), one over the standard deviation.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, store: Store) -> Standardizer:
        """From all observations of a dataset."""
        observation = store.data["observations", "observation"]  # (R, S)
        return cls(observation.mean(0), 1.0 / observation.std(0).clamp_min(SMALLEST))

    def __call__(self, observation: torch.Tensor) -> torch.Tensor:
        """(..., S) to (..., S)."""
        return ((observation - self.mean) * self.scale).clamp(-LIMIT, LIMIT)

    def to(self, device: torch.device | str) -> Standardizer:
        """The same on a device."""
        return Standardizer(self.mean.to(device), self.scale.to(device))
