"""Reads gin text into plain statements, each with the file and line it stands in.

Only gin's parser is used, never gin's global state: what a configuration means is worked out by `spinrl.config`,
which can so check every binding before anything is built, and leaves nothing behind.
"""

from __future__ import annotations

import os
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
from gin import config_parser  # type: ignore[attr-defined]  # mypy sees our gin/ folder

from spinrl.config.registry import did_you_mean

_SEARCH_PATH: list[Path] = []


def add_search_path(path: str | Path) -> None:
    """Look for gin files in this directory too, after the including file's directory and the working directory."""
    if Path(path) not in _SEARCH_PATH:
        _SEARCH_PATH.append(Path(path))


@attrs.frozen(order=True)
class Place:
    """Where a statement stands.

    Attributes:
        opening: counts the files in the order they were opened, then the command-line options.
        line: from 1; 0 in a command-line option, or for a file as a whole.
        source: the file's name as the user wrote it, or the command-line option.
    """

    opening: int
    line: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


def written(scope: Sequence[str], name: str) -> str:
    """``scope/name``. Scopes that begin with a dot, which plain data is given, are not shown."""
    return "/".join([*(each for each in scope if not each.startswith(".")), name])


@attrs.frozen
class Reference:
    """``@scope/Name()``, or ``@scope/Name`` where it is not called."""

    scope: tuple[str, ...]
    name: str
    called: bool

    def __repr__(self) -> str:
        return f"@{written(self.scope, self.name)}{'()' if self.called else ''}"


@attrs.frozen
class Macro:
    """``%NAME``."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


@attrs.frozen
class Binding:
    """``scope/Component.field = value``; a macro's definition where `field` is empty (the component is its name)."""

    scope: tuple[str, ...]
    component: str
    field: str
    value: Any
    place: Place

    @property
    def key(self) -> str:
        """The left side as it is written."""
        return written(self.scope, self.component) + (f".{self.field}" if self.field else "")


@attrs.define
class Statements:
    """Everything that was read.

    Attributes:
        bindings: bindings in the order in which they take effect: a later one overrides an earlier one.
        problems: (place, text) of everything that could not be read.
        texts: (header, text) of every file in the order of opening, then of the command line.
    """

    bindings: list[Binding] = attrs.field(factory=list)
    problems: list[tuple[Place, str]] = attrs.field(factory=list)
    texts: list[tuple[str, str]] = attrs.field(factory=list)

    @property
    def given(self) -> str:
        """The text as it was given, each file once and headed by its name."""
        return "\n".join(f"# ==== {header} ====\n{text.rstrip()}\n" for header, text in dict.fromkeys(self.texts))


def walk(value: Any) -> Iterator[Reference | Macro]:
    """Every reference and macro in a parsed value, however deep."""
    if isinstance(value, Reference | Macro):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from walk(item)
    elif isinstance(value, dict):
        for pair in value.items():
            yield from walk(pair)


def read(files: Sequence[str | Path], bindings: Sequence[str] = ()) -> Statements:
    """Read gin files in order, with what they include, and then bindings given on the command line.

    Nothing is raised: what cannot be read is in the result's `problems`.
    """
    reader = _Reader()
    for file in files:
        reader.read_named(str(file), None, None)
    reader.read_command_line(bindings)
    return reader.statements


class _Delegate(config_parser.ParserDelegate):
    """Has gin's parser build plain references, without looking anything up."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        *scope, name = scoped_configurable_name.split("/")
        return Reference(tuple(scope), name, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


@attrs.frozen
class _File:
    name: str  # as printed
    path: Path


class _Reader:
    def __init__(self) -> None:
        self.statements = Statements()
        self._openings = 0
        self._including: list[_File] = []

    def read_named(self, name: str, includer: _File | None, place: Place | None) -> None:
        """Find and read one file; `includer` and `place` say which include statement asked for it."""
        file = _find(name, includer)
        said = f"include {name!r}: " if place else ""
        place = place or Place(self._openings, 0, name)
        if file is None:
            bases = _bases(includer)
            looked = ", ".join(dict.fromkeys(str(base) for base in bases))
            near = did_you_mean(name, _neighbours(name, bases), "{!r}")
            self.statements.problems.append((place, f"{said}there is no such file (looked in {looked}){near}"))
        elif any(file.path.samefile(each.path) for each in self._including):
            chain = " -> ".join([*(each.name for each in self._including), file.name])
            self.statements.problems.append((place, f"{said}files include each other in a circle: {chain}"))
        else:
            try:
                text = file.path.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
                self.statements.problems.append((place, f"{said}cannot be read: {reason}"))
                return
            self.statements.texts.append((file.name, text))
            self._including.append(file)
            self._read_text(text, file, self._next_opening(), file.name)
            self._including.pop()

    def read_command_line(self, bindings: Sequence[str]) -> None:
        if bindings:
            self.statements.texts.append(("command line", "\n".join(bindings)))
        for text in bindings:
            opening = self._next_opening()
            label = f"--set {text if len(text) <= 80 else text[:80] + '…'!r}"
            before = len(self.statements.bindings) + len(self.statements.problems)
            self._read_text(text, None, opening, label)
            if len(self.statements.bindings) + len(self.statements.problems) == before:
                place = Place(opening, 0, label)
                self.statements.problems.append((place, "sets nothing; give a binding such as 'IQL.expectile=0.7'"))

    def _next_opening(self) -> int:
        self._openings += 1
        return self._openings

    def _read_text(self, text: str, file: _File | None, opening: int, label: str) -> None:
        def place(line: int) -> Place:
            return Place(opening, line if file else 0, label)

        try:
            parser = config_parser.ConfigParser(text, _Delegate())
            while (statement := parser.parse_statement()) is not None:
                self._take(statement, file, place(statement.location.line_num))
        # The parser leaks a StopIteration where the text ends too early, a TypeError for an unhashable key, and
        # Python's own limit where brackets nest too deep.
        except (SyntaxError, tokenize.TokenError, StopIteration, TypeError, ValueError, RecursionError) as error:
            line, reason = _syntax(error)
            self.statements.problems.append((place(min(line, text.count("\n") + 1)), reason))

    def _take(self, statement: Any, file: _File | None, place: Place) -> None:
        if isinstance(statement, config_parser.BindingStatement):
            scope = tuple(statement.scope.split("/")) if statement.scope else ()
            binding = Binding(scope, statement.selector, statement.arg_name, statement.value, place)
            self.statements.bindings.append(binding)
        elif isinstance(statement, config_parser.IncludeStatement) and file:
            self.read_named(statement.filename, file, place)
        elif isinstance(statement, config_parser.IncludeStatement):
            self.statements.problems.append(
                (place, "an include stands in a gin file; give the file with --gin instead")
            )
        elif isinstance(statement, config_parser.ImportStatement):
            text = f"'{statement.format()}' is not allowed: a configuration runs no code; give the module with --import"
            self.statements.problems.append((place, text))
        # What is left is the head of an indented block, whose bindings follow as statements of their own.


def _syntax(error: Exception) -> tuple[int, str]:
    """The line and a one-line reason of what the parser raised."""
    if isinstance(error, SyntaxError):
        line, reason = error.lineno or 0, error.msg
    elif isinstance(error, tokenize.TokenError):
        reason, (line, _) = error.args
    else:
        line, reason = 0, "a bracket, a value or a dict's key is not well formed"
    if "Failed to parse token" in reason:
        token = reason.split("Failed to parse token", 1)[1].strip()
        reason = f"{token} is not a value (write strings in quotes, and True, False and None with a capital)"
    return line, "gin syntax: " + " ".join(reason.split())


def _bases(includer: _File | None) -> list[Path]:
    return [*([includer.path.parent] if includer else []), Path("."), *_SEARCH_PATH]


def _find(name: str, includer: _File | None) -> _File | None:
    for base in _bases(includer):
        path = base / name
        try:
            if not path.is_file():
                continue
        except (OSError, ValueError):  # a name that no file can have
            continue
        if includer and base == includer.path.parent:
            return _File(os.path.normpath(os.path.join(os.path.dirname(includer.name), name)), path)
        return _File(name, path)
    return None


def _neighbours(name: str, bases: Iterable[Path]) -> list[str]:
    """The gin files beside where `name` was looked for, named the way it is."""
    folder = Path(name).parent
    try:
        return [str(folder / path.name) for base in bases for path in (base / folder).glob("*.gin")]
    except (OSError, ValueError):
        return []
