"""From a finished run to a folder and a served model; whatever cannot be exported is one line and exit code 2."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from harness import run as harness_run
from harness.exporting.card import data_licence
from harness.exporting.finished import finished_cell, simulated
from spinrl import checkpoint
from spinrl.data.importers.published import import_published
from spinrl.export import load_runner
from spinrl.tasks import BatchedEnvironment, get_task
from spinrl.tasks.rendering import Drawing, RenderingError
from tests.data.importers.test_published import transitions, write
from tests.harness.exporting.test_reference_cell import factored_checkpoint
from tools import export_policy, render_policy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A smoke run's store, the ids of its runs by name, and the checkpoint file of its SPIN cell."""
    folder = tmp_path_factory.mktemp("finished")
    uri = f"sqlite:///{folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SPINRL_HOME", str(folder / "home"))
        wanted = ("Experiment.tasks=['cheetah-run']", "Experiment.tiers=['expert']", "Machine.threads=1")
        arguments = [word for binding in wanted for word in ("--set", binding)]
        given = ["--gin", "gin/spin_humanoid.gin", "--smoke", "--jobs", "1", "--tracking-uri", uri, *arguments]
        assert harness_run.main(given) == 0
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("spin_humanoid-smoke")
    runs = {run.data.tags["spinrl.role"]: run for run in client.search_runs([experiment.experiment_id])}
    path = Path(client.download_artifacts(runs["cell"].info.run_id, "checkpoint/checkpoint.pt", str(folder)))
    return uri, {role: run.info.run_id for role, run in runs.items()}, path, folder / "home"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch, finished):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", finished[0])
    monkeypatch.setenv("SPINRL_HOME", str(finished[3]))


def test_a_run_becomes_a_folder_that_acts_alike(finished, tmp_path, capsys):
    _, ids, path, _ = finished
    arguments = [ids["cell"], "--out", "exported", "--format", "safetensors", "--format", "pt2", "--latency"]
    assert export_policy.main(arguments) == 0
    output = capsys.readouterr().out
    assert "observations of its dataset" in " ".join(output.split()) and "99th percentile" in output
    out = tmp_path / "exported"
    assert {each.name for each in out.iterdir()} == {
        *("card.json", "example.json", "policy.safetensors", "greedy.pt2", "sample.pt2"),
        *("run_safetensors.py", "run_pt2.py", "torch_policy.py"),
    }
    card = json.loads((out / "card.json").read_text())
    assert (card["task"], card["nvec"], card["observation_layout"]) == (
        "cheetah-run",
        [3] * 6,
        {"position": 8, "velocity": 9},
    )
    assert card["control_values"][0] == [-1.0, 0.0, 1.0]
    # The same episodes with the same noise: the simulator sees the same actions.
    cell = finished_cell(str(path))
    for returns in card["exported_returns"].values():
        assert len(returns) == 10 and returns[:2] == pytest.approx(card["returns"])
    assert card["returns"] == list(cell.final.returns)
    assert card["data_licence"].startswith("made by spinrl")
    observations = torch.tensor(json.loads((out / "example.json").read_text()))
    expected = cell.policy.mode(observations)
    assert np.array_equal(load_runner(out, "safetensors").act(observations)[0], expected)
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


def test_a_run_and_what_was_exported_of_it_are_filmed(finished, tmp_path, capsys):
    _, ids, path, _ = finished
    assert export_policy.main([str(path), "--out", "exported", "--format", "safetensors"]) == 0
    capsys.readouterr()
    try:
        Drawing(BatchedEnvironment(get_task("cheetah-run"), 3, 1).simulators[0].physics).close()
    except RenderingError as error:
        pytest.skip(str(error))
    for source in (ids["cell"], "exported"):
        assert render_policy.main([source, "--out", f"{source}.mp4", "--steps", "50", "--seed", "0"]) == 0
        said = capsys.readouterr().out
        expected = simulated(
            finished_cell(str(path)).policy, finished_cell(str(path)).key, 1, action="sample", steps=50
        )
        assert said.startswith(f"return {expected[0]:.1f} in 50 steps"), (said, expected)
        assert Path(f"{source}.mp4").stat().st_size > 1000
        assert imread(f"{source}.png").shape[:2] == (240, 8 * 320)


def test_without_its_dataset_it_is_compared_on_an_episode_of_its_own(finished, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SPINRL_HOME", str(tmp_path / "empty"))
    assert export_policy.main([str(finished[2].parent), "--out", "exported", "--format", "safetensors"]) == 0
    assert "an episode of its own" in " ".join(capsys.readouterr().out.split())
    assert "not in the cache here" in json.loads(Path("exported/card.json").read_text())["data_licence"]


def test_a_card_does_not_call_published_data_ours(tmp_path):
    store = import_published(write(tmp_path, transitions()), tmp_path / "store")
    assert data_licence(store) == "as the imported data has it (published 3_bins/cheetah-run-medium)"


def _post(port, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_registered_model_is_served(finished, tmp_path, capsys):
    uri, ids, _, _ = finished
    before = mlflow.MlflowClient(uri).get_run(ids["cell"]).info
    given = [ids["cell"], "--out", "exported", "--format", "onnx", "--register", "cheetah"]
    assert export_policy.main(given) == 0
    assert "models:/cheetah/1" in capsys.readouterr().out
    after = mlflow.MlflowClient(uri).get_run(ids["cell"]).info
    assert (after.status, after.end_time) == (before.status, before.end_time) and before.status == "FINISHED"
    runner = load_runner(tmp_path / "exported", "onnx")
    observations = np.array(json.loads((tmp_path / "exported" / "example.json").read_text()))
    action, control, logits = runner.act(observations)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["mlflow", "models", "serve", "-m", "models:/cheetah/1", "--env-manager", "local", "-p", str(port)]
    # MLflow starts uvicorn by name, which is found in an environment that is not activated only by this path.
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    server = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=os.environ | {"PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).read()
                break
            except OSError:
                time.sleep(0.5)
        rows = [{"observation": row.tolist()} for row in observations]
        status, answer = _post(port, {"dataframe_records": rows})
        assert status == 200
        assert [row["action"] for row in answer["predictions"]] == action.tolist()
        np.testing.assert_allclose([row["control"] for row in answer["predictions"]], control)
        np.testing.assert_allclose([row["logits"] for row in answer["predictions"]], logits, atol=1e-6)
        forbidden = np.ones((6, 3), bool)
        forbidden[0, action[0, 0]] = False
        _, answer = _post(port, {"dataframe_records": [{**rows[0], "allowed": forbidden.tolist()}]})
        assert answer["predictions"][0]["action"][0] != action[0, 0]
        assert answer["predictions"][0]["logits"][0][action[0, 0]] is None
        status, answer = _post(port, {"dataframe_records": [{"observation": [0.0, 1.0]}]})
        assert status == 400 and "observation must be numbers (B, 17)" in answer["message"]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)
    # As code and data: nothing in it is a pickle.
    artifacts = Path(mlflow.artifacts.download_artifacts("models:/cheetah/1", tracking_uri=uri, dst_path=str(tmp_path)))
    assert {path.suffix for path in artifacts.rglob("*") if path.is_file()}.isdisjoint({".pkl", ".pickle", ".pt"})


def damaged(path, tmp_path, change):
    state = checkpoint.load(path)
    change(state)
    checkpoint.save(state, tmp_path / "checkpoint" / "checkpoint.pt")
    return str(tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("format_version"), "has format None, and this version exports format 2"),
        (lambda state: state.update(format_version=1), "has format 1, and this version exports format 2; export with"),
        (lambda state: state.update(step=10), "stopped at 10 of 20 gradient steps"),
        (lambda state: state["cell"].update(asm_fingerprint="another"), "these weights came from ASM"),
        (lambda state: state["cell"].update(nvec=[3] * 5), "are not those of cheetah-run"),
        (
            lambda state: state["cell"].update(task="finger-spin"),
            "does not fit together: .*are not those of finger-spin",
        ),
        (
            lambda state: state["algorithm"].update({"policy.encoder.standardizer.mean": torch.zeros(3)}),
            "does not fit together: .*size mismatch for policy.encoder.standardizer.mean",
        ),
        (lambda state: state["algorithm"].pop("policy.slot_queries"), "does not fit together: .*slot_queries"),
        (lambda state: state.pop("evaluations"), "does not fit together: 'evaluations'"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(change, message, finished, tmp_path, capsys):
    source = damaged(finished[2], tmp_path, change)
    assert export_policy.main([source, "--out", "exported"]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(message, error) and "\n" not in error
    assert not (tmp_path / "exported").exists()


def test_a_damaged_file_is_refused(finished, tmp_path, capsys):
    content = finished[2].read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(content[: len(content) // 2])
    assert export_policy.main(["checkpoint.pt", "--out", "exported"]) == 2
    assert "checkpoint.pt is damaged or not a checkpoint" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "nonsense is no checkpoint file or folder, and no run"),
        (["{experiment}"], "is a whole experiment; give one of its cells: {cell}"),
        (["nowhere.pt"], "nowhere.pt does not exist"),
        (["{cell}", "--tracking-uri", "sqlite:///none.db"], "there is no MLflow store at sqlite:///none.db"),
        (["{cell}", "--tracking-uri", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["{cell}", "--format", "pt2", "--register", "x"], "add --format onnx"),
        (["{cell}", "--register", "a/b"], "--register must be a name without / and :; found 'a/b'"),
        (["{file}", "--register", "x"], "--register needs the run id"),
    ],
)
def test_what_is_given_wrong_is_one_line(arguments, message, finished, tmp_path, capsys):
    names = {**finished[1], "file": finished[2]}
    assert export_policy.main([*(word.format(**names) for word in arguments), "--out", "exported"]) == 2
    error = capsys.readouterr().err.strip()
    assert message.format(**names) in error and "\n" not in error
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_one_line(finished, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export_policy.main([finished[1]["cell"], "--out", "exported"]) == 2
    assert capsys.readouterr().err.strip() == "format onnx needs onnxruntime: pip install 'spinrl[export]'"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(finished, capsys):
    assert export_policy.main([finished[1]["cell"], "--out", "nowhere/exported"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err


def test_an_output_folder_that_exists_is_left_alone(finished, tmp_path, capsys):
    (tmp_path / "exported").mkdir()
    assert export_policy.main([finished[1]["cell"], "--out", "exported"]) == 2
    assert "exported exists already" in capsys.readouterr().err
    assert not list((tmp_path / "exported").iterdir())


def test_a_difference_is_shown_and_nothing_is_written(finished, monkeypatch, tmp_path, capsys):
    """A runner that decides otherwise: the last place where a defect of a format can be caught."""
    real = export_policy.load_runner

    def shifted(folder, name):
        runner = real(folder, name)
        act = runner.act
        runner.act = lambda *inputs: ((parts := act(*inputs))[0], parts[1], parts[2] + 1e-3)
        return runner

    monkeypatch.setattr(export_policy, "load_runner", shifted)
    assert export_policy.main([finished[1]["cell"], "--out", "exported", "--format", "safetensors"]) == 2
    assert "differs from the trained policy on dataset" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_unfinished_run_is_refused(finished, capsys):
    uri, ids, _, _ = finished
    client = mlflow.MlflowClient(uri)
    run = client.create_run(client.get_run(ids["cell"]).info.experiment_id, run_name="under way")
    assert export_policy.main([run.info.run_id, "--out", "exported"]) == 2
    assert "under way) is RUNNING; only a FINISHED run can be exported" in capsys.readouterr().err
    shutil.rmtree("exported", ignore_errors=True)


def test_a_checkpoint_of_the_reference_code_becomes_a_folder(tmp_path, capsys):
    factored_checkpoint(tmp_path / "theirs.pt")
    bindings = (
        "Experiment.tasks=['finger-spin']",
        "Experiment.tiers=['expert']",
        "Experiment.policies=[@Factored()]",
        "Factored.hidden=[16, 16]",
        "Evaluating.episode_steps=30",
    )
    given = ["theirs.pt", "--out", "exported", "--format", "safetensors"]
    given += [word for binding in bindings for word in ("--set", binding)]
    assert export_policy.main(given) == 2
    assert "give --gin FILE too" in capsys.readouterr().err
    files = ["--gin", "gin/spin_humanoid.gin", "--gin", "gin/scale/paper.gin"]
    assert export_policy.main(["theirs.pt", "--out", "exported", "--register", "humanoid", *files]) == 2
    refused = capsys.readouterr()
    assert "--register needs the run id of a cell" in refused.err and "evaluating" not in refused.out
    given += files
    assert export_policy.main(given) == 0, capsys.readouterr().err
    card = json.loads((tmp_path / "exported" / "card.json").read_text())
    assert card["source"] == "theirs.pt, of the public reference code"
    assert (card["gradient_steps"], card["dataset_fingerprint"], card["asm_fingerprint"]) == (None, None, None)
    assert card["exported_returns"]["safetensors"] == card["returns"]
