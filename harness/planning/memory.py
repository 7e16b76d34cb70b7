"""Memory that cells need, of the machine and of a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from harness.experiment import Cell, Experiment
from harness.planning.preflight import features_needed, one_of_each_dataset
from spinrl.asm import Pretraining

BASE_MEMORY = 900e6  # Python with torch, dm_control and MLflow
GPU_SHARE = 0.8  # of a GPU's free memory that cells may fill
GPU_CELL = 1e9  # of a cell beside its activations: weights, optimizers, workspaces, a graph's own pool
GPU_CELLS = 15  # at most: a cell has up to two captured functions at a time, and torch has streams for 32
ACTIVATIONS = 40  # tensors of a token's width that a block of a transformer keeps for its gradient


def memory_needed(experiment: Experiment, cells: Sequence[Cell]) -> float:
    """Peak memory in bytes of the cell with the largest dataset, mapped pages included."""
    most = 0
    for cell in cells:
        plan = experiment.dataset(cell)
        dataset = 4 * plan.observation_size * plan.transitions
        most = max(most, dataset + features_needed(experiment, cell))
    return BASE_MEMORY + 1.5 * most


def cells_of_a_gpu(experiment: Experiment, cells: Sequence[Cell], free: float) -> int:
    """How many cells at a time a GPU has room for, by an estimate on the safe side; at least one.

    A dataset is there once for all cells that use it. Features are of a cell's own, since they follow its ASM.

    Args:
        experiment: experiment that the cells belong to.
        cells: cells to run; the largest counts.
        free: bytes of the GPU's memory that nobody uses.
    """
    cells_of_a_dataset = len(cells) / max(1, len(list(one_of_each_dataset(cells))))
    data = each = 0.0
    for cell in cells:
        plan = experiment.dataset(cell)
        spec, encoder = plan.action_spec, cell.pretraining.encoder
        data = max(data, (4 * plan.observation_size + 2 * spec.num_sub_actions + 16) * plan.transitions)
        batch = experiment.training.batch_size
        if cell.policy.needs_asm and isinstance(cell.pretraining, Pretraining):
            batch = max(batch, cell.pretraining.batch_size)
        tokens = spec.num_sub_actions + encoder.num_state_tokens
        activations = 4 * batch * tokens * encoder.d_model * encoder.num_blocks * ACTIVATIONS
        each = max(each, activations + features_needed(experiment, cell))
    room = (GPU_SHARE * free - data) / (GPU_CELL + each + data / cells_of_a_dataset)
    return min(GPU_CELLS, max(1, int(room)))
