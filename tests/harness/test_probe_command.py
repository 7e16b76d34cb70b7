"""The probe's command line: every setting probed and logged once, and every fault with exit code 2."""

import os
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from harness import probe as command
from harness import report
from harness.command_line import config_root
from harness.experiment import Experiment
from spinrl.config import load
from spinrl.config.registry import ConfigError

LINEAR_PROBE = config_root() / "gin" / "experiments" / "linear_probe.gin"
SMALL = (
    "Experiment.tasks=['cheetah-run']",
    "Pretraining.steps=3",
    "Pretraining.batch_size=16",
    "ASMEncoder.d_model=16",
    "LinearProbe.transitions=200",
    "LinearProbe.steps=5",
)
TWO_EPISODES = (*SMALL, "expert/Tier.transitions=2000", "Experiment.seeds=[0, 1]")
HALF_AN_EPISODE = (*SMALL, "expert/Tier.transitions=400", "Experiment.seeds=[0]")


def with_bindings(*bindings):
    return ["--gin", str(LINEAR_PROBE), *(word for binding in bindings for word in ("--set", binding))]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # MLflow keeps a store of a relative path open across a change of folder: each test names its own.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.slow
def test_every_setting_is_probed_and_logged(shared_cache, capsys):
    assert command.main(with_bindings(*TWO_EPISODES)) == 0
    output = capsys.readouterr().out
    assert "cheetah-run, 3 bins, expert, laptop preset: 2 seeds, 40 held-out transitions" in output
    assert "trained" in output and "random" in output and "±" in output

    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([client.get_experiment_by_name("linear_probe").experiment_id])
    assert sorted(run.data.tags["seed"] for run in runs) == ["0", "1"]
    assert report.main(["--experiment", "linear_probe"]) == 0
    page, text = Path("report/report.html").read_text(), Path("report/report.md").read_text()
    assert "cheetah-run, 3 bins, expert, laptop preset: 2 seeds" in page and "data:image/svg+xml" in page
    assert len([line for line in text.splitlines() if line.startswith(("| trained |", "| random |"))]) == 4
    assert text.count("| trained, dog (paper) |") == 1  # not again for each input
    assert "LinearProbe.transitions = 200" in page and len(pd.read_csv("report/probe.csv")) == 8
    for run in runs:
        assert run.info.status == "FINISHED" and run.data.tags["spinrl.role"] == "probe"
        assert {"dataset_fingerprint", "asm_fingerprint", "git_commit", "preset", "tier"} <= set(run.data.tags)
        assert run.data.params["probe.transitions"] == "200"
        assert run.data.tags["command"].startswith("python -m harness.probe --gin ")
        own = client.download_artifacts(run.info.run_id, "report/report.md", str(shared_cache))
        assert "cheetah-run, 3 bins, expert, laptop preset: 1 seed," in Path(own).read_text()
        path = client.download_artifacts(run.info.run_id, "probe.csv", str(shared_cache))
        table = pd.read_csv(path)
        assert list(zip(table["asm"], table["input"], strict=True)) == [
            (asm, what) for asm in ("trained", "random") for what in ("others", "observation")
        ]
        slots = table[[f"slot_accuracy_{slot}" for slot in range(6)]]
        assert slots.mean(axis=1).tolist() == pytest.approx(table["slot_accuracy"].tolist())
        assert slots.prod(axis=1).tolist() == pytest.approx(table["independence"].tolist())
        for row in table.itertuples():
            for share in ("slot_accuracy", "majority_accuracy", "independence", "exact_match"):
                assert run.data.metrics[f"probe/{share}_{row.asm}_{row.input}"] == getattr(row, share)

    # Again, from the cache: nothing is collected or pre-trained.
    assert command.main(with_bindings(*TWO_EPISODES)) == 0
    again = capsys.readouterr().out
    assert "collecting" not in again and "pre-training" not in again
    table_of = [text[text.index("cheetah-run, 3 bins") : text.index("to compare")] for text in (output, again)]
    assert table_of[0] == table_of[1]


@pytest.mark.slow
def test_a_dataset_of_one_episode_fails_its_probes_in_one_line(shared_cache, capsys):
    assert command.main(with_bindings(*HALF_AN_EPISODE)) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "failed: cheetah-run/3 expert probe s0: a probe needs two episodes" in output


def test_one_probe_a_setting_however_many_policies():
    grid = load(Experiment, [LINEAR_PROBE, config_root() / "gin" / "policies" / "all.gin"], []).value
    keys = [cell.key for cell in command.probed_cells(grid)]
    assert [(key.task, key.tier, key.seed) for key in keys] == [("humanoid-stand", "expert", seed) for seed in range(3)]


def test_a_dry_run_prints_the_probes_and_makes_nothing(tmp_path, capsys):
    assert command.main([*with_bindings(*TWO_EPISODES), "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "LinearProbe.transitions = 200" in output and "nothing was probed" in output
    assert "probe 2: cheetah-run/3 expert probe s1: dataset and ASM to be made" in output
    assert not list(tmp_path.iterdir())


def test_a_probe_asks_for_an_asm_and_for_nothing_else_of_the_policies(tmp_path, capsys):
    blind = with_bindings("ASMEncoder.state_conditioning=False")  # which SPIN.cached could not be trained on
    assert command.main([*blind, "--dry-run"]) == 0
    capsys.readouterr()
    reference = ("Experiment.policies=[@Factored()]", "Experiment.pretraining=@ReferenceASM()")
    missing = with_bindings(*reference, "ReferenceASM.checkpoint='no.pt'", "Experiment.standardize_observations=False")
    assert command.main(missing) == 2
    assert "no.pt does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--gin gin/experiments/linear_probe.gin"),
        (with_bindings("LinearProbe.transition=5"), "did you mean transitions"),
        (with_bindings("LinearProbe.held_out=1.0"), "LinearProbe.held_out must be"),
        (with_bindings("LinearProbe.transitions=1"), "LinearProbe.transitions must be"),
        (with_bindings("Experiment.probe=@SPIN()"), "which is a policy"),
        (with_bindings("Experiment.bins=[7]"), "tools.train_behavior"),
        (["--gin", "gin/experiments/linear_prob.gin"], "no such file"),
        ([*with_bindings(), "--tracking-uri", "http://127.0.0.1:9"], "127.0.0.1:9"),
    ],
)
def test_what_is_given_wrong_is_one_line(arguments, message, tmp_path, capsys):
    assert command.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not list(tmp_path.iterdir())


def test_bindings_of_the_probe_reach_it():
    grid = load(Experiment, [LINEAR_PROBE], ["LinearProbe.held_out=0.5"]).value
    assert grid.probe.held_out == 0.5
    with pytest.raises(ConfigError):
        load(Experiment, [LINEAR_PROBE], ["LinearProbe.held_out='half'"])
