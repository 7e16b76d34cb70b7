"""Text files are UTF-8 whatever the machine's locale is."""

import ast
from pathlib import Path

import pytest

import spinrl

ROOT = Path(spinrl.__file__).parent.parent
FILES = sorted(path for top in ("spinrl", "harness", "tools") for path in ROOT.glob(f"{top}/**/*.py"))


def text_access(tree):
    """Calls of a file's that read or write text: by name, and `open` in a mode that is not binary."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        modes = [text for text in given if set(text) <= set("rwaxbt+")]
        if name in ("read_text", "write_text") or (name == "open" and modes and not any("b" in mode for mode in modes)):
            yield node


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_text_file_names_its_encoding(path):
    bare = [
        node.lineno
        for node in text_access(ast.parse(path.read_text(encoding="utf-8")))
        if not any(keyword.arg == "encoding" for keyword in node.keywords)
    ]
    assert not bare


def test_a_bare_text_file_is_found():
    source = "path.read_text()\nopen(p, 'w')\npath.open('rb')\npath.write_text('', encoding='utf-8')"
    assert sorted(node.lineno for node in text_access(ast.parse(source))) == [1, 2, 4]
