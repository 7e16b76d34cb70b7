"""One cell of the grid, from dataset to returns at every budget fraction.

A cell knows neither MLflow nor the terminal: what happens is told to a `report` function as events.
"""

from __future__ import annotations

import shutil

from harness.cells.environments import build_environment
from harness.cells.evaluating import train_and_judge
from harness.cells.events import (
    DatasetReady,
    Fault,
    Report,
    Trained,
    Waiting,
)
from harness.cells.identity import cell_identity
from harness.cells.training import CellTraining
from harness.experiment import Cell, Experiment
from harness.records import Evaluation
from spinrl.asm import FrozenASM
from spinrl.data import BuildOptions, Store, home, locked
from spinrl.events import stage_progress
from spinrl.machine import ResolvedMachine
from spinrl.preparation import prepare_asm


def prepare_dataset(experiment: Experiment, cell: Cell, report: Report) -> tuple[Store, Store | None]:
    """The cell's dataset, and what is held out of it: from the cache where they are, else made; verified.

    Raises:
        BehaviorError, CollectionError, StoreError: in one line each.
    """
    plan = experiment.dataset(cell)
    build = BuildOptions(
        processes=experiment.collectors,
        progress=stage_progress(report, "collecting", "transitions" if plan.parts else "bytes"),
        on_wait=lambda path: report(Waiting(path)),
        on_damage=lambda message: report(Fault(message)),
    )
    store = plan.store(build)
    report(DatasetReady(store.path, store.fingerprint, len(store), store.observation_size, store.action_spec.nvec))
    return store, plan.held_out()


def cell_asm(experiment: Experiment, cell: Cell, store: Store, machine: ResolvedMachine, report: Report) -> FrozenASM:
    """The cell's frozen ASM: from the cache where it is, else pre-trained on the cell's dataset."""
    standardized = experiment.standardize_observations
    return prepare_asm(cell.pretraining, store, machine, report, seed=cell.key.seed, standardized=standardized)


def run_cell(
    experiment: Experiment, cell: Cell, machine: ResolvedMachine, report: Report, *, fresh: bool = False
) -> list[Evaluation]:
    """Dataset, ASM if the policy needs one, training, and an evaluation at every mark.

    An interrupted training goes on from its last checkpoint when the same cell runs again, unless it is to be `fresh`.

    Returns:
        Every evaluation, in order of gradient step.

    Raises:
        DivergedError: when a loss is no longer finite.
    """
    machine.apply()
    store, held_out = prepare_dataset(experiment, cell, report)
    asm = cell_asm(experiment, cell, store, machine, report) if cell.policy.needs_asm else None
    identity = cell_identity(experiment, cell, store, asm, machine)
    path = home() / "cells" / identity / "checkpoint.pt"
    # Of two runs of the very same cell, one trains and the other waits: they would write the same checkpoint.
    with locked(path.parent, lambda entry: report(Waiting(entry))):
        if fresh:
            shutil.rmtree(path.parent, ignore_errors=True)
        training = CellTraining(experiment, cell, store, held_out, asm, machine, path)
        training.begin(report)
        environment = None
        if experiment.simulated(cell.key.task):
            episodes = experiment.evaluation.episodes
            environment = build_environment(experiment, cell, store, episodes=episodes, threads=machine.threads)
        try:
            train_and_judge(training, environment, report)
        finally:
            if environment is not None:
                environment.close()
        training.save()
        report(Trained(training.path))
        for folder in (training.path.parent, *training.private):
            shutil.rmtree(folder, ignore_errors=True)
        return training.evaluations
