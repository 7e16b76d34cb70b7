"""Checks before anything runs, e.g. for missing behaviour policies and too little disk space."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence

from harness.cells.environments import build_environment, require_task
from harness.experiment import Cell, Experiment
from spinrl.asm import FrozenASM, asm_folder
from spinrl.cache import CacheError, require_writable
from spinrl.data import DatasetPlan, Rollout, Store, cached_transitions, features_bytes, features_path, home
from spinrl.errors import UserError
from spinrl.tasks import TASKS

_HELD_OUT_NAMES = re.compile(r"(?<![a-z])(test|valid|validation|val|eval|evaluation|holdout)(?![a-z])", re.IGNORECASE)


def check(experiment: Experiment, cells: Sequence[Cell]) -> list[str]:
    """Check that every dataset and ASM can be made, that the disk has room, and that simulators fit their tasks.

    Returns:
        Lines on what is no error and should be known.

    Raises:
        UserError: if a check fails; the message is one line.
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
    notices = []
    for cell in one_of_each_dataset(cells):
        task, plan = cell.key.task, plan_of(experiment, cell)
        if task in experiment.simulators:
            environment = build_environment(experiment, cell, plan, episodes=1)
            try:
                environment.reset(0, 0)  # an ended episode has no mask
                notices += _mask_notices(task, plan, simulated=environment.allowed([0]) is not None)
            finally:
                environment.close()
        elif task in TASKS:
            require_task(task, plan)
            notices += _mask_notices(task, plan, simulated=False)
        notices += _split_notices(experiment, task, plan)
    return list(dict.fromkeys(notices))


def _split_notices(experiment: Experiment, task: str, plan: DatasetPlan) -> list[str]:
    """A line if data has a split that is meant to be held out, and the experiment trains on it."""
    meant = [name for name in plan.sources if _HELD_OUT_NAMES.search(name)]
    if experiment.held_out_sources or not meant or len(plan.sources) < 2:
        return []
    return [
        f"{task}: policies are trained on all of {', '.join(plan.sources)}, but for a share that is held out of them "
        f"together; to hold out {meant[-1]} alone: --set \"Experiment.held_out_sources=['{meant[-1]}']\""
    ]


def _mask_notices(task: str, plan: DatasetPlan, *, simulated: bool) -> list[str]:
    """A line if only one of a dataset and its simulator says which choices are allowed."""
    if plan.masked and not simulated:
        return [
            f"{task}: the data has masks of allowed choices, and its simulator gives none: policies are evaluated with "
            "every choice allowed, also those that the data never allowed (a simulator gives masks by "
            "info['action_mask'] or action_masks())"
        ]
    if simulated and not plan.masked:
        return [
            f"{task}: its simulator gives masks of allowed choices, and the data has none: policies are trained with "
            "every choice allowed, and evaluated within the masks (--column allowed=NAME imports those of the log)"
        ]
    return []


def check_cache() -> None:
    """Check that the cache folder can be written.

    Raises:
        UserError: if not; the message names the folder, and how to train on data that others keep there.
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
    """Bytes of data that the cache lacks: sources, tiers made from them, and features of the tiers.

    Raises:
        UserError: if a behaviour policy is not shipped, or a dataset is too small for its shares.
    """
    needed = 0
    have: dict[Rollout, int] = {}
    for cell in one_of_each_dataset(cells):
        plan = plan_of(experiment, cell)
        spec = plan.action_spec
        per_transition = 4 * plan.observation_size + spec.num_sub_actions * (1 if spec.max_choices <= 256 else 2) + 14
        # During collection the data is on disk twice: as kept episodes, and as the store made from them.
        needed += per_transition * (2 * take_missing(plan.parts, have) + plan.unwritten)
    return needed + sum(missing_features(experiment, cell) for cell in cells)


def one_of_each_dataset(cells: Sequence[Cell]) -> Iterable[Cell]:
    """One cell for each dataset that `cells` use."""
    return {_dataset(cell): cell for cell in cells}.values()


def _dataset(cell: Cell) -> tuple[str, int, str]:
    return cell.key.task, cell.key.bins, cell.key.tier


def plan_of(experiment: Experiment, cell: Cell) -> DatasetPlan:
    """The plan of the cell's dataset.

    Raises:
        UserError: if the dataset cannot be made.
    """
    try:
        return experiment.dataset(cell)
    except (UserError, ValueError) as error:
        raise UserError(f"tier {cell.key.tier}: {error}") from error


def cached_asm(experiment: Experiment, cell: Cell) -> tuple[Store, FrozenASM] | None:
    """The cell's dataset and ASM if the cache holds both, else None; damage is left for the cell to report."""
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
    """Bytes of features that the policy will compute for the whole dataset and that the cache lacks."""
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
    """Bytes of features that the policy computes for the whole dataset; 0 for most policies."""
    plan = experiment.dataset(cell)
    shape = cell.policy.frozen_shape(cell.pretraining.encoder, plan.action_spec)
    return features_bytes(plan.transitions, shape) if shape else 0


def take_missing(parts: Iterable[tuple[Rollout, int]], have: dict[Rollout, int]) -> int:
    """Number of transitions of `parts` to collect, given those in the cache and in earlier parts.

    Args:
        parts: transitions that a dataset takes from each sequence of episodes.
        have: transitions available from each sequence; updated with `parts`.
    """
    missing = 0
    for rollout, count in parts:
        held = have.setdefault(rollout, cached_transitions(rollout))
        missing += max(0, count - held)
        have[rollout] = max(count, held)
    return missing
