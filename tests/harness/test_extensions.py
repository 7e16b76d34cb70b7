"""Components of one's own, without touching the package: by option, by entry point, and in every process."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

import spinrl
from harness.command_line import config_root
from harness.experiment import Experiment
from harness.launching.outcome import plain_work
from harness.launching.task import _experiment, write_experiment
from harness.run import parser
from spinrl.config import ConfigError, extensions, load, registry
from tools import export_policy

ROOT = Path(spinrl.__file__).parent.parent
EXAMPLE = ROOT / "examples" / "my_policy"


def run(*arguments, folder, paths=(), module="harness.run"):
    """A command in a process of its own: what it registers stays there."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *map(str, paths)])}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINRL_HOME", str(tmp_path / "home"))
    return tmp_path


def test_modules_by_name_and_by_entry_point_appear_in_the_list(folder):
    text = (EXAMPLE / "my_policy.py").read_text()
    (folder / "named.py").write_text(text)
    installed = folder / "installed"
    (installed / "theirs-1.dist-info").mkdir(parents=True)
    (installed / "theirs.py").write_text(text.replace("class Linear(", "class Theirs("))
    (installed / "theirs-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (installed / "theirs-1.dist-info" / "entry_points.txt").write_text("[spinrl.components]\nlinear = theirs\n")
    listed = run("--import", "named", "--list", folder=folder, paths=[installed])
    assert listed.returncode == 0, listed.stderr
    assert "@Linear()" in listed.stdout and "Linear.scale = 0.1" in listed.stdout and "@Theirs()" in listed.stdout


@pytest.fixture
def fresh_process(monkeypatch):
    """Forgets what was imported, as another process has never known it."""

    def forget():
        monkeypatch.setattr(registry, "_COMPONENTS", {kind: dict(known) for kind, known in before.items()})
        monkeypatch.setattr(extensions, "_IMPORTED", {})
        monkeypatch.setattr(sys, "path", list(path))
        monkeypatch.delitem(sys.modules, "my_policy", raising=False)

    before = {
        kind: {name: cls for name, cls in known.items() if cls.__module__ != "my_policy"}
        for kind, known in registry._COMPONENTS.items()
    }
    path = [folder for folder in sys.path if folder != str(EXAMPLE)]  # another test may have looked there
    return forget


def test_a_task_on_another_machine_imports_what_its_experiment_needs(folder, fresh_process):
    fresh_process()
    extensions.import_components([str(EXAMPLE / "my_policy.py")])
    files = [config_root() / "gin" / "spin_humanoid.gin", EXAMPLE / "my_policy.gin"]
    write_experiment(folder, plain_work(load(Experiment, files).value))
    fresh_process()
    with pytest.raises(ConfigError, match="Linear"):
        load(Experiment, files)
    _, cells = _experiment(folder / "experiment.pickle")
    assert type(cells[0].policy).__name__ == "Linear" and cells[0].policy.scale == 0.05


def test_a_task_on_another_machine_imports_what_a_script_has_imported(folder, fresh_process, monkeypatch):
    fresh_process()
    (folder / "my_policy.py").write_text((EXAMPLE / "my_policy.py").read_text())
    files = [config_root() / "gin" / "spin_humanoid.gin", EXAMPLE / "my_policy.gin"]
    with pytest.raises(
        ConfigError, match=r"found \[@Linear\(\)\], which is not registered; give the module .* --import"
    ):
        load(Experiment, files)
    monkeypatch.syspath_prepend(folder)
    importlib.import_module("my_policy")
    write_experiment(folder, plain_work(load(Experiment, files).value))
    fresh_process()
    _, cells = _experiment(folder / "experiment.pickle")
    assert type(cells[0].policy).__name__ == "Linear"


WRONG = {
    "raise ValueError('no luck')": "wrong.py:1: ValueError: no luck",
    "x = (": "wrong.py:1: SyntaxError",
    "import not_there": "wrong.py:1: ModuleNotFoundError",
    "from spinrl.config import register\nimport spinrl\nregister(type('IQL', (spinrl.IQL,), {'__doc__': 'x'}))": "IQL",
}


@pytest.mark.parametrize("text", WRONG)
def test_an_error_names_its_file(folder, text, monkeypatch, capsys):
    (folder / "wrong.py").write_text(text)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "wrong", raising=False)
    with pytest.raises(SystemExit, match="2"):
        parser().parse_args(["--import", str(folder / "wrong.py")])
    said = capsys.readouterr().err
    assert WRONG[text] in said and str(folder / "wrong.py") in said


def test_what_is_not_there_is_told(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, message in (("nowhere", f"no module 'nowhere' in {folder}"), ("nowhere.py", "there is no such file")):
        with pytest.raises(SystemExit, match="2"):
            parser().parse_args(["--import", name])
        assert message in capsys.readouterr().err


def test_a_gin_file_still_runs_no_code_and_its_message_names_the_option(folder):
    (folder / "code.gin").write_text("import my_policies\n")
    with pytest.raises(ConfigError, match=r"code.gin:1: 'import my_policies' is not allowed.*runs no code.*--import"):
        load(Experiment, [folder / "code.gin"])


@pytest.mark.slow
def test_a_policy_of_ones_own_trains_in_worker_processes_and_is_exported(folder, fresh_process, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    data = spinrl.Dataset.from_arrays(
        rng.normal(size=(200, 4)),
        rng.integers(0, 2, (200, 2)),
        rng.random(200),
        episode_length=10,
        ends="timeout",
        choices=2,
    )
    given = ["--import", EXAMPLE / "my_policy.py"]
    plain = ["Experiment.tasks=['data']", f"Imported.store='{data.store.path}'", "Experiment.seeds=[0,1]"]
    plain += ["Evaluating.estimators=[@HeldOutLikelihood()]", "Machine.compile=False", "Machine.precision='fp32'"]
    bindings = [part for each in plain for part in ("--set", each)]
    files = ["--gin", "gin/own_data.gin", "--gin", EXAMPLE / "my_policy.gin"]
    ran = run(*given, *files, *bindings, "--smoke", "--jobs", "2", folder=folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "own_data-smoke"]
    cells = [
        each for each in client.search_runs([experiment.experiment_id]) if each.data.tags.get("policy") == "linear"
    ]
    assert len(cells) == 2 and {each.info.status for each in cells} == {"FINISHED"}
    command = [cells[0].info.run_id, "--out", "exported", "--format", "pt2"]
    monkeypatch.chdir(folder)
    fresh_process()
    assert export_policy.main([*command, *map(str, given)]) == 0
    fresh_process()
    capsys.readouterr()
    assert export_policy.main([command[0], "--out", "other"]) == 2
    assert "import the module of one of your own first" in capsys.readouterr().err
