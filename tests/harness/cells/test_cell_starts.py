"""Starts of policy and critics in a cell: counted, resumed, and shared by name."""

import attrs
import pytest

from harness.cells.events import Evaluated, Metrics, StartReady
from harness.cells.run_cell import run_cell
from harness.command_line import config_root
from harness.experiment import Experiment
from spinrl.config import load
from spinrl.machine import ResolvedMachine
from tests.harness.cells.test_own_data import COUNTER, log

STARTS = (
    "Experiment.tasks=['counter']",
    "Experiment.policies={'imitated': @Factored(), 'plain': @Factored()}",
    "Experiment.warm_starts={'imitated': @Imitation()}",
    "Experiment.critic_starts={'plain': None}",
    "Evaluating.estimators=[]",
    "Training.checkpoint_minutes=1e-9",
    *COUNTER,
)


@pytest.fixture(autouse=True)
def _logged():
    log("counter")


def grid(*bindings):
    return load(Experiment, [config_root() / "gin" / "own_data.gin"], [*STARTS, *bindings]).value.smoke()


def run(experiment, cell, stop_at=None):
    events = []

    def report(event):
        events.append(event)
        if (
            stop_at is not None
            and isinstance(event, Metrics)
            and (event.step, "train/loss_policy")
            == (
                stop_at,
                *(name for name in event.values if name == "train/loss_policy"),
            )
        ):
            raise KeyboardInterrupt

    return run_cell(experiment, cell, ResolvedMachine(), report), events


def losses(events):
    """Those of the last step of training."""
    last = [each.values for each in events if isinstance(each, Metrics) and "train/loss_policy" in each.values][-1]
    return {name: value for name, value in last.items() if name.startswith("train/")}


def test_starts_are_counted_and_a_policy_may_be_left_out():
    experiment = grid()
    imitated, plain = experiment.cells()
    evaluations, events = run(experiment, imitated)
    starts = [each for each in events if isinstance(each, StartReady)]
    assert [each.kind for each in starts] == ["warm_start", "critic_start"]
    assert all(each.start_seconds == pytest.approx(sum(start.seconds for start in starts)) for each in evaluations)
    assert evaluations[0].seconds == evaluations[0].start_seconds + evaluations[0].train_seconds
    assert next(each for each in events if isinstance(each, Evaluated)).evaluation.start_seconds > 0
    evaluations, events = run(experiment, plain)
    assert not [each for each in events if isinstance(each, StartReady)]
    assert [each.start_seconds for each in evaluations] == [0.0, 0.0]


@pytest.mark.parametrize("stop_at", [5, 15])
def test_a_resumed_cell_with_starts_is_the_undisturbed_one(stop_at, tmp_path, monkeypatch):
    experiment = grid()
    cell = experiment.cells()[0]
    with pytest.raises(KeyboardInterrupt):
        run(experiment, cell, stop_at)
    resumed, resumed_events = run(experiment, cell)
    monkeypatch.setenv("SPINRL_HOME", str(tmp_path))
    log("counter")
    undisturbed, undisturbed_events = run(experiment, cell)
    assert [each.returns for each in resumed] == [each.returns for each in undisturbed]
    assert losses(resumed_events) == losses(undisturbed_events)
    assert all(each.start_seconds > 0 for each in resumed)


def test_a_training_without_starts_is_as_it_was_beside_one_with_them():
    """The same batches and dropout: imitation of no effect changes nothing."""
    still = attrs.evolve(grid("Imitation.learning_rate=1e-30"), critic_start=None)
    ends = [run(still, cell) for cell in still.cells()]
    assert len({tuple(each.returns for each in evaluations) for evaluations, _ in ends}) == 1
    assert losses(ends[0][1]) == losses(ends[1][1])


def test_names_of_policies_without_a_row_are_refused():
    with pytest.raises(Exception, match=r"warm_starts: each key is a name of policies \(imitated, plain\), got 'pl"):
        grid("Experiment.warm_starts={'plian': @Imitation()}")
