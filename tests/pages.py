"""The documentation as data: its pages, their code blocks and the commands in them."""

import re
from pathlib import Path

import harness

ROOT = Path(harness.__file__).resolve().parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
README = PAGES["README.md"]


def blocks(text, language):
    """The code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(block):
    """The commands of a block of bash, one a line or joined by &&; lines that end in a backslash go on."""
    lines = re.sub(r"\\\n\s*", " ", block).splitlines()
    parts = [part.partition(" #")[0].strip() for line in lines for part in line.split(" && ")]
    return [part for part in parts if part]


def all_commands(text):
    """The commands of every block of bash of a page."""
    return [command for block in blocks(text, "bash") for command in commands(block)]
