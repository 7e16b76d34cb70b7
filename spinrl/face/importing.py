"""Imports from Python: cached by their content, with messages that name arguments in place of options."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from spinrl.cache import get_sound
from spinrl.config.serialize import fingerprint
from spinrl.data import Store
from spinrl.data.importers.request import Request
from spinrl.data.importers.result import ImportResult
from spinrl.data.importers.values import MISSING
from spinrl.data.store.store import opener
from spinrl.errors import UserError

Choices = Sequence[int] | int | Literal["observed"]


def imported(name: str, identity: Any, request: Callable[[], Request]) -> Store:
    """The store of an import, which is made where the cache has none of the same content and options."""
    made: list[ImportResult] = []

    def build(path: Path) -> None:
        made.append(request().write(path))

    store = get_sound("stores", f"{name}-import-{fingerprint(identity)}", build, opener(), on_damage=warnings.warn)
    for line in (line for result in made for line in result.warnings):
        warnings.warn(line, stacklevel=3)
    return store


@contextmanager
def in_python(file: Path | None = None, name: str = "") -> Iterator[None]:
    """Say of the command's options what they are called here, and of a temporary file what it holds."""
    try:
        yield
    except UserError as error:
        text = str(error) if file is None else str(error).replace(str(file), name)
        raise UserError(re.sub(_OPTION, _argument, text)) from error


# An option, and its value where one follows: the column of a meaning, a word, a place-holder in capitals, or numbers.
_OPTION = r"--([a-z][a-z-]*)(?:[ =]([a-z_]+=[^\s,;]+|[a-z]+\b|[A-Z]+(?:=[A-Z]+)?\b|-?\d+(?:,-?\d+)*))?"


def _argument(option: re.Match[str]) -> str:
    """``--ends terminal`` as ``ends='terminal'``, and ``--column actions=dose`` as ``columns={'actions': 'dose'}``."""
    name, value = {"column": "columns"}.get(option[1], option[1].replace("-", "_")), option[2]
    if not value:
        return name
    if value in ("terminal", "timeout", "observed", *MISSING) or value == "NAME":
        return f"{name}={value!r}"
    if "=" in value:
        meaning, _, column = value.partition("=")
        return f"{name}={{{meaning!r}: {column!r}}}"
    if value.islower():  # the sentence goes on
        return f"{name} {value}"
    return f"{name}=[{value}]" if "," in value else f"{name}={value}"


def array_of(name: str, value: ArrayLike) -> np.ndarray:
    """What was given as an array with a row for each step.

    Raises:
        UserError: naming it, when it is none.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} must be an array with a row for each step; found rows of different lengths") from error
    if array.dtype == object or array.ndim == 0:
        raise UserError(f"{name} must be an array of numbers with a row for each step; found {str(value)[:60]}")
    return array


def numbers(value: Choices | None) -> str | None:
    """Choices as the command line has them."""
    if value is None or isinstance(value, str):
        return value
    values = np.atleast_1d(np.asarray(value))
    return ",".join(str(each) for each in values.tolist())


def names(value: str | Sequence[str]) -> str:
    """Names of columns as the command line has them."""
    return value if isinstance(value, str) else ",".join(value)


def state_of(file: str) -> list[Any]:
    """What tells that a file has changed; nothing of a dataset that is no file."""
    path = Path(file).expanduser()
    if not path.exists():
        return [file]
    parts = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [str(path.resolve()), [[each.name, each.stat().st_size, each.stat().st_mtime_ns] for each in parts]]
