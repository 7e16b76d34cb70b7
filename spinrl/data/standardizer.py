"""Mean and scale of a dataset's observations; in few gradient steps, networks learn little from raw ones."""

from __future__ import annotations

import torch
from torch import nn

from spinrl.data.store.store import Store
from spinrl.nn.standardizer import standardizers

SMALLEST = 1e-6  # standard deviation, as a share of the largest value, below which an entry counts as constant
FAR = 1e4  # mean, in standard deviations, beyond which statistics need double precision
RULE = 2  # version of the rule for scales, part of cache fingerprints


def standard_units(store: Store) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and scale (S,) of all observations of a dataset, as `Standardizer.set` takes them."""
    observation = store.data["observations", "observation"]  # (R, S)
    mean, std = observation.mean(0), observation.std(0)
    # Sums of very large values leave float32's range, and the mean of values far from zero is rounded by more than some
    # thousandths of their deviation. (All others are left as they are: the digits of earlier returns depend on them.)
    wide = ~(mean.isfinite() & std.isfinite()) | (mean.abs() > FAR * std)
    if wide.any():
        exact = observation[:, wide].double()
        mean[wide], std[wide] = exact.mean(0).float(), exact.std(0).float()
    largest = torch.maximum(observation.amax(0), -observation.amin(0))
    return mean, torch.where(std > SMALLEST * largest, 1.0 / std, 0.0)


def standardize(network: nn.Module, store: Store) -> None:
    """Set the dataset's mean and scale in every `Standardizer` of a network.

    Raises:
        ValueError: when the network has no `Standardizer`.
    """
    found = standardizers(network)
    if not found:
        raise ValueError(f"{type(network).__name__} has no Standardizer; apply one to observations in its forward pass")
    mean, scale = standard_units(store)
    device = next((parameter.device for parameter in network.parameters()), mean.device)
    for each in found:
        each.set(mean.to(device), scale.to(device))
