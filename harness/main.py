"""The console command ``spinrl``: every command of the project as a subcommand."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.commands import COMMANDS, started_by_name
from harness.entry_point import entry_point


def usage() -> str:
    """The help text: every subcommand with a line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {line}" for name, (_, line) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: spinrl COMMAND ...",
            "",
            "Offline reinforcement learning where one action is many discrete sub-actions at once.",
            "",
            "commands:",
            *lines,
            "",
            "spinrl COMMAND --help says more. First of all: spinrl run --gin gin/spin_humanoid.gin",
        ]
    )


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, *rest = given
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "spinrl --help lists them"
        print(f"expected a spinrl command, got {name!r}; {hint}", file=sys.stderr)
        return 2
    started_by_name()
    _search_working_folder_last()
    return importlib.import_module(COMMANDS[name][0]).main(rest) or 0


def _search_working_folder_last() -> None:
    """Put the working folder on the import path, as ``python -m`` does, so that the user's components are found.

    It comes after this project's packages, since a user's folder may also be called ``tools`` or ``harness``. Child
    processes inherit the path.
    """
    ours = str(Path(__file__).resolve().parent.parent)
    sys.path += [folder for folder in (ours, os.getcwd()) if folder not in sys.path]
    importlib.import_module("tools")  # from here on its name is taken


if __name__ == "__main__":
    sys.exit(main())
