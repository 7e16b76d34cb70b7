"""The examples run, at sizes of seconds: each is a script or a notebook that a newcomer copies."""

import os
import runpy
import sys
from pathlib import Path

import pytest

import spinrl
from spinrl.tasks import RenderingError

EXAMPLES = Path(__file__).parent.parent / "examples"
SIZES = """
import spinrl
patients = 30
sizes = {
    "preset": "quick",
    "training": spinrl.Training(gradient_steps=40),
    "pretraining": spinrl.Pretraining(epochs=None, steps=10),
    "critic_start": None,
    "machine": spinrl.Machine(compile=False, threads=1),
}
"""


@pytest.mark.slow
def test_the_clinic_gets_a_policy_in_an_onnx_file(in_seconds, capsys):
    runpy.run_path(str(EXAMPLES / "clinic.py"))
    assert "exported to clinic-exported" in capsys.readouterr().out
    assert {path.name for path in Path("clinic-exported").iterdir()} >= {"greedy.onnx", "run_onnx.py", "card.json"}


@pytest.mark.slow
def test_a_humanoid_is_filmed(in_seconds, capsys, monkeypatch):
    small = {"transitions": 60, "steps": 20, "pretraining-steps": 10, "episode-steps": 20}
    given = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["humanoid.py", *given, "--out", "short.mp4"])
    try:
        runpy.run_path(str(EXAMPLES / "humanoid.py"))
    except RenderingError as error:
        pytest.skip(str(error))
    assert "filmed 20 steps in short.mp4" in capsys.readouterr().out
    assert Path("short.mp4").stat().st_size > 1000 and Path("short.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_notebook_runs_with_its_pictures(in_seconds, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / "clinic.ipynb", as_version=4)
    kept = _pictures(notebook)
    (sizes,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    sizes.source = SIZES
    package = Path(spinrl.__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])]))
    nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": "."}}).execute()
    assert _pictures(notebook) == kept == 3  # as many as readers see without running it
    assert spinrl.load("clinic-policy").step == 40


def _pictures(notebook):
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)
