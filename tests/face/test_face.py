"""The library from Python: a training is that of a cell, and what is wrong is told in one line."""

import subprocess
import sys

import gymnasium
import mlflow
import numpy as np
import pytest
import torch

import spinrl
from harness.cells.events import Evaluated, Trained
from harness.cells.run_cell import run_cell
from harness.command_line import use_packaged_configs
from harness.experiment import Experiment
from spinrl import checkpoint
from spinrl.config import load
from tests.face.samples import ASM_STEPS, CHOICES, FITTED_Q_STEPS, PLAIN, START_STEPS, STEPS, arrays, fit


def equal(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(value, second[name]) for name, value in first.items() if isinstance(value, torch.Tensor))


def test_a_training_from_python_is_a_cells_to_the_digit(data, parts):
    train, held_out = parts
    policy = fit(train, spinrl.SPIN())
    use_packaged_configs()
    bindings = [
        "Experiment.tasks=['data']",
        f"Imported.store='{data.store.path}'",
        "Experiment.policies=[@SPIN()]",
        f"Training.gradient_steps={STEPS}",
        f"Pretraining.steps={ASM_STEPS}",
        f"MonteCarloCritics.steps={START_STEPS}",
        f"FittedQ.gradient_steps={FITTED_Q_STEPS}",
        "FittedQ.start_steps=4",
        "Evaluating.fractions=[0.5, 1.0]",
    ]
    experiment = load(Experiment, ["gin/own_data.gin"], bindings).value
    told, kept = [], {}

    def report(event):
        told.append(event)
        if isinstance(event, Trained):
            kept.update(checkpoint.load(event.path))

    (cell,) = experiment.cells()
    run_cell(experiment, cell, PLAIN.resolve(), report)
    assert cell.policy == policy.config  # the preset's values stand in the fields that were left at their defaults
    assert equal(kept["algorithm"], policy._algorithm.state_dict())
    estimators = experiment.evaluation.estimators
    ours = policy.estimate(held_out, estimators=estimators, progress=False)
    made = {each.evaluation.metric: each.evaluation for each in told if isinstance(each, Evaluated)}
    assert ours.keys() == made.keys()
    for name, found in ours.items():
        values = () if found.value is None else (found.value,)
        assert (values, found.remark) == (made[name].returns, made[name].remark)
        bounds = np.array([made[name].low, made[name].high], dtype=float)  # none has no bounds
        assert np.array_equal([found.low, found.high], bounds, equal_nan=True)


def test_importing_the_package_imports_no_torch_and_every_name_is_there():
    code = "import sys, spinrl; assert not {'torch', 'mlflow', 'mujoco'} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(getattr(spinrl, name) for name in spinrl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        spinrl.fitt  # noqa: B018


def test_a_policy_acts_on_one_and_on_many(factored):
    observations, allowed = arrays()["observations"][:6], np.ones((3, 5), bool)
    many = factored.act(observations)
    assert many.shape == (6, 3) and many.dtype == np.int64 and (many < CHOICES).all()
    assert (factored.act(observations[0]) == many[0]).all()
    drawn = factored.act(observations, sample=True, seed=3)
    assert (drawn == factored.act(observations, sample=True, seed=3)).all() and (drawn != many).any()
    allowed[2, many[0, 2]] = False
    other = factored.act(observations[0], allowed=allowed)
    assert other[2] != many[0, 2] and (other[:2] == many[0, :2]).all()
    assert factored.log_prob(observations, many).shape == (6,)
    assert factored.log_prob(observations[0], many[0]) == pytest.approx(factored.log_prob(observations, many)[0])


@pytest.mark.parametrize("policy", ["Factored", "Autoregressive", "SPIN"])
def test_a_sub_action_with_one_choice_is_carried_along(policy):
    given = arrays()
    given["actions"][:, 1] = 0
    train, held_out = spinrl.Dataset.from_arrays(**given, choices=[3, 1, 5]).split(0.1, seed=0)
    fitted = fit(train, getattr(spinrl, policy)())
    assert (fitted.act(given["observations"], sample=True, seed=0)[:, 1] == 0).all()
    joint = np.array(list(np.ndindex(3, 1, 5)))
    same = np.repeat(given["observations"][:1], len(joint), axis=0)
    assert np.exp(fitted.log_prob(same, joint)).sum() == pytest.approx(1, abs=1e-4)
    short = spinrl.FittedQ(gradient_steps=FITTED_Q_STEPS, start_steps=4, hidden=(16,))
    estimates = fitted.estimate(held_out, estimators=[spinrl.HeldOutLikelihood(), short], progress=False)
    assert len(estimates) == 2 and all(np.isfinite(each.value) for each in estimates.values())


def test_a_saved_policy_and_an_exported_one_are_the_same_policy(factored, tmp_path):
    observations = arrays()["observations"]
    factored.save(tmp_path / "policy")
    read = spinrl.load(tmp_path / "policy")
    assert equal(read.module.state_dict(), factored.module.state_dict()) and read.config == factored.config
    folder = read.export(tmp_path / "exported", formats=["safetensors"])
    code = "import numpy as np, run_safetensors as run; print(run.Policy('.').act(np.load('rows.npy'))[0].tolist())"
    np.save(folder / "rows.npy", observations[:5])
    acted = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True)
    assert acted.stdout.strip() == str(factored.act(observations[:5]).tolist())


def test_a_callback_stops_a_training_which_its_checkpoint_goes_on_with(parts, factored, tmp_path):
    told = []

    def stop(step, metrics):
        told.append((step, sorted(metrics)))
        return step < 8

    file = tmp_path / "training.pt"
    assert fit(parts[0], callback=stop, checkpoint=file).step == 8
    assert [step for step, _ in told] == [4, 8] and "train/loss_policy" in told[0][1]
    whole = fit(parts[0], checkpoint=file)
    assert whole.step == STEPS and equal(whole.module.state_dict(), factored.module.state_dict())
    with pytest.raises(spinrl.UserError, match="of a training with other data, configuration or seed"):
        fit(parts[0], checkpoint=file, seed=1)


def test_metrics_go_to_the_open_run_of_mlflow(parts, tmp_path):
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    with mlflow.start_run() as run:
        fit(parts[0])
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss_policy")
    assert [each.step for each in history] == list(range(4, STEPS + 1, 4))


def test_returns_are_those_of_an_environment(factored):
    class Clinic(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
        action_space = gymnasium.spaces.MultiDiscrete(CHOICES)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.left = 7
            return np.zeros(4, np.float32), {}

        def step(self, action):
            self.left -= 1
            return np.zeros(4, np.float32), 1.0, self.left == 0, False, {}

    score = factored.evaluate(Clinic(), episodes=3)
    assert score.values == (7.0, 7.0, 7.0) and score.mean == 7 and score.interval == (7, 7)
    Clinic.action_space = gymnasium.spaces.MultiDiscrete([3, 2])
    with pytest.raises(spinrl.UserError, match=r"takes actions of \[3, 2\] choices .* trained on \[3, 2, 5\] and 4"):
        factored.evaluate(Clinic())


def test_a_dataset_of_the_benchmark(tmp_path):
    data = spinrl.Dataset.from_task("finger-spin", "medium", transitions=50, progress=False)
    assert len(data) == 50 and data.choices == (3, 3)
    with pytest.raises(spinrl.UserError, match=r"tier must be one of medium, expert, .*found 'medum'"):
        spinrl.Dataset.from_task("finger-spin", "medum")


def test_a_dataset_of_a_file(data, tmp_path):
    given = arrays()
    columns = [f"x{entry}" for entry in range(4)], ["dose", "drug", "plan"]
    rows = np.column_stack([given["observations"], given["actions"], given["rewards"], given["terminals"]])
    header = ",".join([*columns[0], *columns[1], "reward", "terminal"])
    np.savetxt(tmp_path / "visits.csv", rows, delimiter=",", header=header, comments="", fmt="%.9g")
    meaning = {"observations": "x0..x3", "actions": columns[1]}
    read = spinrl.Dataset.from_file(tmp_path / "visits.csv", choices=CHOICES, ends="terminal", columns=meaning)
    assert (read.store.data["transitions", "action"] == data.store.data["transitions", "action"]).all()
    assert read.returns == pytest.approx(data.returns)
    with pytest.raises(spinrl.UserError, match=r"columns=\{'observations': 'NAME'\}") as refused:
        spinrl.Dataset.from_file(tmp_path / "visits.csv", choices=CHOICES, ends="terminal")
    assert "--" not in str(refused.value)
