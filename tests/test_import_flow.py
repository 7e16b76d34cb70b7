"""Imports go one way: each room may import only the rooms before it."""

import ast
from pathlib import Path

import pytest

import spinrl

ROOT = Path(spinrl.__file__).parent.parent
CONFIGURATION = {"registry", "gin_source", "field_words", "field_types", "plain", "listing", "resolver", "config"}
ORDER = [
    {"specs", "seeding", "checkpoint", *CONFIGURATION},
    {"machine"},
    {"tasks", "nn"},
    {"behaviors"},
    {"data"},
    {"asm"},
    {"policies"},
    {"algorithms"},
    {"reference"},
    {"train"},
    {"evaluation"},
    {"export"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
RUNNERS = ROOT / "spinrl" / "export" / "runners"  # copied to where spinrl is not installed
FILES = sorted(path for path in ROOT.glob("spinrl/**/*.py") if path.parent != RUNNERS)


def imported(path):
    """Dotted names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "spinrl":
                yield from (f"spinrl.{alias.name}" for alias in node.names)


def room_of(path):
    return path.relative_to(ROOT / "spinrl").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_rooms_before_it(path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in LEVEL, f"give the room {room} its place in ORDER and in docs/architecture.md"
    for name in imported(path):
        top, *rest = name.split(".")
        assert top not in {"harness", "tools", "mlflow", "argparse", "rich"}, f"spinrl imports {name}"
        if top == "spinrl" and rest and rest[0] != room:
            assert LEVEL[rest[0]] <= LEVEL[room], f"{room} imports {name}, which comes after it"


def test_runners_import_nothing_of_ours_and_nothing_imports_them():
    for path in RUNNERS.glob("*.py"):
        assert not [name for name in imported(path) if name.split(".")[0] in {"spinrl", "harness", "tools"}], path
    for path in FILES:
        assert not [name for name in imported(path) if "runners" in name.split(".")], path


def test_the_harness_imports_no_tools():
    for path in ROOT.glob("harness/**/*.py"):
        assert not [name for name in imported(path) if name.split(".")[0] == "tools"], path


def test_the_gin_folder_hides_no_package():
    assert not list((ROOT / "gin").rglob("*.py"))
