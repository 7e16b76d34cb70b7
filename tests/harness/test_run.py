"""The command line on the real chain: a smoke run, a resumed one, a stopped one, and every fault with exit code 2."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from harness import run as command
from harness.cells.identity import study_key
from harness.command_line import load_configuration
from harness.experiment import Experiment
from harness.tracking.read_back import load_results
from spinrl.config import load
from spinrl.data import Store
from spinrl.data.importers.published import DATA_DIR
from tests.data.importers.test_published import transitions, write

ROOT = Path(command.__file__).resolve().parent.parent
ARGUMENTS = ["--gin", "gin/spin_humanoid.gin", "--smoke"]
ONE_TIER = ["--set", "Experiment.tiers=['expert']"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # MLflow keeps a store of a relative path open across a change of folder: each test names its own.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.slow
def test_the_real_chain_on_every_policy(shared_cache, capsys):
    left_by_others = set((shared_cache / "cells").glob("*/checkpoint.pt"))  # which kill what they run
    assert command.main([*ARGUMENTS, *ONE_TIER, "--gin", "gin/policies/all.gin"]) == 0
    output = capsys.readouterr().out
    assert "mlflow ui --backend-store-uri" in output and "took" in output

    table, meta = load_results(None, "spin_humanoid-smoke")
    assert set(table["policy"]) == {"factored", "autoregressive", "saint", "spin"}
    assert len(table) == 4 * 2 * 2  # policies × fractions × episodes
    assert table["return"].between(0, 50).all()  # 50 steps of at most 1
    assert set(table["preset"]) == {"smoke"}
    assert (table[table["policy"] == "spin"]["asm_seconds"] > 0).all()
    assert (table[table["policy"] != "spin"]["asm_seconds"] == 0).all()
    assert meta.references["humanoid-stand", 3].expert == 711.9

    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("spin_humanoid-smoke")
    runs = client.search_runs([experiment.experiment_id])
    assert {each.info.status for each in runs} == {"FINISHED"}
    (parent,) = [each for each in runs if each.data.tags["spinrl.role"] == "experiment"]
    cells = [each for each in runs if each.data.tags["spinrl.role"] == "cell"]
    assert {each.data.tags["mlflow.parentRunId"] for each in cells} == {parent.info.run_id}
    spin = next(each for each in cells if each.data.tags["policy"] == "spin")
    assert {"task", "tier", "bins", "algorithm", "seed", "dataset_fingerprint", "asm_fingerprint", "git_commit"} <= set(
        spin.data.tags
    )
    assert {"eval/return_mean", "eval/normalized_score", "eval/budget_fraction", "time/asm_seconds"} <= set(
        spin.data.metrics
    )
    assert spin.data.metrics["time/embedding_seconds"] > 0 and list((shared_cache / "features").iterdir())
    assert [m.step for m in client.get_metric_history(spin.info.run_id, "eval/return_mean")] == [10, 20]
    assert spin.inputs.dataset_inputs[0].dataset.digest == spin.data.tags["dataset_fingerprint"]
    assert [file.path for file in client.list_artifacts(spin.info.run_id, "checkpoint")] == ["checkpoint/checkpoint.pt"]
    assert {"config", "report", "returns.csv"} <= {file.path for file in client.list_artifacts(parent.info.run_id)}
    report = {Path(file.path).suffix for file in client.list_artifacts(parent.info.run_id, "report")}
    assert {".md", ".html", ".png", ".svg"} <= report
    text = Path(client.download_artifacts(parent.info.run_id, "report/report.md", str(shared_cache))).read_text()
    assert "- status: FINISHED" in text and "SPIN.cached = True" in text
    assert parent.data.tags["command"].startswith(
        "python -m harness.run --gin gin/spin_humanoid.gin --gin gin/policies/all.gin --set"
    )
    assert set((shared_cache / "cells").glob("*/checkpoint.pt")) <= left_by_others


@pytest.mark.slow
def test_cells_run_side_by_side_where_threads_allow_it_without_being_told_to(shared_cache):
    factored = ["--gin", "gin/policies/factored.gin", "--set", "Experiment.tiers=['medium', 'expert']"]
    assert command.main([*ARGUMENTS, *factored, "--set", "Machine.threads=2"]) == 0
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("spin_humanoid-smoke")
    first, second = client.search_runs([experiment.experiment_id], "tags.`spinrl.role` = 'cell'")
    assert max(first.info.start_time, second.info.start_time) < min(first.info.end_time, second.info.end_time)


@pytest.mark.slow
def test_a_report_that_cannot_be_drawn_costs_no_run(undrawn, shared_cache, capsys, monkeypatch):
    monkeypatch.setattr("harness.study.log_report", lambda *_: 1 / 0)
    assert command.main([*ARGUMENTS, *ONE_TIER, "--set", "Experiment.policies=[@Factored()]"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "python -m harness.report --experiment spin_humanoid-smoke tries again" in said
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([client.get_experiment_by_name("spin_humanoid-smoke").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2 and len(load_results(None, "spin_humanoid-smoke")[0])


def test_the_command_is_kept_without_where_it_logs_to():
    given = ["--gin", "a.gin", "--tracking-uri", "http://me:secret@host", "--set", "IQL.gamma=0.9", "--smoke"]
    options = command.parser().parse_args(given)
    assert command.command_line(options) == "python -m harness.run --gin a.gin --set IQL.gamma=0.9 --smoke"


def test_one_cell_alone_is_found_by_its_name_and_is_a_study_of_its_own():
    command.use_packaged_configs()
    options = command.parser().parse_args(
        ["--gin", "gin/spin_humanoid.gin", "--cell", "humanoid-stand/3 expert spin-iql s0"]
    )
    experiment = load_configuration(Experiment, options, "").value
    (cell,) = command.chosen_cells(experiment, options.only)
    assert cell.key.tier == "expert"
    assert command.command_line(options).endswith(" --cell 'humanoid-stand/3 expert spin-iql s0'")
    other = "humanoid-stand/3 medium spin-iql s0"  # of several, each one's own run names that one alone
    assert command.command_line(options, [other]).count("--cell") == 1
    assert command.command_line(options, [other]).endswith(f" --cell '{other}'")
    assert study_key(experiment, [cell]) != study_key(experiment, experiment.cells())
    with pytest.raises(ValueError, match="did you mean humanoid-stand/3 expert spin-iql s0"):
        command.chosen_cells(experiment, ["humanoid-stand/3 expert spin-iql s1"])


def test_one_cell_alone_is_what_a_dry_run_shows(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SPINRL_HOME", str(tmp_path))
    label = "humanoid-stand/3 expert spin-iql s0"
    assert command.main(["--gin", "gin/spin_humanoid.gin", "--smoke", "--cell", label, "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert f"cell 1: {label}" in output and "cell 2" not in output


def test_where_cells_run_makes_no_other_study():
    command.use_packaged_configs()
    keys = []
    for more in ([], ["--launcher", "ray", "--address", "10.0.0.1:6379"], ["--launcher", "slurm"]):
        options = command.parser().parse_args(["--gin", "gin/spin_humanoid.gin", *more])
        experiment = load_configuration(Experiment, options, "", command.launcher_bindings(options)).value
        assert type(experiment.launcher).__name__.lower() == (more[1] if more else "local")
        keys.append(study_key(experiment, experiment.cells()))
    assert len(set(keys)) == 1


def test_what_changes_no_number_makes_no_other_study_and_no_other_cell():
    command.use_packaged_configs()

    def key(*bindings):
        given = [part for binding in bindings for part in ("--set", binding)]
        options = command.parser().parse_args(["--gin", "gin/spin_humanoid.gin", *given])
        experiment = load_configuration(Experiment, options, "").value
        return study_key(experiment, experiment.cells())

    same = ("Training.report_every=7", "Experiment.collection_processes=1", "Experiment.probe=@LinearProbe()")
    assert {key(each) for each in (*same, "Pretraining.report_every=7")} == {key()}
    for other in ("Training.batch_size=7", "Experiment.data_seed=1", "Experiment.critic_start=None"):
        assert key(other) != key()


@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_jobs_want_a_number_from_one(jobs, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--gin", "gin/spin_humanoid.gin", "--jobs", jobs])
    assert ended.value.code == 2 and "--jobs" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_seed_gives_the_same_returns(shared_cache):
    returns = []
    for _ in range(2):
        assert command.main([*ARGUMENTS, *ONE_TIER]) == 0
        table, _ = load_results(None, "spin_humanoid-smoke")
        returns.append(table["return"].tolist())
    assert returns[0] == returns[1]


@pytest.mark.slow
def test_ctrl_c_leaves_a_readable_run_marked_as_stopped_that_goes_on(undrawn, shared_cache, capsys):
    # Two threads wait for each other where another process has a core.
    one_thread = ["--set", "Machine.threads=1", "--set", "Machine.compile=False"]
    long = ["--gin", "gin/spin_humanoid.gin", "--gin", str(_smoke_sizes()), *ONE_TIER, *one_thread]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "harness.run", *long], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "of the budget" in line:
                break
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 130
    finally:
        process.kill()
    assert "stopped" in rest
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([client.get_experiment_by_name("long").experiment_id])
    assert {each.info.status for each in runs} == {"KILLED"}
    table, _ = load_results(None, "long")
    assert len(table) == 1

    assert command.main([*long, "--set", "Training.report_every=200"]) == 0
    assert "goes on from gradient step" in " ".join(capsys.readouterr().out.split())


def _smoke_sizes() -> Path:
    """A gin file of small sizes whose training takes long enough to be stopped in."""
    path = Path("small.gin")
    path.write_text(
        "Experiment.name = 'long'\nexpert/Tier.transitions = 400\nPretraining.steps = 2\nPretraining.batch_size = 16\n"
        "ASMEncoder.d_model = 16\nASMEncoder.num_blocks = 1\nMonteCarloCritics.steps = 2\n"
        "Training.gradient_steps = 700\nTraining.batch_size = 16\n"
        "Evaluating.fractions = [0.01, 1.0]\nEvaluating.episodes = 1\nEvaluating.final_episodes = 1\n"
        "Evaluating.episode_steps = 5\n"
    )
    return path


def fails(arguments, capsys):
    """Exit code 2, one line on stderr, and nothing left behind."""
    before = set(Path().rglob("*"))
    assert command.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error and "\n" not in error and "Traceback" not in error
    assert set(Path().rglob("*")) == before
    return error


REFERENCE_ASM = ["--set", "Experiment.pretraining=@ReferenceASM()", "--set", "ReferenceASM.checkpoint='asm.pt'"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "IQL.expektile=0.7"], "did you mean expectile"),
        (["--set", "Masking.probability=0.6"], "least is what counts there"),
        (
            ["--gin", "gin/own_data.gin", "--set", "FittedQ.fractions=[0.2, 1.0]"],
            r"got \[0.2\]; add them to Eval",
        ),
        (["--set", "IQL.expectile=1.7"], "IQL.expectile must be a float above 0 and below 1; found 1.7"),
        (["--set", "IQL.expectile='high'"], "IQL.expectile must be a float"),
        (["--gin", "gin/polices/saint.gin"], "no such file"),
        (["--set", "Experiment.tasks=['humanoid-stnad']"], "did you mean 'humanoid-stand'"),
        (["--set", "Experiment.tiers=['exprt']"], "did you mean 'expert'"),
        (["--set", "Experiment.bins=[1]"], "from 2 to 100"),
        (["--set", "Experiment.bins=[7]"], r"tools\.train_behavior --task humanoid-stand --bins 7"),
        (["--set", "Experiment.policies=[@IQL()]"], "which is a"),
        (["--set", "Machine.device='cuda'"], "CUDA"),
        (["--set", "ASMEncoder.state_conditioning=False"], "set SPIN.cached=False"),
        (REFERENCE_ASM, "standardize_observations=False"),
        ([*REFERENCE_ASM, "--set", "Experiment.standardize_observations=False"], "asm.pt does not exist"),
    ],
)
def test_a_wrong_configuration_is_named_before_anything_runs(arguments, message, capsys):
    if "cuda" in arguments[-1] and shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU")
    assert re.search(message, fails(["--gin", "gin/spin_humanoid.gin", *arguments], capsys))


def test_no_gin_file_says_what_to_give(capsys):
    assert "--gin gin/spin_humanoid.gin" in fails([], capsys)


def test_a_server_that_is_not_there_is_named_at_the_start(shared_cache, capsys):
    error = fails([*ARGUMENTS, *ONE_TIER, "--tracking-uri", "http://127.0.0.1:9"], capsys)
    assert "127.0.0.1:9" in error


def test_a_full_disk_is_named_before_anything_runs(monkeypatch, capsys):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "SPINRL_HOME" in fails(["--gin", "gin/spin_humanoid.gin"], capsys)


@pytest.mark.slow
def test_what_is_damaged_in_the_cache_is_named_and_made_anew(undrawn, shared_cache, tmp_path, monkeypatch, capsys):
    """A byte altered in every file of data that a run uses: the same returns, and each of them named."""
    assert command.main([*ARGUMENTS, *ONE_TIER]) == 0
    before, _ = load_results(None, "spin_humanoid-smoke")
    home = tmp_path / "damaged"
    shutil.copytree(shared_cache, home)
    monkeypatch.setenv("SPINRL_HOME", str(home))
    folders = [path.parent for name in ("asm.safetensors", "features.bin") for path in home.rglob(name)]
    folders += [path.parent for path in home.rglob("metadata.json")]
    for folder in folders:
        largest = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 255
        largest.write_bytes(content)
    for folder in (home / "stores").glob("[!.]*"):
        if folder.is_dir():
            Store.open(folder)  # sizes alone do not tell
    capsys.readouterr()
    assert command.main([*ARGUMENTS, *ONE_TIER]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert output.count("it is made anew") >= 4  # the tier, its source, the ASM and its features
    after, _ = load_results(None, "spin_humanoid-smoke")
    assert after["return"].tolist() == before["return"].tolist()
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("spin_humanoid-smoke").experiment_id])
    assert any("it is made anew" in run.data.tags.get("fault", "") for run in runs)


def test_the_published_files_take_the_place_of_the_tiers(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(DATA_DIR, str(tmp_path / "published"))
    files = ["gin/spin_humanoid.gin", "gin/tasks/cheetah_run.gin", "gin/data/published.gin"]
    arguments = ["--dry-run", "--smoke", *(part for file in files for part in ("--gin", file))]
    assert command.main(arguments) == 2
    assert "there is no file" in (error := capsys.readouterr().err) and "3_bins/cheetah-run-medium" in error
    names = [f"3_bins/cheetah-run-{tier}" for tier in ("medium", "medium-expert", "random-medium-expert", "expert")]
    for seed, name in enumerate(names):
        write(tmp_path, transitions(60, seed=seed), name=name)
    assert command.main(arguments) == 0
    assert "cell 4: cheetah-run/3 expert spin-iql" in capsys.readouterr().out
    experiment = load(Experiment, files).value
    stores = [experiment.dataset(cell).store() for cell in experiment.cells()]
    assert [store.metadata.sources[0].behavior for store in stores] == [f"published {name}" for name in names]
    assert {len(store) for store in stores} == {60} and len({store.fingerprint for store in stores}) == 4


def test_a_dry_run_prints_everything_and_trains_nothing(shared_cache, capsys):
    assert command.main([*ARGUMENTS, "--dry-run", "--jobs", "2", "--set", "Local.together=2"]) == 0
    output = capsys.readouterr().out
    told = ("IQL.expectile = 0.8", "cell 4: humanoid-stand/3 expert spin-iql", "2 at a time, 2 in a process", "trained")
    for text in (*told, "GiB of memory"):
        assert text in output
    assert not Path("mlflow.db").exists()


def test_the_list_names_every_component_and_field(capsys):
    assert command.main(["--list"]) == 0
    output = capsys.readouterr().out
    for text in ("SPIN", "slot_queries", "IQL", "expectile", "Pretraining", "Masking", "Experiment"):
        assert text in output
