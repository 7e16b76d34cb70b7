"""The benchmark compares only what it measured itself."""

import json

import pytest

from tools import benchmark
from tools.benchmark import Row, ratios


def row(of, per_second, what="update", **changed):
    setting = {"task": "cheetah-run", "threads": 1, "precision": "fp32", "compile": False, "capture": False} | changed
    return Row(what=what, of=of, per_second=per_second, share=1.0, **setting)


def found(rows):
    return {(ratio.what, ratio.this, ratio.than): ratio.times for ratio in ratios(rows)}


def test_policies_are_compared_with_factored_and_cached_with_uncached_within_one_setting():
    updates = [row("Factored", 100.0), row("SPIN", 4.0), row("SPIN cached", 80.0), row("ASM", 1.0)]
    assert found([*updates, row("Factored", 20.0, "act"), row("SPIN", 5.0, "act")]) == {
        ("update", "SPIN", "Factored"): 0.04,
        ("update", "SPIN cached", "Factored"): 0.8,
        ("update", "SPIN cached", "SPIN"): 20.0,
        ("act", "SPIN", "Factored"): 0.25,
    }


def test_settings_are_compared_where_they_differ_in_one_respect():
    rows = [row("ASM", 2.0), row("ASM", 3.0, threads=2), row("ASM", 8.0, threads=2, precision="bf16")]
    rows.append(row("ASM", 10.0, capture=True))
    assert found(rows) == {
        ("update", "ASM, threads 2", "ASM, threads 1"): 1.5,
        ("update", "ASM, precision bf16", "ASM, precision fp32"): pytest.approx(8 / 3),
        ("update", "ASM, capture True", "ASM, capture False"): 5.0,
    }


def test_different_tasks_are_not_compared():
    assert ratios([row("Factored", 1.0), row("SPIN", 2.0, task="dog-trot")]) == []


def test_a_run_measures_trainings_and_stores_its_ratios(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ["--preset", "laptop", "--set", "ASMEncoder.state_width=32", "--set", "Training.batch_size=16"]
    arguments = ["--task", "finger-spin", "--policies", "Factored", "SPIN", "SPIN cached", *sizes]
    arguments += ["--set", "Pretraining.batch_size=16", "--threads", "1", "--seconds", "0.01", "--json", "speed.json"]
    assert benchmark.main(arguments) == 0
    stored = json.loads((tmp_path / "speed.json").read_text())
    speeds = {(each["what"], each["of"]): each["per_second"] for each in stored["rows"]}
    updates = {("update", name) for name in ("Factored", "SPIN", "SPIN cached", "ASM")}
    assert set(speeds) == updates | {(what, name) for what in ("save", "act") for name in ("Factored", "SPIN")}
    (cached,) = [each["times"] for each in stored["ratios"] if each["this"] == "SPIN cached" and each["than"] == "SPIN"]
    assert cached == pytest.approx(speeds["update", "SPIN cached"] / speeds["update", "SPIN"])
    assert "update: SPIN cached is" in capsys.readouterr().out


def test_a_wrong_binding_is_named(capsys):
    assert benchmark.main(["--set", "IQL.expektile=0.7"]) == 2
    assert "expektile" in capsys.readouterr().err
