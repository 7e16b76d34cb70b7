"""What the README says works: its commands run, its policy keeps the contract, and its names exist."""

import re
import shlex
from pathlib import Path

import contracts
import pytest

from harness import report
from harness import run as command
from harness.command_line import load_configuration
from harness.experiment import Experiment
from spinrl.behaviors import load_behavior, shipped
from spinrl.config import registry
from spinrl.tasks import TASKS
from tools import (
    collect_dataset,
    describe_dataset,
    export_dataset,
    export_policy,
    import_dataset,
    train_behavior,
)

ROOT = Path(command.__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BASH = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [part.strip() for block in BASH for line in block.splitlines() for part in line.split("&&") if part.strip()]
RUNNING = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "running.md").read_text(), re.DOTALL)
RUNS = [line for line in COMMANDS if line.startswith("python -m harness.run")]


def test_the_main_command_and_the_test_command_are_there():
    assert "python -m harness.run --gin gin/spin_humanoid.gin" in RUNS
    assert "pytest" in COMMANDS
    assert COMMANDS.count("pip install -e '.[test]'") == 2


OWN_DATA = next(block for block in BASH if "tools.import_dataset" in block).splitlines()


@pytest.mark.parametrize("line", [line for line in RUNS if line not in OWN_DATA])
def test_runs_are_valid(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*shlex.split(line)[3:], "--smoke"]
    if "cheetah_run" in line:
        arguments += ["--set", "Experiment.tiers=['medium']"]
    if "--dry-run" not in arguments:
        arguments.append("--dry-run")
    assert command.main(arguments) == 0
    assert "nothing was trained" in " ".join(capsys.readouterr().out.split())


def test_the_quoted_error_is_what_is_printed(capsys):
    quoted = re.search(r"\$ (python -m harness\.run .*)\n(.*)\n", README)
    assert command.main(shlex.split(quoted[1])[3:]) == 2
    assert capsys.readouterr().err.strip() == quoted[2]


@pytest.mark.slow
def test_own_data_is_trained_on_as_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    (script,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "# clinic.py" in block]
    export = next(line for line in COMMANDS if "tools.export_dataset" in line)
    for line in [*OWN_DATA, export]:
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
            case ["-m", "tools.export_dataset", *arguments]:
                assert export_dataset.main(arguments) == 0
            case _:
                raise AssertionError(f"nothing runs {line}")
    assert (tmp_path / "clinic-data" / "dataset.html").is_file()
    assert "## Estimates" in (tmp_path / "report" / "report.md").read_text()
    assert "python -m harness.run --gin gin/own_data.gin" in capsys.readouterr().out


@pytest.mark.parametrize("line", [line for block in RUNNING for line in block.splitlines() if "harness.run" in line])
def test_commands_for_clusters_are_valid(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = command.parser().parse_args(shlex.split(line)[3:])
    command.use_packaged_configs()
    experiment = load_configuration(Experiment, options, "", command.launcher_bindings(options)).value
    assert type(experiment.launcher).__name__.lower() == (options.launcher or "local")


def test_the_other_commands_parse():
    for line in COMMANDS:
        arguments = shlex.split(line)
        match arguments[:3]:
            case ["python", "-m", "tools.train_behavior"]:
                assert train_behavior.parser().parse_args(arguments[3:]).task == "humanoid-stand"
            case ["python", "-m", "tools.collect_dataset"]:
                assert collect_dataset.parser().parse_args(arguments[3:]).transitions == 1_000_000
            case ["python", "-m", "tools.export_policy"]:
                assert export_policy.parser().parse_args(arguments[3:]).out == Path("exported")
            case ["python", "-m", "harness.report"]:
                assert report.parser().parse_args(arguments[3:]).experiment in (
                    "spin_humanoid",
                    "own_data",
                    "linear_probe",
                )


def test_the_policy_in_one_file_keeps_the_contract(monkeypatch):
    (source,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "PolicyConfig" in block]
    monkeypatch.setattr(registry, "_COMPONENTS", {kind: dict(all_) for kind, all_ in registry._COMPONENTS.items()})
    names = {}
    exec(
        "import attrs, torch\nfrom attrs.validators import ge\nfrom torch import nn\n"
        "from spinrl.nn import seeded_initialization\n"
        "from spinrl.policies.base import IndependentPolicy, PolicyConfig\nfrom spinrl.config import register\n"
        + source,
        names,
    )
    contracts.check_policy(names["Uniform"](scale=1.0))


def test_paths_and_pictures_exist():
    for link in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    for name in re.findall(r"gin/[\w/]+\.gin", README.replace("gin/policies/uniform.gin", "")):
        assert (ROOT / name).is_file(), name


def test_the_tables_of_behaviours_are_what_their_cards_say():
    """Whoever trains a behaviour again takes its rows from this test's message."""
    cards = [load_behavior(*_named(name)).card for name in shipped()]
    cards.sort(key=lambda card: (list(TASKS).index(card["task"]), card["bins"], card["level"]))
    wanted = [
        f"| {card['task']} | {card['bins']} | {card['level']} | {card['return_mean']:.0f} ± {card['return_std']:.0f} | "
        f"{card['published_expert_return']:.0f} | {card['updates']:,} | {card['env_steps']:,} | "
        f"{card['training_hours']:.2f} |"
        for card in cards
    ]
    assert _rows("| task | bins | level |") == wanted, "\n".join(wanted)
    wanted = [
        f"| {card['task']} | {card['bins']} | {_from(phase)} | `{phase['command'].partition('train_behavior ')[2]}` |"
        for card in cards
        if card["level"] == "expert"
        for phase in card["phases"]
    ]
    assert _rows("| task | bins | from update |") == wanted, "\n".join(wanted)


def _rows(header):
    _, _, table = README.partition(header)
    return table.partition("\n\n")[0].splitlines()[2:]


def _from(phase):
    return "not noted" if phase["from_updates"] is None else f"{phase['from_updates']:,}"


def _named(name):
    task, bins, level = name.rsplit("-", 2)
    return task, int(bins.removesuffix("bins")), level
