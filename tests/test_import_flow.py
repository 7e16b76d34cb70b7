"""Imports go one way: each room may import only the rooms before it, and no module takes part in a circle."""

import ast
from pathlib import Path

import pytest

import spinrl

ROOT = Path(spinrl.__file__).parent.parent
ORDER = {
    "spinrl": [
        {"errors", "files", "on_import", "captured", "turns"},
        {"specs", "seeding", "checkpoint", "config"},
        {"budget", "machine", "cache"},
        {"tasks", "nn"},
        {"behaviors"},
        {"data"},
        {"asm"},
        {"policies"},
        {"algorithms"},
        {"reference", "testing"},
        {"train", "events"},
        {"preparation"},
        {"training"},
        {"evaluation"},
        {"export"},
        {"face"},
    ],
    "harness": [
        {"command_line", "commands", "entry_point", "launchers", "records"},
        {"protocol"},
        {"experiment"},
        {"cells"},
        {"planning"},
        {"launching", "reporting"},
        {"tracking", "exporting"},
        {"terminal"},
        {"report", "sync"},
        {"study"},
        {"probe", "run"},
        {"main"},
    ],
}
RUNNERS = ROOT / "spinrl" / "export" / "runners"  # copied to where spinrl is not installed
FILES = sorted(path for top in (*ORDER, "tools") for path in ROOT.glob(f"{top}/**/*.py") if RUNNERS not in path.parents)
NEITHER_STORE_NOR_COMMAND_LINE = {"harness", "tools", "mlflow", "argparse", "rich"}  # in spinrl/


def dotted(path, root=ROOT):
    """A file's name as it is imported."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """Dotted names that a file imports, wherever in it: in functions and for the type checker too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def level(top, room):
    """Where a room stands in the order."""
    places = [place for place, rooms in enumerate(ORDER[top]) if room in rooms]
    assert places, f"give the room {top}/{room} its place in ORDER and in docs/architecture.md"
    return places[0]


def circles(files, root=ROOT):
    """Every group of modules that import one another in a circle (Tarjan's strongly connected components)."""
    names = {dotted(path, root): path for path in files}
    edges = {name: [to for to in imported(path) if to in names and to != name] for name, path in names.items()}
    index, low, stack, found = {}, {}, [], []

    def visit(name):
        index[name] = low[name] = len(index)
        stack.append(name)
        for to in edges[name]:
            if to not in index:
                visit(to)
            if to in stack:
                low[name] = min(low[name], low[to])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in edges:
        if name not in index:
            visit(name)
    return found


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.relative_to(ROOT).parts[0] in ORDER], ids=lambda path: dotted(path)
)
def test_a_room_imports_only_rooms_before_it(path):
    top, *rest = dotted(path).split(".")
    if not rest:
        return
    own = level(top, rest[0])
    for name in imported(path):
        other, *inside = name.split(".")
        if top == "spinrl":
            assert other not in NEITHER_STORE_NOR_COMMAND_LINE, f"spinrl imports {name}"
        assert other != "tools", f"{top} imports {name}"
        if other == top and inside and inside[0] != rest[0]:
            known = any(inside[0] in rooms for rooms in ORDER[top])
            assert known or name.count(".") == 1, f"{name} is in no room"
            assert not known or level(top, inside[0]) <= own, f"{dotted(path)} imports {name}, which comes after it"


def test_no_module_imports_another_in_a_circle():
    # The package's own file names for the type checker what it imports when it is asked for.
    assert circles([path for path in FILES if path != ROOT / "spinrl" / "__init__.py"]) == []


def test_a_circle_is_found(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "first.py").write_text("def later():\n    from package.second import name\n")
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import package.third\n"
    (package / "second.py").write_text(typed)
    (package / "third.py").write_text("from package import first\n")
    (package / "apart.py").write_text("import package.first\n")
    files = sorted(package.glob("*.py"))
    assert circles(files, tmp_path) == [["package.first", "package.second", "package.third"]]


def test_runners_import_nothing_of_ours_and_nothing_imports_them():
    for path in RUNNERS.glob("*.py"):
        assert not [name for name in imported(path) if name.split(".")[0] in {"spinrl", "harness", "tools"}], path
    for path in FILES:
        assert not [name for name in imported(path) if "runners" in name.split(".")], path


def test_the_gin_folder_hides_no_package():
    assert not list((ROOT / "gin").rglob("*.py"))
