"""A policy that the method's public reference code trained, as one of our finished cells."""

from __future__ import annotations

from pathlib import Path

from harness.experiment import Cell, Experiment
from harness.exporting.finished import FinishedCell, simulated
from harness.records import Evaluation
from spinrl.algorithms import BCQ
from spinrl.asm import FrozenASM
from spinrl.checkpoint import CheckpointError
from spinrl.errors import UserError
from spinrl.policies import Policy
from spinrl.reference import load_policy
from spinrl.tasks import TASKS


def reference_cell(checkpoint: Path, experiment: Experiment) -> FinishedCell:
    """Read the reference's checkpoint, and evaluate its policy in the simulator as the experiment says.

    Args:
        checkpoint: file that the public code wrote after IQL or AWAC; no code in it is run.
        experiment: experiment of one cell, with the task, bins, policy and ASMEncoder sizes of the checkpoint.

    Raises:
        UserError: when the experiment does not fit the checkpoint, or the file is damaged; the message is one line.
    """
    cell = _only_cell(experiment)
    try:
        policy = _filled(checkpoint, cell)
    except (CheckpointError, ValueError) as error:
        raise UserError(str(error)) from error
    config = experiment.evaluation
    returns = simulated(policy, cell.key, config.episodes, action=config.action, steps=config.episode_steps)
    return FinishedCell(
        key=cell.key,
        policy=policy,
        final=Evaluation(
            gradient_step=0,  # unknown
            fraction=1.0,
            returns=returns,
            asm_seconds=0.0,
            train_seconds=0.0,
            evaluation_seconds=0.0,
        ),
        dataset_fingerprint=None,
        asm_fingerprint=None,
        action=config.action,
        episode_steps=config.episode_steps,
        gradient_steps=None,
        run_id=None,
        source=f"{checkpoint.name}, of the public reference code",
    )


def _only_cell(experiment: Experiment) -> Cell:
    # Of several seeds the first gives the starts of the episodes; a checkpoint has its own.
    cells = [cell for cell in experiment.cells() if cell.key.seed == experiment.seeds[0]]
    if len(cells) > 1:
        labels = ", ".join(cell.key.label() for cell in cells)
        raise UserError(
            "a checkpoint holds one policy: bind Experiment.policies and the tier that it was trained on "
            f"(Experiment.tiers=['expert']); the configuration has {len(cells)} cells: {labels}"
        )
    cell = cells[0]
    if cell.key.task not in TASKS:
        raise UserError(f"expected a task of the benchmark ({', '.join(TASKS)}), got {cell.key.task}")
    if experiment.standardize_observations:
        raise UserError(
            "the reference code gives networks raw observations; add --set Experiment.standardize_observations=False"
        )
    if isinstance(cell.algorithm, BCQ):
        raise UserError(
            "a BCQ policy needs its critics, and only the policy is read from a reference checkpoint; add --gin "
            "gin/algorithms/iql.gin for its imitation policy alone"
        )
    return cell


def _filled(checkpoint: Path, cell: Cell) -> Policy:
    task = TASKS[cell.key.task]
    sizes = (task.observation_size, task.action_spec(cell.key.bins))
    asm = None
    if cell.policy.needs_asm:  # what the policy takes from it is in the checkpoint, and replaces it
        asm = FrozenASM.untrained(cell.pretraining.encoder, *sizes, seed=0)
    policy = cell.policy.build(*sizes, asm=asm, seed=0)
    load_policy(checkpoint, policy)
    return policy.eval().requires_grad_(False)
