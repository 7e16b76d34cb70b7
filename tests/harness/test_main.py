"""The command ``spinrl``: it lists every command at once, and works where folders of the user's have our names."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from harness import commands, main

ROOT = Path(main.__file__).resolve().parent.parent
# As the console script is, which has its own folder, and not the working one, on the path.
SCRIPT = """
import sys
from harness.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code
import tools
print(tools.__file__, *{"torch", "mlflow", "pandas", "rich"} & set(sys.modules))
sys.exit(code)
"""


def spinrl(tmp_path, *arguments):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "spinrl").write_text(SCRIPT)
    for name in ("tools", "harness"):
        (tmp_path / "project" / name).mkdir(parents=True)
        (tmp_path / "project" / name / "__init__.py").touch()
    return subprocess.run(
        [sys.executable, tmp_path / "bin" / "spinrl", *arguments],
        cwd=tmp_path / "project",
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_every_command_is_there(capsys):
    assert main.main(["--help"]) == 0
    output = capsys.readouterr().out
    for name, (module, line) in commands.COMMANDS.items():
        assert f"  {name} " in output and line in output
        assert importlib.util.find_spec(module) is not None


def test_help_imports_nothing_that_takes_long(tmp_path):
    assert spinrl(tmp_path, "--help").splitlines()[-1] == str(ROOT / "tools" / "__init__.py")


def test_commands_work_where_the_users_folders_have_their_names(tmp_path):
    output = spinrl(tmp_path, "run", "--help").splitlines()
    assert output[0].startswith("usage: spinrl run [-h]")
    assert output[-1].startswith(f"{ROOT / 'tools' / '__init__.py'}") and "torch" not in output[-1]


def test_a_command_that_is_not_there_is_named(capsys):
    assert main.main(["exprot"]) == 2
    assert "did you mean export?" in capsys.readouterr().err


@pytest.mark.parametrize(("by_name", "text"), [(True, "spinrl sync"), (False, "python -m harness.sync")])
def test_what_to_type_next_is_told_as_the_user_types(by_name, text, monkeypatch):
    monkeypatch.setattr(commands, "_by_name", by_name)
    assert commands.typed("harness.sync") == text
