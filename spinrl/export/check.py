"""Compares an exported policy with the trained policy, input by input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import torch

from spinrl.errors import UserError
from spinrl.policies import Policy, gumbel_noise

TOLERANCE = 1e-5  # largest difference of logits, relative to the largest logit of the row if that is over 1
LARGE_BATCH = 4096


@attrs.frozen
class Comparison:
    """Comparison of one format with the trained policy on one kind of input.

    Attributes:
        inputs: kind of the inputs.
        rows: number of inputs.
        difference: largest difference of logits, relative to the largest logit of the row if that is over 1; infinite
            if other choices exist, or a control value does not belong to its choice.
        actions: number of greedy and sampled sub-actions that differ; sampled near-ties do not count.
        decided: number of sub-actions compared.
    """

    inputs: str
    rows: int
    difference: float
    actions: int
    decided: int

    @property
    def agrees(self) -> bool:
        """Whether the export is equal within the tolerance."""
        return self.actions == 0 and self.difference <= TOLERANCE


def kinds_of_inputs(observations: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Kinds of observations to compare on: those of the dataset (R, S), and extreme ones."""
    yield "dataset", observations
    yield "one row", observations[:1]
    copies = -(-LARGE_BATCH // len(observations))
    yield "large batch", observations.repeat(copies, 1)[:LARGE_BATCH]
    extremes = [torch.zeros_like(observations[:1]), 10 * observations[:32], -100 * observations[:32].sign()]
    yield "extreme values", torch.cat(extremes)


@torch.no_grad()
def compare(runner: Any, policy: Policy, controls: torch.Tensor, observations: torch.Tensor) -> list[Comparison]:
    """Compare a runner with the trained policy: greedy, sampled, and with forbidden choices.

    Args:
        runner: runner object with the method `act`.
        policy: trained policy.
        controls: (N, K) control value of every choice.
        observations: (R, S) observations of the dataset.
    """
    policy.eval()
    return [_compare(runner, policy, controls, *each) for each in kinds_of_inputs(observations)]


def _compare(runner: Any, policy: Policy, controls: torch.Tensor, name: str, observation: torch.Tensor) -> Comparison:
    spec, rows = policy.action_spec, len(observation)
    shape = (rows, spec.num_sub_actions, spec.max_choices)
    generator = torch.Generator().manual_seed(0)
    noise = gumbel_noise(shape, generator=generator)
    allowed = (torch.rand(shape, generator=generator) < 0.7) & spec.valid()
    allowed[..., 0] = True
    slots = torch.arange(spec.num_sub_actions)
    difference, differing, decided = 0.0, 0, 0
    for given, mask in ((None, None), (noise, None), (None, allowed), (noise, allowed)):
        action, logits = policy.decide(observation, given, mask)
        inputs = (None if part is None else part.numpy() for part in (given, mask))
        theirs, control, their_logits = (
            torch.as_tensor(np.asarray(part)) for part in runner.act(observation.numpy(), *inputs)
        )
        same = ~_near_ties(action, theirs, logits, given)
        action, logits, theirs, control, their_logits = (
            part[same] for part in (action, logits, theirs, control, their_logits)
        )
        differing += int((theirs != action).sum())
        decided += action.numel()
        finite = logits.isfinite()
        expected = controls.float()[slots, theirs.clamp_min(0)]
        if not torch.equal(finite, their_logits.isfinite()) or not torch.equal(control, expected):
            difference = float("inf")
        apart = (their_logits - logits).masked_fill(~finite, 0.0).abs().amax((-1, -2))  # (rows,)
        difference = max(difference, float((apart / _scale(logits)).max()))
    return Comparison(name, rows, difference, differing, decided)


def _scale(logits: torch.Tensor) -> torch.Tensor:
    """The largest logit of each row, at least 1, to which rounding errors are proportional. (B, N, K) → (B,)."""
    return logits.masked_fill(~logits.isfinite(), 0.0).abs().amax((-1, -2)).clamp_min(1.0)


def _near_ties(
    action: torch.Tensor, theirs: torch.Tensor, logits: torch.Tensor, noise: torch.Tensor | None
) -> torch.Tensor:
    """(B,) rows sampled differently because the two best choices were closer than the tolerance.

    Greedy choices have to be the same whatever the margin.
    """
    if noise is None:
        return torch.zeros(len(action), dtype=torch.bool)
    differs = theirs != action
    first = differs.long().argmax(-1, keepdim=True)  # later sub-actions may depend on it
    scores = (logits + noise).gather(1, first[..., None].expand(-1, -1, logits.shape[-1])).squeeze(1)  # (B, K)
    chosen, other = (scores.gather(-1, part.clamp_min(0).gather(-1, first)).squeeze(-1) for part in (action, theirs))
    return differs.any(-1) & (chosen - other <= 2 * TOLERANCE * _scale(logits))


def require_agreement(name: str, comparisons: list[Comparison]) -> None:
    """Refuse a format that differs.

    Raises:
        UserError: with the first difference.
    """
    for each in comparisons:
        if not each.agrees:
            raise UserError(
                f"format {name} differs from the trained policy on {each.inputs}: {each.actions} of {each.decided} "
                f"sub-actions, logits by {each.difference:.2g} (allowed {TOLERANCE:g}); nothing was written"
            )
