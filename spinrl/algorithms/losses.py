"""The equations of the algorithms, as pure functions of tensors. B batch, E critics of an ensemble."""

from __future__ import annotations

import torch


def expectile_loss(difference: torch.Tensor, expectile: float) -> torch.Tensor:
    """Mean of |expectile − 1(u < 0)|·u² over u = `difference` (B,), target minus prediction. IQL, equation 5."""
    weight = torch.where(difference < 0, 1 - expectile, expectile)
    return (weight * difference.square()).mean()


def td_target(reward: torch.Tensor, terminated: torch.Tensor, next_value: torch.Tensor, gamma: float) -> torch.Tensor:
    """r + γ(1 − terminated)·V(s'), all (B,): only termination stops bootstrapping, a time limit does not."""
    return reward + gamma * torch.where(terminated, 0.0, next_value)


def ensemble_mse(values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over ensemble and batch of (Q − target)²: (E, B), (B,) → ()."""
    return (values - target).square().mean()


def advantage_weight(advantage: torch.Tensor, inverse_temperature: float, clip: float) -> torch.Tensor:
    """min(exp(inverse_temperature · advantage), clip), (B,)."""
    return (inverse_temperature * advantage).exp().clamp_max(clip)


def effective_share(weight: torch.Tensor) -> torch.Tensor:
    """Kish's effective sample size (Σw)² / Σw² as a share of the batch: (B,) → (), from 1/B to 1, of all weights equal.

    Where it is small, a few transitions decide the policy's step: the weights are too sharp for what the critics know.
    0 where all weights are.
    """
    smallest = torch.finfo(weight.dtype).tiny
    relative = weight / weight.amax().clamp_min(smallest)  # squares of small weights would vanish
    return relative.mean().square() / relative.square().mean().clamp_min(smallest)


def weighted_log_likelihood(log_prob: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """−mean(w · log π(a|s)): (B,), (B,) → ()."""
    return -(weight * log_prob).mean()
