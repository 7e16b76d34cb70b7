"""What the README says works: its commands run, its policy keeps the contract, and its names exist."""

import re
import shlex
from pathlib import Path

import contracts
import pytest

from harness import report
from harness import run as command
from spinrl import registry
from tools import export_policy, train_behavior

ROOT = Path(command.__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BASH = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [part.strip() for block in BASH for line in block.splitlines() for part in line.split("&&") if part.strip()]
RUNS = [line for line in COMMANDS if line.startswith("python -m harness.run")]


def test_the_main_command_and_the_test_command_are_there():
    assert "python -m harness.run --gin gin/spin_humanoid.gin" in RUNS
    assert "pytest" in COMMANDS
    assert COMMANDS.count("pip install -e '.[test]'") == 2


@pytest.mark.parametrize("line", RUNS)
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


def test_the_other_commands_parse():
    for line in COMMANDS:
        arguments = shlex.split(line)
        match arguments[:3]:
            case ["python", "-m", "tools.train_behavior"]:
                assert train_behavior.parser().parse_args(arguments[3:]).task == "humanoid-stand"
            case ["python", "-m", "tools.export_policy"]:
                assert export_policy.parser().parse_args(arguments[3:]).out == Path("exported")
            case ["python", "-m", "harness.report"]:
                assert report.parser().parse_args(arguments[3:]).experiment == "spin_humanoid"


def test_the_policy_in_one_file_keeps_the_contract(monkeypatch):
    (source,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "PolicyConfig" in block]
    monkeypatch.setattr(registry, "_COMPONENTS", {kind: dict(all_) for kind, all_ in registry._COMPONENTS.items()})
    names = {}
    exec(
        "import attrs, torch\nfrom attrs.validators import ge\nfrom torch import nn\n"
        "from spinrl.nn import seeded_initialization\n"
        "from spinrl.policies.base import IndependentPolicy, PolicyConfig\nfrom spinrl.registry import register\n"
        + source,
        names,
    )
    contracts.check_policy(names["Uniform"](scale=1.0))


def test_paths_and_pictures_exist():
    for link in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    for name in re.findall(r"gin/[\w/]+\.gin", README.replace("gin/policies/uniform.gin", "")):
        assert (ROOT / name).is_file(), name
