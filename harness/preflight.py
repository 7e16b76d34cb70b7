"""What can be known to be wrong before anything runs: missing behaviours, a disk too small."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence

from harness.experiment import Cell, Experiment
from spinrl.behaviors import BehaviorError
from spinrl.data import Rollout, collected, home, rollouts
from spinrl.tasks import get_task


class PreflightError(Exception):
    """A run that cannot succeed; the message names the culprit."""


def check(experiment: Experiment, cells: Sequence[Cell]) -> None:
    """Check that every dataset can be made and that the disk takes it.

    Raises:
        PreflightError: in one line.
    """
    needed = disk_needed(experiment, cells)
    root = home()
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise PreflightError(
            f"the datasets need {needed / 2**30:.1f} GiB in {root}, which has {free / 2**30:.1f} GiB free; "
            "set SPINRL_HOME to a larger disk, or lower Tier.transitions"
        )


def disk_needed(experiment: Experiment, cells: Sequence[Cell]) -> int:
    """Bytes of the datasets that are not in the cache yet: sources, and tiers put together from them.

    Raises:
        PreflightError: when a behaviour is not shipped, or a dataset is too small for its shares.
    """
    needed = 0
    have: dict[Rollout, int] = {}
    for cell in {(cell.key.task, cell.key.bins, cell.key.tier): cell for cell in cells}.values():
        key = cell.key
        try:
            parts = rollouts(cell.tier, key.task, key.bins, experiment.transitions, experiment.data_seed)
        except (BehaviorError, ValueError) as error:
            raise PreflightError(f"tier {key.tier}: {error}") from error
        task = get_task(key.task)
        per_transition = 4 * task.observation_size + task.num_sub_actions * (1 if key.bins <= 256 else 2) + 14
        needed += per_transition * (take_missing(parts, have) + sum(count for _, count in parts))
    return needed


def take_missing(parts: Iterable[tuple[Rollout, int]], have: dict[Rollout, int]) -> int:
    """How many transitions of `parts` have to be collected, given what the cache and earlier parts provide.

    Args:
        parts: what a dataset takes of each sequence of episodes.
        have: transitions there will be of each sequence so far; brought up to date with `parts`.
    """
    missing = 0
    for rollout, count in parts:
        held = have.setdefault(rollout, collected(rollout))
        missing += max(0, count - held)
        have[rollout] = max(count, held)
    return missing
