"""What a cell does between two evaluations."""

from types import SimpleNamespace

import pytest

from harness.cell import _Training


@pytest.mark.parametrize(
    ("share", "reached"), [(0.5, [0, 0.5]), (0.27, [0, 0.3]), (0.1, [0, 0.1]), (1 / 3, [0, 0.35]), (0.99, [0])]
)
def test_a_policy_is_told_of_a_milestone_at_the_first_step_that_is_not_before_it(share, reached):
    told = []
    training = SimpleNamespace(
        experiment=SimpleNamespace(training=SimpleNamespace(gradient_steps=20)),
        algorithm=SimpleNamespace(policy=SimpleNamespace(milestones=(share,), reach=told.append)),
        step=0,
        _prepare=lambda report: None,
    )
    training._train_to = lambda stop, report: setattr(training, "step", stop)
    _Training.advance(training, 20, print)
    assert training.step == 20 and told == pytest.approx(reached)
