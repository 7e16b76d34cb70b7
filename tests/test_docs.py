"""What the pages of documentation say is so: commands parse, configurations resolve, and names exist."""

import importlib
import re
import shlex

import pytest
from pages import PAGES, README, ROOT, all_commands, blocks

from harness.command_line import use_packaged_configs
from harness.experiment import Experiment
from harness.run import launcher_bindings
from spinrl import testing as contracts
from spinrl.behaviors import load_behavior, shipped
from spinrl.config import load, registry
from spinrl.tasks import TASKS

COMMANDS = [(page, line) for page, text in PAGES.items() for line in all_commands(text)]
OTHER_PROGRAMS = {"pip", "pytest", "ruff", "mypy", "pre-commit", "mlflow", "curl", "export", "ray", "sudo", "mkdocs"}
PLAIN_PYTHON = {"python clinic.py", "python -m venv .venv"}
MODULES = [pair for pair in dict.fromkeys(COMMANDS) if "python -m " in pair[1] and pair[1] not in PLAIN_PYTHON]


@pytest.mark.parametrize(("page", "line"), MODULES)
def test_a_command_parses_and_its_configuration_resolves(page, line):
    module, *arguments = shlex.split(line.partition("python -m ")[2])
    options = importlib.import_module(module).parser().parse_args(arguments)
    # What --import names would stay registered in this process; tests/harness/test_extensions.py runs it.
    resolved = module in ("harness.run", "harness.probe", "tools.export_policy") and "--import" not in arguments
    if resolved and options.gin:
        use_packaged_configs()
        launcher = launcher_bindings(options) if module == "harness.run" else []
        assert load(Experiment, options.gin, [*options.bindings, *launcher]).value.cells()


def test_other_commands_are_of_known_programs():
    for page, line in COMMANDS:
        known = line.startswith("python -m ") or line in PLAIN_PYTHON or line.split()[0] in OTHER_PROGRAMS
        assert known, f"{page}: {line}"


@pytest.mark.parametrize(("page", "block"), [(page, block) for page in PAGES for block in blocks(PAGES[page], "gin")])
def test_bindings_resolve_after_an_experiments_own(page, block, tmp_path):
    use_packaged_configs()
    (tmp_path / "given.gin").write_text(block)
    files = ["gin/spin_humanoid.gin", "gin/scale/paper.gin", str(tmp_path / "given.gin")]
    assert load(Experiment, files, []).value.cells()


def test_python_compiles():
    for page, text in PAGES.items():
        for block in blocks(text, "python"):
            compile(block, page, "exec")


@pytest.mark.parametrize("page", PAGES)
def test_links_and_gin_files_exist(page):
    for link in re.findall(r"\]\(((?!http)[^)#]+)", PAGES[page]):
        target = (ROOT / page).parent / link
        assert target.exists(), link
    for name in re.findall(r"gin/[\w/]+\.gin", PAGES[page].replace("gin/policies/uniform.gin", "")):
        assert (ROOT / name).is_file(), name


def test_the_readme_has_a_line_for_each_page():
    for page in PAGES:
        assert page == "README.md" or f"]({page})" in README, page


@pytest.mark.parametrize("top", ["spinrl", "harness", "tools"])
def test_the_architecture_names_every_module_and_nothing_else(top):
    text = PAGES["docs/architecture.md"]
    named = set(re.findall(r"`(?:[\w/]+/)?(\w+\.py)`", text))
    runners = ROOT / "spinrl" / "export" / "runners"
    there = {path.name for path in (ROOT / top).rglob("*.py") if runners not in path.parents} - {"__init__.py"}
    assert there <= named, f"give {sorted(there - named)} a line in docs/architecture.md"
    everywhere = {
        path.name for folder in ("spinrl", "harness", "tools", "tests") for path in (ROOT / folder).rglob("*.py")
    }
    assert named <= everywhere, f"docs/architecture.md names {sorted(named - everywhere)}, which are not there"


def test_the_policy_in_one_file_keeps_the_contract(monkeypatch):
    (source,) = [block for block in blocks(PAGES["docs/extending.md"], "python") if "PolicyConfig" in block]
    monkeypatch.setattr(registry, "_COMPONENTS", {kind: dict(all_) for kind, all_ in registry._COMPONENTS.items()})
    names = {}
    exec(source, names)
    contracts.check_policy(names["Uniform"](scale=1.0))


@pytest.mark.slow
def test_the_page_on_python_runs(in_seconds):
    code = "\n".join(blocks(PAGES["docs/python.md"], "python"))
    names = {}
    exec(compile(code.replace("gradient_steps=1000", "gradient_steps=20"), "docs/python.md", "exec"), names)
    assert names["policy"].step == 40 and names["factored"].step == 20


def test_checks_before_a_commit_are_those_of_ci():
    hooks = re.findall(r"entry: (.+)", (ROOT / ".pre-commit-config.yaml").read_text())
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    assert hooks == [line for line in ci if line.startswith(("ruff ", "mypy"))]


def test_the_tables_of_behaviours_are_what_their_cards_say():
    """Whoever trains a behaviour again takes its rows from this test's message."""
    cards = [load_behavior(*_named(name)).card for name in shipped()]
    cards.sort(key=lambda card: (list(TASKS).index(card["task"]), card["bins"], card["level"]))
    expected = [
        f"| {card['task']} | {card['bins']} | {card['level']} | {card['return_mean']:.0f} ± {card['return_std']:.0f} | "
        f"{card['published_expert_return']:.0f} | {card['updates']:,} | {card['env_steps']:,} | "
        f"{card['training_hours']:.2f} |"
        for card in cards
    ]
    assert _rows("| task | bins | level |") == expected, "\n".join(expected)
    expected = [
        f"| {card['task']} | {card['bins']} | {_from(phase)} | `{phase['command'].partition('train_behavior ')[2]}` |"
        for card in cards
        if card["level"] == "expert"
        for phase in card["phases"]
    ]
    assert _rows("| task | bins | from update |") == expected, "\n".join(expected)


def _rows(header):
    _, _, table = PAGES["docs/datasets.md"].partition(header)
    return table.partition("\n\n")[0].splitlines()[2:]


def _from(phase):
    return "not noted" if phase["from_updates"] is None else f"{phase['from_updates']:,}"


def _named(name):
    task, bins, level = name.rsplit("-", 2)
    return task, int(bins.removesuffix("bins")), level
