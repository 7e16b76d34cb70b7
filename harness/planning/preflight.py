"""What can be known to be wrong before anything runs: missing behaviours, a disk too small."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence

from harness.cells.environments import build_environment, require_task
from harness.experiment import Cell, Experiment
from spinrl.asm import FrozenASM, asm_folder
from spinrl.cache import CacheError, require_writable
from spinrl.data import DatasetPlan, Rollout, Store, cached_transitions, features_bytes, features_path, home
from spinrl.errors import UserError
from spinrl.tasks import TASKS


def check(experiment: Experiment, cells: Sequence[Cell]) -> None:
    """Check that every dataset and ASM can be made, that the disk takes it, and that simulators are of its tasks.

    Raises:
        UserError: in one line.
    """
    check_cache()
    for cell in one_of_each_dataset(cells):
        plan_of(experiment, cell).check()
    wanting = [cell for cell in cells if cell.policy.needs_asm]
    for cell in {(_dataset(cell), cell.pretraining): cell for cell in wanting}.values():
        plan, standardized = plan_of(experiment, cell), experiment.standardize_observations
        try:
            cell.pretraining.check(plan.observation_size, plan.action_spec, standardized=standardized)
        except ValueError as error:
            raise UserError(str(error)) from error
    needed = disk_needed(experiment, cells)
    root = home()
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"the datasets need {needed / 2**30:.1f} GiB in {root}, which has {free / 2**30:.1f} GiB free; "
            "set SPINRL_HOME to a larger disk, or lower Tier.transitions"
        )
    for cell in one_of_each_dataset(cells):
        task, plan = cell.key.task, plan_of(experiment, cell)
        if task in experiment.simulators:
            build_environment(experiment, cell, plan, episodes=1).close()
        elif task in TASKS:
            require_task(task, plan)


def check_cache() -> None:
    """Check that the cache takes what every training writes.

    Raises:
        UserError: naming the folder, and the way to train all the same on data that others keep there.
    """
    root = home()
    try:
        for folder in (root, root / "cells", root / "studies"):
            if folder == root or folder.exists():
                require_writable(folder)
    except CacheError as error:
        shared = f"; data imported there can stay: --set \"Imported.store='{root.absolute()}/imported/{{task}}'\""
        raise UserError(f"{error}{shared if (root / 'imported').is_dir() else ''}") from error


def disk_needed(experiment: Experiment, cells: Sequence[Cell]) -> int:
    """Bytes of what is not in the cache yet: sources, tiers put together from them, and features of these.

    Raises:
        UserError: when a behaviour is not shipped, or a dataset is too small for its shares.
    """
    needed = 0
    have: dict[Rollout, int] = {}
    for cell in one_of_each_dataset(cells):
        plan = plan_of(experiment, cell)
        spec = plan.action_spec
        per_transition = 4 * plan.observation_size + spec.num_sub_actions * (1 if spec.max_choices <= 256 else 2) + 14
        # What is being collected is there twice for a while: as kept episodes, and as the store that they become.
        needed += per_transition * (2 * take_missing(plan.parts, have) + plan.unwritten)
    return needed + sum(missing_features(experiment, cell) for cell in cells)


def one_of_each_dataset(cells: Sequence[Cell]) -> Iterable[Cell]:
    """A cell for every dataset that `cells` want."""
    return {_dataset(cell): cell for cell in cells}.values()


def _dataset(cell: Cell) -> tuple[str, int, str]:
    return cell.key.task, cell.key.bins, cell.key.tier


def plan_of(experiment: Experiment, cell: Cell) -> DatasetPlan:
    """The plan of the cell's dataset.

    Raises:
        UserError: when it cannot be made.
    """
    try:
        return experiment.dataset(cell)
    except (UserError, ValueError) as error:
        raise UserError(f"tier {cell.key.tier}: {error}") from error


def cached_asm(experiment: Experiment, cell: Cell) -> tuple[Store, FrozenASM] | None:
    """The cell's dataset and ASM, if the cache holds both; damaged ones are for the cell to report."""
    try:
        store = experiment.dataset(cell).cached()
        if store is None:
            return None
        identity = cell.pretraining.fingerprint(
            store.fingerprint,
            cell.key.seed,
            standardized=experiment.standardize_observations,
            precision=experiment.machine.resolve().precision,
        )
        return (store, FrozenASM.load(asm_folder(identity))) if asm_folder(identity).exists() else None
    except UserError:
        return None


def missing_features(experiment: Experiment, cell: Cell) -> int:
    """Bytes of what the policy will compute of the whole dataset and the cache does not hold."""
    needed = features_needed(experiment, cell)
    cached = cached_asm(experiment, cell) if needed else None
    if cached is not None:
        store, asm = cached
        size, spec = store.observation_size, store.action_spec
        real = cell.policy.build(size, spec, asm=asm, seed=cell.key.seed).frozen_input()  # None if trained before
        if real and features_path(real.identity, store.fingerprint).exists():
            return 0
    return needed


def features_needed(experiment: Experiment, cell: Cell) -> int:
    """Bytes of what the policy computes of the whole dataset; 0 for most policies."""
    plan = experiment.dataset(cell)
    shape = cell.policy.frozen_shape(cell.pretraining.encoder, plan.action_spec)
    return features_bytes(plan.transitions, shape) if shape else 0


def take_missing(parts: Iterable[tuple[Rollout, int]], have: dict[Rollout, int]) -> int:
    """How many transitions of `parts` have to be collected, given what the cache and earlier parts provide.

    Args:
        parts: what a dataset takes of each sequence of episodes.
        have: transitions there will be of each sequence so far; brought up to date with `parts`.
    """
    missing = 0
    for rollout, count in parts:
        held = have.setdefault(rollout, cached_transitions(rollout))
        missing += max(0, count - held)
        have[rollout] = max(count, held)
    return missing
