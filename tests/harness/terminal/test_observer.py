"""What an observer logs once, of what was made before too, and that a figure is no reason to end a run."""

from __future__ import annotations

import io
from pathlib import Path
from unittest.mock import Mock

import attrs
import numpy as np
import pytest
from rich.console import Console

from harness.cells.events import ASMReady, DatasetReady, Metrics
from harness.command_line import use_packaged_configs
from harness.experiment import Cell, Experiment
from harness.records import Evaluation
from harness.terminal.observer import RunObserver
from spinrl.config import load
from spinrl.data import Episode, SourceRecord, Store, StoreWriter
from spinrl.machine import Machine
from spinrl.specs import ActionSpec


@pytest.fixture
def store(tmp_path: Path) -> Store:
    spec = ActionSpec((3, 5))
    last = np.arange(40) == 39
    with StoreWriter(
        tmp_path / "store", task="t", bins=None, action_spec=spec, observation_size=2, tier="medium",
        sources=[SourceRecord(behavior="human")],
    ) as writer:  # fmt: skip
        actions = np.random.default_rng(0).integers(0, spec.nvec, (40, 2))
        writer.append(
            Episode(
                observations=np.zeros((41, 2), np.float32),
                actions=actions,
                rewards=np.ones(40),
                terminated=last,
                truncated=~last & last,
            )
        )
    return Store.open(tmp_path / "store")


@pytest.fixture
def cells() -> list[Cell]:
    use_packaged_configs()
    return load(Experiment, ["gin/spin_humanoid.gin", "gin/policies/all.gin"]).value.cells()


def observer(parent: Mock, said: io.StringIO, **changes: float) -> RunObserver:
    experiment = attrs.evolve(load(Experiment, ["gin/spin_humanoid.gin"]).value, **changes)
    return RunObserver(experiment, parent, Mock(), Console(file=said), Mock(), lambda only: f"run {only}")


def test_a_figure_is_logged_once_for_all_cells_of_a_dataset(store: Store, cells: list[Cell]) -> None:
    parent = Mock()
    watching = observer(parent, io.StringIO())
    for cell in cells[:2]:
        watching.cell_started(cell, Machine().resolve(), "here")
        watching.event(cell, DatasetReady(store.path, store.fingerprint, len(store), 2, (3, 5)))
    name = f"humanoid-stand-3bins-{cells[0].key.tier}"
    ((stem, figure),) = [call.args for call in parent.figure.call_args_list]
    assert stem == f"dataset/{name}" and len(figure.axes) > 3
    assert figure.get_suptitle() == name


def test_a_figure_says_that_it_is_of_the_training_part(store: Store, cells: list[Cell]) -> None:
    parent = Mock()
    watching = observer(parent, io.StringIO(), held_out=0.125)
    watching.cell_started(cells[0], Machine().resolve(), "here")
    watching.event(cells[0], DatasetReady(store.path, store.fingerprint, len(store), 2, (3, 5)))
    assert (
        parent.figure.call_args.args[1].get_suptitle().endswith("without the 12.5% of the episodes that are held out")
    )


def test_a_dataset_is_described_by_the_choices_that_it_has(cells: list[Cell], tmp_path: Path) -> None:
    parent = Mock()
    watching = observer(parent, io.StringIO())
    own = attrs.evolve(cells[0], key=attrs.evolve(cells[0].key, task="clinic", bins=0, tier="logged"))
    for cell, nvec in ((own, (3, 2, 5)), (cells[0], (3, 3))):
        watching.cell_started(cell, Machine().resolve(), "here")
        watching.event(cell, DatasetReady(tmp_path / "gone", "f", 1, 2, nvec))
    described = parent.start_cell.return_value.dataset.call_args_list
    assert [call.args[0] for call in described] == ["clinic-logged", f"humanoid-stand-3bins-{cells[0].key.tier}"]
    assert [call.kwargs["schema"]["action"] for call in described] == [
        "int (3,) of 3, 2 and 5 choices",
        "int (2,) of 3 choices",
    ]


def test_a_figure_that_fails_is_a_line_and_no_more(cells: list[Cell], tmp_path: Path) -> None:
    parent, said = Mock(), io.StringIO()
    watching = observer(parent, said)
    watching.cell_started(cells[0], Machine().resolve(), "here")
    watching.event(cells[0], DatasetReady(tmp_path / "gone", "f", 1, 2, (3, 5)))
    assert "figure could not be drawn" in said.getvalue() and "gone" in said.getvalue().replace("\n", "")
    parent.figure.assert_not_called()


def test_the_curve_of_an_asm_from_the_cache_is_logged_too(cells: list[Cell]) -> None:
    parent = Mock()
    watching = observer(parent, io.StringIO())
    watching.cell_started(cells[0], Machine().resolve(), "here")
    curve = tuple(Metrics(step, {"train/loss_asm": 1.0 / step}) for step in (20, 40))
    watching.event(cells[0], ASMReady("f", 3.0, curve))
    logged = [call.args for call in parent.start_cell.return_value.metrics.call_args_list]
    assert logged[:2] == [({"train/loss_asm": 0.05}, 20), ({"train/loss_asm": 0.025}, 40)]


def test_returns_of_finished_cells_are_on_the_parent_whatever_a_kill_kept_from_it(cells: list[Cell]) -> None:
    experiment, parent = load(Experiment, ["gin/spin_humanoid.gin"]).value, Mock()
    evaluation = Evaluation(
        gradient_step=5, fraction=1.0, returns=(1.0,), asm_seconds=0, train_seconds=1, evaluation_seconds=1
    )
    finished = {cells[0].key: [evaluation]}
    RunObserver(experiment, parent, Mock(), Console(file=io.StringIO()), Mock(), str, finished)
    parent.overview.assert_called_once_with(cells[0].key, evaluation)
