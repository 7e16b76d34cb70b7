"""What can be known to be wrong before anything runs: missing behaviours, a disk too small."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence

from harness.experiment import Cell, Experiment
from spinrl.asm import ASMError, FrozenASM, asm_folder
from spinrl.behaviors import BehaviorError
from spinrl.data import (
    Rollout,
    Store,
    StoreError,
    cached_tier,
    collected,
    features_bytes,
    features_path,
    home,
    rollouts,
)
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
    """Bytes of what is not in the cache yet: sources, tiers put together from them, and features of these.

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
    return needed + sum(missing_features(experiment, cell) for cell in cells)


def cached_asm(experiment: Experiment, cell: Cell) -> tuple[Store, FrozenASM] | None:
    """The cell's dataset and ASM, if the cache holds both; damaged ones are for the cell to report."""
    key = cell.key
    try:
        store = cached_tier(key.tier, cell.tier, key.task, key.bins, experiment.transitions, experiment.data_seed)
        if store is None:
            return None
        standardized = experiment.standardize_observations
        identity = cell.pretraining.fingerprint(store.fingerprint, key.seed, standardized=standardized)
        return (store, FrozenASM.load(asm_folder(identity))) if asm_folder(identity).exists() else None
    except (StoreError, ASMError):
        return None


def missing_features(experiment: Experiment, cell: Cell) -> int:
    """Bytes of what the policy will compute of the whole dataset and the cache does not hold."""
    needed = features_needed(experiment, cell)
    cached = cached_asm(experiment, cell) if needed else None
    if cached is not None:
        store, asm = cached
        size, spec = store.observation_size, store.action_spec
        real = cell.policy.build(size, spec, asm=asm, seed=cell.key.seed).frozen_input()  # None if trained before
        standardized = experiment.standardize_observations
        if real and features_path(real.identity, store.fingerprint, standardized=standardized).exists():
            return 0
    return needed


def features_needed(experiment: Experiment, cell: Cell) -> int:
    """Bytes of what the policy computes of the whole dataset; 0 for most policies."""
    key = cell.key
    shape = cell.policy.frozen_shape(cell.pretraining.encoder, get_task(key.task).action_spec(key.bins))
    if shape is None:
        return 0
    parts = rollouts(cell.tier, key.task, key.bins, experiment.transitions, experiment.data_seed)
    return features_bytes(sum(count for _, count in parts), shape)


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
