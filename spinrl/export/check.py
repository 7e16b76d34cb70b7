"""Whether an exported policy is the policy that was trained: compared input by input, before it is handed over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import torch

from spinrl.data import Standardizer
from spinrl.export.formats import ExportError
from spinrl.policies import Policy, gumbel_noise

TOLERANCE = 1e-5  # of logits: absolute up to 1, relative beyond
LARGE_BATCH = 4096


@attrs.frozen
class Comparison:
    """One format against the trained policy on one kind of input.

    Attributes:
        inputs: what they were.
        rows: how many.
        difference: the largest of the logits, relative where they are larger than 1.
        actions: sub-actions that differ, greedy and sampled, of all `decided`.
        decided: sub-actions compared.
    """

    inputs: str
    rows: int
    difference: float
    actions: int
    decided: int

    @property
    def agrees(self) -> bool:
        """Whether the export may be handed over."""
        return self.actions == 0 and self.difference <= TOLERANCE


def kinds_of_inputs(observations: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Observations to compare on: those of the dataset (R, S), and the edges."""
    yield "dataset", observations
    yield "one row", observations[:1]
    copies = -(-LARGE_BATCH // len(observations))
    yield "large batch", observations.repeat(copies, 1)[:LARGE_BATCH]
    extremes = [torch.zeros_like(observations[:1]), 100 * observations[:32], -1e4 * observations[:32].sign()]
    yield "extreme values", torch.cat(extremes)


@torch.no_grad()
def compare(
    runner: Any, policy: Policy, standardizer: Standardizer | None, observations: torch.Tensor
) -> list[Comparison]:
    """Compare a runner (see `runners`) with the trained policy: greedy, sampled, and with choices forbidden.

    Args:
        runner: with `act`.
        policy: the policy as it was evaluated.
        standardizer: of its observations.
        observations: (R, S) of the dataset, raw.
    """
    policy.eval()
    return [_compare(runner, policy, standardizer, *each) for each in kinds_of_inputs(observations)]


def _compare(
    runner: Any, policy: Policy, standardizer: Standardizer | None, name: str, observation: torch.Tensor
) -> Comparison:
    spec, rows = policy.action_spec, len(observation)
    shape = (rows, spec.num_sub_actions, spec.max_choices)
    generator = torch.Generator().manual_seed(0)
    noise = gumbel_noise(shape, generator=generator)
    allowed = (torch.rand(shape, generator=generator) < 0.7) & spec.valid()
    allowed[..., 0] = True
    seen = standardizer(observation) if standardizer else observation
    difference, differing, decided = 0.0, 0, 0
    for given, mask in ((None, None), (noise, None), (None, allowed), (noise, allowed)):
        action, logits = policy.decide(seen, given, mask)
        numpy = [None if part is None else part.numpy() for part in (given, mask)]
        theirs = [torch.as_tensor(np.asarray(part)) for part in runner.act(observation.numpy(), *numpy)]
        differing += int((theirs[0] != action).sum())
        decided += action.numel()
        finite = logits.isfinite()
        if not torch.equal(finite, theirs[2].isfinite()):
            difference = float("inf")
        scaled = (theirs[2] - logits)[finite].abs() / logits[finite].abs().clamp_min(1)
        difference = max(difference, float(scaled.max()))
    return Comparison(name, rows, difference, differing, decided)


def require_agreement(name: str, comparisons: list[Comparison]) -> None:
    """Refuse a format that differs.

    Raises:
        ExportError: with the first difference.
    """
    for each in comparisons:
        if not each.agrees:
            raise ExportError(
                f"format {name} differs from the trained policy on {each.inputs}: {each.actions} of {each.decided} "
                f"sub-actions, logits by {each.difference:.2g} (allowed {TOLERANCE:g}); nothing was written"
            )
