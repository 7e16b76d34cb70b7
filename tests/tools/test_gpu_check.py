"""The GPU's script runs on a CPU at small size; its tables, and the paper's cost, say what was measured."""

import json

import pytest
from pages import PAGES

from tools import gpu_check, paper_cost
from tools.gpu_table import Beside, Figure, Study, markdown


@pytest.mark.slow
def test_it_runs_small_on_a_cpu_and_writes_everything(tmp_path, capsys):
    out = tmp_path / "found"
    assert gpu_check.main(["--out", str(out), "--small", "--seeds", "2"]) == 0
    assert {path.name for path in out.iterdir()} == {"table.md", "speeds.json", "returns.csv", "curves.csv"}
    stored = json.loads((out / "speeds.json").read_text())
    updates = {each["of"]: each["eager"] for each in stored["figures"] if each["what"] == "update"}
    every = {"Factored", "Autoregressive", "SAINT", "SPIN", "SPIN cached", "ASM"}
    assert set(updates) == {each["of"] for each in stored["beside"]} == every and min(updates.values()) > 0
    assert [each["policy"] for each in stored["studies"]] == ["SPIN cached", "Factored", "SAINT"]
    assert all(each["ended"] and each["evaluated"] == [10, 20] for each in stored["studies"])
    returns = (out / "returns.csv").read_text().splitlines()
    assert len(returns) == 1 + 3 * 2 * 2 * 2  # policies × seeds × evaluations × episodes
    curves = (out / "curves.csv").read_text()
    assert "train/loss_asm" in curves and "saint-iql s1,20,train/loss_policy" in curves
    assert "| SAINT | 2 | 20 |" in capsys.readouterr().out
    assert paper_cost.measured_on_gpu(out / "speeds.json").per_second.keys() == every


def test_what_is_missing_is_one_line(tmp_path, capsys, monkeypatch):
    assert gpu_check.main(["--out", str(tmp_path / "found")]) == 2
    assert "no CUDA device; --small runs on a CPU" in capsys.readouterr().err
    monkeypatch.setattr(gpu_check.torch, "__version__", "2.10.1+cu128")
    assert gpu_check.main(["--out", str(tmp_path / "found"), "--small"]) == 2
    assert "torch 2.10.1+cu128 is too old" in capsys.readouterr().err
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: None)
    assert gpu_check.main(["--out", str(tmp_path / "found"), "--small"]) == 2
    assert "missing: dm_control, mujoco (--help" in capsys.readouterr().err
    assert not (tmp_path / "found").exists()


def test_its_table_stands_figures_beside_their_aims():
    figures = [
        Figure(preset="paper", what="update", of="SPIN cached", eager=100.0, captured=1200.0),
        Figure(preset="paper", what="update", of="SAINT", eager=50.0, captured=100.0),
        Figure(preset="paper", what="act", of="SAINT", eager=50.0, captured=None),
    ]
    beside = [
        Beside(of="ASM", seeds=5, one=0.001, together=0.0015),
        Beside(of="SAINT", seeds=5, one=0.01, together=0.03),
    ]
    study = Study(
        policy="SAINT", seeds=5, gradient_steps=900, seconds=60.2, evaluated=(90,), returns=(12.3,), ended=False
    )
    table = markdown("a GPU", figures, beside, [study])
    for row in (
        "| paper | update, SPIN cached | 100.0 | 1,200.0 | 12.0 | at least 10: met |",
        "| paper | update, SAINT | 50.0 | 100.0 | 2.0 | at least 3: missed |",
        "| paper | act, SAINT | 50.0 | – | – |  |",
        "| ASM | 1.00 | 1.50 | 5 | 1.50 | under 2: met |",
        "| SAINT | 10.00 | 30.00 | 5 | 3.00 | under 2: missed |",
        "| SAINT | 5 | 900, not all done | 60 | 12 (90) |",
    ):
        assert row in table.splitlines()


def test_the_page_says_what_the_paper_s_tables_cost(capsys):
    assert paper_cost.main([]) == 0
    printed = capsys.readouterr().out
    _, _, rest = PAGES["docs/gpu.md"].partition("<!-- cost -->\n")
    told = rest.partition("\n<!-- /cost -->")[0].strip()
    assert told == printed.strip(), "put what python -m tools.paper_cost prints into docs/gpu.md"


def test_steps_are_divided_by_what_was_measured(tmp_path, capsys):
    work = paper_cost.work_of("rapid_adaptation", cached=True)
    # Four tasks and five seeds; 100 epochs of ceil(a million / 1024) steps.
    assert work.steps == {"SPIN cached": 20_000_000, "ASM": 20 * 97_700}
    assert work.seconds(paper_cost.Rates("one", {"SPIN cached": 1000.0, "ASM": 100.0})) == 20_000 + 19_540
    assert work.seconds(paper_cost.Rates("one", {"SPIN cached": 1000.0})) is None
    (tmp_path / "speeds.json").write_text('{"figures": []}')
    assert paper_cost.main(["--gpu", str(tmp_path / "speeds.json")]) == 2
    assert "not a speeds.json that tools.gpu_check wrote" in capsys.readouterr().err
