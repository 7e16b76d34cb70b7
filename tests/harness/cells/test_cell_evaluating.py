"""When a cell evaluates its policy, and on how many episodes."""

import io

import attrs
import numpy as np
import pytest
from matplotlib.image import imread

from harness.cells.events import Notice, Pictured
from harness.cells.identity import study_key
from harness.cells.pictures import Remembered, strip_of
from harness.records import CellKey
from harness.reporting.returns import from_frame, read_csv, to_csv, to_frame, trained
from spinrl.policies import SPIN
from spinrl.tasks import BatchedEnvironment, RenderingError, get_task, rendering
from tests.harness.cells.test_cell_starts import grid, run
from tests.harness.cells.test_own_data import log

WARM = SPIN(slot_queries="mask_tokens", heads="asm", query_share=0.0, frozen_dropout=False, cached=True)
KEY = CellKey(task="counter", bins=0, tier="logged", policy="p", algorithm="iql", seed=0)


@pytest.fixture(autouse=True)
def _logged():
    log("counter")


def evaluating(experiment, **fields):
    return attrs.evolve(experiment, evaluation=attrs.evolve(experiment.evaluation, **fields))


def plain_cell(experiment):
    return experiment.cells()[1]


def test_the_last_evaluation_has_more_episodes_whose_first_are_the_same():
    few = evaluating(grid(), fractions=(0.5, 1.0))
    more = evaluating(few, final_episodes=5)
    ends = [run(each, plain_cell(each))[0] for each in (few, more)]
    assert [[len(each.returns) for each in evaluations] for evaluations in ends] == [[2, 2], [2, 5]]
    assert ends[1][1].returns[:2] == ends[0][1].returns
    for each in ends[1]:
        assert len(each.discounted) == len(each.returns)
        assert all(0 <= less <= whole for less, whole in zip(each.discounted, each.returns, strict=True))


def test_a_cell_ends_early_by_patience_alone_and_says_so():
    experiment = evaluating(grid(), every_steps=1, final_episodes=3)
    patient = attrs.evolve(experiment, training=attrs.evolve(experiment.training, patience=2))
    evaluations, events = run(patient, plain_cell(patient))
    whole, _ = run(experiment, plain_cell(experiment))
    last = evaluations[-1]
    assert last.ended_early and last.fraction == 1 and last.gradient_step < 20 and len(last.returns) == 3
    assert not any(each.ended_early for each in (*evaluations[:-1], *whole)) and whole[-1].gradient_step == 20
    means = [sum(each.returns[:2]) / 2 for each in evaluations]
    assert max(means[-2:]) <= max(means[:-2])
    assert [each.returns for each in evaluations[:-1]] == [each.returns for each in whole[: len(evaluations) - 1]]
    assert any("ended at" in each.message for each in events if isinstance(each, Notice))


@pytest.mark.parametrize("patience", [None, 2])
def test_the_last_evaluations_first_episode_is_drawn_and_changes_nothing(patience):
    experiment = evaluating(grid("Gymnasium.options={'stops': False}"), every_steps=2, final_episodes=5)
    experiment = attrs.evolve(experiment, training=attrs.evolve(experiment.training, patience=patience))
    drawn = evaluating(experiment, pictures=True)
    (undrawn, without), (evaluations, events) = (run(each, plain_cell(each)) for each in (experiment, drawn))
    assert [each.returns for each in evaluations] == [each.returns for each in undrawn]
    assert study_key(drawn, drawn.cells()) == study_key(experiment, experiment.cells())
    assert not [each for each in without if isinstance(each, Pictured)]
    (strip,) = [each.png for each in events if isinstance(each, Pictured)]
    steps, total, _ = (255 * imread(io.BytesIO(strip))[0, ::6, :3].T).round()
    assert len(steps) == 8 and steps[0] == 0 and steps[-1] == 5 and (np.diff(steps) >= 0).all()
    assert total[-1] == evaluations[-1].returns[0]


def test_an_episode_of_the_benchmark_is_drawn_as_it_was():
    experiment = evaluating(grid(), pictures=True)
    cell = attrs.evolve(plain_cell(experiment), key=attrs.evolve(KEY, task="finger-spin"))
    simulated = BatchedEnvironment(get_task("finger-spin"), 3, 2)
    episode = Remembered(simulated)
    for seed in (4, 5):  # the first one counts
        episode.reset(1, 3)
        episode.reset(0, seed)
        for step in range(9):
            episode.step(np.full((2, 2), step % 3))
        if seed == 4:
            try:
                drawing = rendering.Drawing(simulated.simulators[0].physics)
            except RenderingError as error:
                assert strip_of(experiment, cell, episode) is None
                pytest.skip(str(error))
            last = drawing()
            drawing.close()
    strip = imread(io.BytesIO(strip_of(experiment, cell, episode)))
    assert strip.shape[:2] == (240, 8 * 320) and (strip[:, :320] != strip[:, -320:]).any()
    assert ((255 * strip[:, -320:, :3]).round() == last).all()


def test_what_cannot_be_drawn_ends_no_cell():
    experiment = evaluating(grid("Gymnasium.options={'fails': 'render'}"), pictures=True)
    evaluations, events = run(experiment, plain_cell(experiment))
    assert evaluations[-1].fraction == 1 and not [each for each in events if isinstance(each, Pictured)]
    (notice,) = [each.message for each in events if isinstance(each, Notice)]
    assert notice == "the last evaluation could not be drawn: the patient is not there"


def test_an_asm_is_evaluated_on_its_way_and_again_from_the_cache():
    experiment = attrs.evolve(grid(), policies=(WARM,), warm_starts={}, critic_starts={})
    experiment = evaluating(experiment, during_pretraining=(0.2, 1.0))
    (cell,) = experiment.cells()
    evaluations, _ = run(experiment, cell)
    early, full, *rest = evaluations
    assert [(each.gradient_step, each.asm_share) for each in (early, full)] == [(0, 0.2), (0, 1.0)]
    assert 0 < early.asm_seconds < full.asm_seconds == rest[0].asm_seconds
    assert (early.train_seconds, early.start_seconds) == (0, 0) and all(each.gradient_step for each in rest)
    again, _ = run(experiment, cell)
    assert [each.returns for each in again] == [each.returns for each in evaluations]
    assert again[0].asm_seconds == early.asm_seconds
    table = to_frame([(KEY, each) for each in evaluations], preset="laptop")
    assert [each for _, each in from_frame(read_csv(to_csv(table)))] == evaluations
    assert (trained(table)["gradient_step"] > 0).all() and len(trained(table)) < len(table)
