"""The estimate of a grid counts what cells of one process do to one another."""

import attrs
import pytest

from harness.command_line import config_root
from harness.experiment import Experiment
from harness.planning import cost
from spinrl.captured import adam
from spinrl.config import load
from spinrl.machine import ResolvedMachine


@pytest.mark.parametrize(
    ("capture", "together", "copies", "seconds"), [(False, 1, 1, 1.0), (False, 3, 1, 3.0), (True, 3, 3, 1.5)]
)
def test_a_step_takes_what_the_cells_of_its_process_take_together(
    shared_cache, monkeypatch, capture, together, copies, seconds
):
    timed = []

    def seconds_of(steps, machine):
        timed.append(len(steps))
        return 1.0 if len(steps) == 1 else 1.5  # a GPU mixes the steps of three

    monkeypatch.setattr(cost, "seconds_of", seconds_of)
    for module in ("harness.planning.timed_steps", "spinrl.algorithms.base"):  # there is no GPU for their rates
        monkeypatch.setattr(f"{module}.adam", lambda *given, capture, scheduled=False: adam(*given, capture=False))
    grid = load(
        Experiment, [config_root() / "gin" / "spin_humanoid.gin"], ["Experiment.tiers=['medium']"]
    ).value.smoke()
    machine = attrs.evolve(ResolvedMachine(), capture=capture)
    found = cost.estimate_cost(grid, grid.cells(), machine, together)
    stages = {stage.stage: stage.seconds for stage in found.stages}
    assert stages["training"] == pytest.approx(seconds * grid.training.gradient_steps)
    assert stages["pre-training"] == pytest.approx(seconds * grid.pretraining.total_steps(1000))
    assert max(timed) == copies
