"""Going on with an interrupted study: nothing is trained or logged twice, and no other study is taken for it."""

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import attrs
import mlflow
import pytest

from harness import run as command
from harness.cells import evaluating
from harness.cells import training as cell_training
from harness.records import CellKey, Evaluation
from harness.reporting.returns import ReportMeta, to_frame
from harness.tracking import resume as study
from harness.tracking.read_back import load_results
from harness.tracking.tracker import Tracker
from spinrl import training as spinrl_training

SIZES = """
Experiment.name = 'study'
Experiment.tiers = ['expert']
Experiment.policies = [@Factored(), @Autoregressive()]
expert/Tier.transitions = 400
Autoregressive.lstm_width = 16
MonteCarloCritics.steps = 20
Training.gradient_steps = 200
Training.batch_size = 16
Training.checkpoint_minutes = 0.002
Evaluating.fractions = [0.01, 0.5, 1.0]
Evaluating.episodes = 1
Evaluating.final_episodes = 1
Evaluating.episode_steps = 5
Machine.threads = 1
Machine.compile = False
"""
pytestmark = pytest.mark.usefixtures("undrawn")
KEYS = [CellKey(task="t", bins=3, tier="expert", policy=name, algorithm="iql", seed=0) for name in ("a", "b")]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    Path("sizes.gin").write_text(SIZES)


def arguments(*more, name="study"):
    sizes = ["--gin", "gin/spin_humanoid.gin", "--gin", "sizes.gin", "--set", f"Experiment.name='{name}'"]
    return [*sizes, "--jobs", "1", *more]


def runs_of(name):
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    parents = [each for each in runs if each.data.tags["spinrl.role"] == "experiment"]
    return parents, [each for each in runs if each.data.tags["spinrl.role"] == "cell"]


def steps_of(run):
    """Every step at which each metric was logged."""
    client = mlflow.MlflowClient()
    return {name: [each.step for each in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics}


def returns_of(name):
    table, _ = load_results(None, name)
    return table.sort_values(["policy", "gradient_step"])["return"].tolist()


# Runs the command, and kills itself after half of the second cell, when the store has been told all that came before:
# what is sent lags behind what is printed, by how much depends on the machine.
KILLED = """
import os, signal, sys, time
import mlflow
from harness import run
from harness.cells import training as cell_training
from spinrl import training as spinrl_training

train_to, marks = cell_training.CellTraining._train_to, []

def killed_in_the_second_cell(training, mark, report):
    marks.append(mark)
    if len(marks) == 6:
        told = lambda: [each for each in mlflow.search_runs(search_all_experiments=True, output_format="list")
                        if each.info.status == "FINISHED" or each.data.tags.get("policy") == "autoregressive"
                        and len(mlflow.MlflowClient().get_metric_history(each.info.run_id, "eval/return_mean")) == 2]
        while len(told()) < 2:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    train_to(training, mark, report)

cell_training.CellTraining._train_to = killed_in_the_second_cell
run.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_been(shared_cache, capsys):
    """Killed in the training of the second of two cells: the same returns, runs and steps as undisturbed."""
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments()], stdout=subprocess.DEVNULL, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    parents, cells = runs_of("study")
    assert [each.info.status for each in parents] == ["RUNNING"]

    assert command.main(arguments()) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "going on with an interrupted run: 1 cells are finished, 1 were begun" in output
    assert "autoregressive-iql s0: goes on from gradient step" in output and "factored-iql s0: return" not in output
    parents, cells = runs_of("study")
    assert [each.info.status for each in (*parents, *cells)] == ["FINISHED"] * 3
    assert parents[0].data.tags["spinrl.session"] == "2"

    assert command.main(arguments(name="undisturbed")) == 0
    assert returns_of("study") == returns_of("undisturbed")
    (parent,), others = runs_of("undisturbed")
    for disturbed in (*parents, *cells):
        (other,) = [
            each for each in (parent, *others) if each.data.tags.get("policy") == disturbed.data.tags.get("policy")
        ]
        found, wanted = steps_of(disturbed), steps_of(other)
        assert set(found) == set(wanted)
        for metric, steps in found.items():
            assert max(Counter(steps).values()) == 1, metric
            if metric not in ("time/total_seconds", "time/logging_seconds"):  # one for each session
                assert sorted(steps) == sorted(wanted[metric]), metric

    # Finished: the same command is a study of its own again.
    assert command.main(arguments("--set", "Experiment.policies=[@Factored()]")) == 0
    assert "going on with" not in capsys.readouterr().out


def test_a_stopped_run_is_told_from_another_configuration(shared_cache, capsys, monkeypatch):
    one = ("--set", "Experiment.policies=[@Factored()]")
    train_to, began = cell_training.CellTraining._train_to, []

    def stop_at_the_second(training, mark, report):
        began.append(mark)
        if len(began) == 2:
            raise KeyboardInterrupt
        train_to(training, mark, report)

    monkeypatch.setattr(cell_training.CellTraining, "_train_to", stop_at_the_second)
    assert command.main(arguments(*one)) == 130
    monkeypatch.setattr(cell_training.CellTraining, "_train_to", train_to)
    capsys.readouterr()

    assert command.main(arguments(*one, "--set", "IQL.gamma=0.9", "--set", "Local.jobs=1")) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "this one starts anew, since it is configured otherwise:" in output
    assert "-IQL.gamma = 0.99" in output and "+IQL.gamma = 0.9" in output
    assert "Local.jobs" not in output  # where cells run makes no other study

    # The one that was stopped is still there to go on with, or to start over.
    assert command.main(arguments(*one, "--fresh")) == 0
    output = capsys.readouterr().out
    assert "going on with" not in output and "goes on from" not in output
    assert len(runs_of("study")[0]) == 3


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(shared_cache, capsys, monkeypatch):
    one = ("--set", "Experiment.policies=[@Factored()]")
    evaluate, done = evaluating._evaluate, []

    def stop_after_the_second(training, *given):
        evaluate(training, *given)
        done.append(training)
        if len(done) == 2:
            training.path.write_bytes(training.path.read_bytes()[:-100])
            raise KeyboardInterrupt

    monkeypatch.setattr(evaluating, "_evaluate", stop_after_the_second)
    assert command.main(arguments(*one)) == 130
    monkeypatch.setattr(evaluating, "_evaluate", evaluate)
    ((stopped,), _) = runs_of("study")
    assert stopped.data.tags["stopped"] == "by the user"
    assert command.main(arguments(*one)) == 0
    ((finished,), _) = runs_of("study")
    assert "stopped" not in finished.data.tags
    output = " ".join(capsys.readouterr().out.split())
    assert "checkpoint.pt is damaged or not a checkpoint" in output and "goes on from gradient step" in output
    _, (run,) = runs_of("study")
    assert "checkpoint.pt is damaged" in run.data.tags["fault"]
    assert command.main(arguments(*one, name="undisturbed")) == 0
    assert returns_of("study") == returns_of("undisturbed")


def start(tracker, **more):
    tags = {study.STUDY_TAG: "s", study.HOST_TAG: study.socket.gethostname()}
    return tracker.start_parent(
        "main", params={}, tags=tags, given_text="g", resolved_text="A.b = 1\nA.c = 2\n", cells=KEYS, **more
    )


@pytest.fixture
def tracker():
    opened = Tracker.open(None, "study", period=0.05)
    yield opened
    opened.close(5)


def found(tracker, key="s"):
    assert tracker.outbox.flush(10)
    return study.find_interrupted(tracker.sink.client, tracker.sink.experiment_id, key)


def test_what_is_at_work_is_left_alone(tracker):
    parent = start(tracker)
    lock = study.hold(parent.key)
    assert lock is not None and found(tracker) is None
    lock.release()
    interrupted, held = found(tracker)
    assert interrupted.session == 1 and not interrupted.cells and found(tracker, "other") is None
    held.release()
    parent.finish("FINISHED")
    assert found(tracker) is None


def test_a_run_of_another_machine_is_gone_on_with_only_once_it_has_ended(tracker, monkeypatch):
    parent = start(tracker)
    monkeypatch.setattr(study.socket, "gethostname", lambda: "elsewhere")
    assert found(tracker) is None
    parent.finish("KILLED")
    assert found(tracker) is not None


@pytest.mark.parametrize("here", [True, False], ids=["from the study's file", "from MLflow, where the cache is gone"])
def test_finished_cells_are_kept_and_steps_are_not_logged_again(tracker, here):
    parent = start(tracker)
    runs = [parent.start_cell(key, params={}, tags={}) for key in KEYS]
    done = Evaluation(
        gradient_step=9, fraction=1.0, returns=(1.0, 2.0), asm_seconds=0, train_seconds=1, evaluation_seconds=1
    )
    for step in range(5):
        runs[1].metrics({"train/loss_policy": step}, step)
    early = attrs.evolve(done, fraction=0.5, gradient_step=4)
    evaluations = [(KEYS[0], early), (KEYS[0], done)]
    if here:
        for each in evaluations:
            parent.returns_file.add(*each)
    else:
        parent.publish(to_frame(evaluations, preset="laptop"), ReportMeta(experiment="study"))
    runs[0].finish("FINISHED")
    parent.finish("KILLED")
    interrupted, lock = found(tracker)
    assert interrupted.finished == {KEYS[0]: [early, done]} and list(interrupted.cells) == [KEYS[1]]

    again = start(tracker, interrupted=interrupted)
    assert again.run_id == parent.run_id and again.session == 2
    run = again.start_cell(KEYS[1], params={}, tags={})
    for step in range(3, 8):
        run.metrics({"train/loss_policy": step}, step)
    assert tracker.outbox.flush(10)
    assert steps_of(tracker.sink.client.get_run(runs[1].run_id))["train/loss_policy"] == list(range(8))
    assert tracker.sink.client.get_run(parent.run_id).info.status == "RUNNING"
    lock.release()


def test_what_changed_is_said(tracker):
    parent = start(tracker)
    assert tracker.outbox.flush(10)
    given = tracker.sink.client, tracker.sink.experiment_id
    assert study.changes_since(*given, "other", "A.b = 1\nA.c = 3\n") == ["-A.c = 2", "+A.c = 3"]
    assert study.changes_since(*given, "s", "A.c = 3\n") == []
    parent.finish("FINISHED")
    assert tracker.outbox.flush(10)
    assert study.changes_since(*given, "other", "A.c = 3\n") == []


def test_checkpoints_that_the_disk_does_not_take_are_done_without(shared_cache, capsys, monkeypatch):
    one = ("--set", "Experiment.policies=[@Factored()]")
    save, calls = spinrl_training.checkpoint.save_latest, []

    def full_for_a_while(state, path):
        calls.append(path)
        if len(calls) in (2, 3):
            raise spinrl_training.CheckpointError(f"{path} could not be written: No space left on device")
        save(state, path)

    monkeypatch.setattr(spinrl_training.checkpoint, "save_latest", full_for_a_while)
    assert command.main(arguments(*one)) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert output.count("No space left on device; training goes on") == 2
    _, (run,) = runs_of("study")
    assert "No space left" in run.data.tags["fault"] and run.info.status == "FINISHED"
    monkeypatch.setattr(spinrl_training.checkpoint, "save_latest", save)
    assert command.main(arguments(*one, name="undisturbed")) == 0
    assert returns_of("study") == returns_of("undisturbed")
