from io import StringIO

import pytest
from rich.console import Console

from harness.terminal.progress import ProgressLine, duration
from harness.terminal.time_left import TimeLeft

PLAN = [("a", "training", 100.0), ("a", "evaluating", 10.0), ("a", "evaluating", 10.0), ("b", "training", 100.0)]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def progress_to_text(**arguments: object) -> tuple[ProgressLine, Clock, StringIO]:
    clock, text = Clock(), StringIO()
    console = Console(file=text, force_terminal=False, width=200)
    return ProgressLine(2, console, clock=clock, **arguments), clock, text  # type: ignore[arg-type]


def test_the_plan_is_what_is_left_before_anything_is_known() -> None:
    assert TimeLeft(PLAN).left() == 220
    assert TimeLeft(PLAN, parallel=2).left() == 110


def test_a_kind_of_stage_is_corrected_by_what_it_really_took() -> None:
    time_left = TimeLeft(PLAN)
    time_left.record("a", "training", 0.0, 0.5, 100.0)  # twice as slow as planned
    # Evaluations have no measure of their own yet, so all stages' factor 2 holds for them too.
    assert time_left.left() == pytest.approx(2 * (50 + 20 + 100))
    time_left.record("a", "evaluating", 0.0, 1.0, 10.0)  # one of the two, as planned
    assert time_left.left() == pytest.approx(2 * (50 + 100) + 10)


def test_cached_and_failed_work_is_not_left() -> None:
    time_left = TimeLeft(PLAN)
    time_left.settle("a", "training")
    assert time_left.left() == 120
    time_left.settle("a")
    assert time_left.left() == 100


def test_a_stage_that_a_cache_had_is_not_left_and_no_measure_of_speed() -> None:
    progress, clock, _text = progress_to_text(plan=PLAN)
    progress.stage("a", "training", 0, "")
    clock.now = 3
    progress.settle("a", "training")
    assert progress.left() == 120


def test_a_stage_under_way_counts_by_its_own_rate() -> None:
    progress, clock, _text = progress_to_text(plan=PLAN)
    stage = progress.stage("a", "training", 1000, "steps")
    stage.update(0)
    clock.now = 10
    stage.update(50)
    assert stage.rate == 5
    assert stage.left == 190
    assert progress.left() == 190 + 120


def test_training_goes_on_where_an_evaluation_interrupted_it() -> None:
    progress, clock, _text = progress_to_text(plan=PLAN)
    with progress.stage("a", "training", 1000, "steps") as stage:
        clock.now = 50
        stage.update(500)
    with progress.stage("a", "evaluating", 4, "episodes") as stage:
        assert progress.left() == pytest.approx(50 + 20 + 100)
        clock.now = 60
        stage.update(4)
    assert progress.left() == pytest.approx(50 + 10 + 100)
    with progress.stage("a", "training", 1000, "steps") as stage:
        assert stage.begin == 500
        clock.now = 110
        stage.update(1000)
    assert progress.left() == pytest.approx(10 + 100)
    progress.settle("a")
    progress.settle("b")
    assert progress.left() == 0


def test_a_stage_is_not_slowed_down_by_another_of_its_cell() -> None:
    progress, clock, _text = progress_to_text(plan=PLAN)
    training = progress.stage("a", "training", 1000, "steps")
    training.update(0)
    clock.now = 10
    training.update(100)
    evaluating = progress.stage("a", "evaluating", 4, "episodes")
    clock.now = 500
    evaluating.update(4)
    progress.show(training)
    clock.now = 505
    training.update(150)
    clock.now = 510
    training.update(200)
    assert training.rate == 10
    training.update(1000)
    training.finish()
    assert training.elapsed == 20


def test_steps_of_an_earlier_run_are_done_but_say_nothing_about_speed() -> None:
    progress, clock, _text = progress_to_text(plan=PLAN)
    stage = progress.stage("a", "training", 1000, "steps", begin=900)
    clock.now = 20
    stage.update(1000)
    stage.finish()
    # A tenth of 100 planned seconds took 20: everything else will take twice as long.
    assert progress.left() == pytest.approx(2 * 120)


def test_a_log_gets_a_plain_line_every_ten_seconds() -> None:
    progress, clock, text = progress_to_text(plan=PLAN)
    with progress:
        stage = progress.stage("a", "training", 1000, "steps")
        for second in range(1, 31):
            clock.now = second
            stage.update(10 * second, loss=0.12345)
    lines = text.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("[1/2] a: training 0%")
    assert lines[-1] == "[1/2] a: training 30%, 10 steps/s, 1:10 left, loss 0.1235 | run: 3:10 left"
    assert "\x1b" not in text.getvalue()


def test_a_terminal_gets_one_live_line_that_goes_away() -> None:
    text = StringIO()
    progress = ProgressLine(1, Console(file=text, force_terminal=True, width=100))
    with progress, progress.stage("a [bold]cell", "training", 10, "steps") as stage:
        stage.update(5)
        progress._live.refresh()  # type: ignore[union-attr]
    assert "a [bold]cell: training 50%" in text.getvalue()  # a label is no markup
    assert text.getvalue().rstrip("\x1b[?25h").endswith("\x1b[2K")  # erased at the end


def test_parallel_stages_share_the_line() -> None:
    progress, clock, _text = progress_to_text(plan=PLAN, parallel=2)
    first, second = (progress.stage(cell, "training", 100, "steps") for cell in "ab")
    clock.now = 1
    first.update(10)
    assert progress.line().startswith("[1/2] a: training 10%") and "(+1 more)" in progress.line()
    second.update(20)
    assert progress.line().startswith("[2/2] b: training 20%")
    second.finish()
    assert progress.line().startswith("[1/2] a")


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (750, "12:30"), (3723, "1:02:03"), (59.6, "1:00")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
