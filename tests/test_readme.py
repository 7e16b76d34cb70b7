"""What the README says works: its runs start, its own data is trained on, and its error is what is printed."""

import re
import shlex

import pytest
from pages import README, all_commands, blocks, commands

from harness import report
from harness import run as command
from tools import describe_dataset, import_dataset

COMMANDS = all_commands(README)
OWN_DATA = next(commands(block) for block in blocks(README, "bash") if "tools.import_dataset" in block)
RUNS = [line for line in COMMANDS if line.startswith("python -m harness.run") and line not in OWN_DATA]


def test_the_main_command_and_the_test_command_are_there():
    assert "pip install -e '.[test]' && python -m harness.run --gin gin/spin_humanoid.gin" in README
    assert "pip install -e '.[test]' && pytest" in README


def test_it_is_short():
    assert len(README.splitlines()) <= 200


@pytest.mark.slow
@pytest.mark.parametrize("line", RUNS)
def test_runs_are_valid(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*shlex.split(line)[3:], "--smoke", "--dry-run"]
    if "cheetah_run" in line:
        arguments += ["--set", "Experiment.tiers=['medium']"]
    assert command.main(arguments) == 0
    assert "nothing was trained" in " ".join(capsys.readouterr().out.split())


def test_the_quoted_error_is_what_is_printed(capsys):
    quoted = re.search(r"\$ (python -m harness\.run .*)\n(.*)\n", README)
    assert command.main(shlex.split(quoted[1])[3:]) == 2
    assert capsys.readouterr().err.strip() == quoted[2]


@pytest.mark.slow
@pytest.mark.skipif(".csv" not in import_dataset.__doc__, reason="the importer reads no CSV yet")
def test_own_data_is_trained_on_as_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (script,) = [block for block in blocks(README, "python") if "# clinic.py" in block]
    for line in OWN_DATA:
        _, *rest = shlex.split(line)
        match rest:
            case ["clinic.py"]:
                exec(script, {})
            case ["-m", "tools.import_dataset", *arguments]:
                assert import_dataset.main(arguments) == 0
            case ["-m", "tools.describe_dataset", *arguments]:
                assert describe_dataset.main(arguments) == 0
            case ["-m", "harness.run", *arguments]:
                assert command.main([*arguments, "--smoke", "--jobs", "1"]) == 0
            case ["-m", "harness.report", "--experiment", name]:
                assert report.main(["--experiment", f"{name}-smoke"]) == 0
            case _:
                raise AssertionError(f"nothing runs {line}")
    assert (tmp_path / "clinic-data" / "dataset.html").is_file()
    assert "## Estimates" in (tmp_path / "report" / "report.md").read_text()
    assert "python -m harness.run --gin gin/own_data.gin" in capsys.readouterr().out


def test_the_results_are_one_block():
    assert README.count("<!-- results -->") == README.count("<!-- /results -->") == 1
    _, _, rest = README.partition("<!-- results -->\n")
    assert "|" in rest.partition("<!-- /results -->")[0]
