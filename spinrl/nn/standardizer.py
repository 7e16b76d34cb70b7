"""Observations in standard units, as the first layer of every network that reads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

LIMIT = 10.0  # standard deviations; values further out are cut off


class Standardizer(nn.Module):
    """Shift and scale of each entry of an observation; the identity until `set` is called.

    Mean and scale are buffers, so a state dict holds them: a network that was trained on standardised observations
    reads raw ones wherever it is loaded. The identity adds nothing to a state dict.

    Args:
        observation_size: S.
    """

    mean: torch.Tensor | None
    scale: torch.Tensor | None

    def __init__(self, observation_size: int) -> None:
        super().__init__()
        self.observation_size = observation_size
        self.register_buffer("mean", None)
        self.register_buffer("scale", None)

    def set(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        """Standardise from now on.

        Args:
            mean: (S,).
            scale: (S,), one over the standard deviation; 0 for a constant entry, which carries no information.
        """
        self.mean, self.scale = mean.clone(), scale.clone()

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """(..., S) to (..., S)."""
        if self.mean is None or self.scale is None:
            return observation
        return ((observation - self.mean) * self.scale).clamp(-LIMIT, LIMIT)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self.mean is None and f"{prefix}mean" in state_dict:
            self.set(torch.zeros(self.observation_size), torch.ones(self.observation_size))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def standardizers(network: nn.Module) -> list[Standardizer]:
    """Those of a network and of all networks within it."""
    return [each for each in network.modules() if isinstance(each, Standardizer)]
