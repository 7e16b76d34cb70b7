"""A plain multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

from spinrl.nn.dropout import Dropout


class MLP(nn.Sequential):
    """Linear layers with ReLU, and dropout after each ReLU.

    Args:
        sizes: input size, hidden sizes, output size.
        dropout: share of activations set to zero in training.
        activate_last: apply ReLU (and dropout) after the last layer too, for a trunk that heads follow.
    """

    def __init__(self, sizes: Sequence[int], *, dropout: float = 0.0, activate_last: bool = False) -> None:
        layers: list[nn.Module] = []
        for layer, (d_in, d_out) in enumerate(itertools.pairwise(sizes), start=1):
            layers.append(nn.Linear(d_in, d_out))
            if layer < len(sizes) - 1 or activate_last:
                layers.append(nn.ReLU())
                if dropout > 0:
                    layers.append(Dropout(dropout))
        super().__init__(*layers)
