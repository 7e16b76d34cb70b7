"""Gin files and bindings to one checked, frozen, plain object.

Every binding is checked before anything is built, including those of components that end up unused, and all that
is wrong is reported at once, each with its file and line. What the statements mean is in `spinrl.config.resolve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import attrs

from spinrl.config.extensions import import_installed
from spinrl.config.gin_text import read
from spinrl.config.registry import Component, find
from spinrl.config.resolve import Resolver
from spinrl.config.serialize import dump

T = TypeVar("T", bound=Component)


@attrs.frozen
class Resolved(Generic[T]):
    """A configuration, ready to run.

    Attributes:
        value: the root component with everything in it.
        given: the gin text as given, each file headed by its name, then the command line.
        resolved: gin text of every field's value, which loads to an equal object.
    """

    value: T
    given: str
    resolved: str


def load(root: type[T], files: Sequence[str | Path], bindings: Sequence[str] = ()) -> Resolved[T]:
    """Read, check and resolve a configuration. No gin state is read or left behind.

    Args:
        root: the registered component class to resolve.
        files: gin files in order, relative to the working directory or a search path; later ones override.
        bindings: such as ``IQL.expectile=0.7``; they override the files.

    Raises:
        ConfigError: with everything that is wrong, in order of file and line.
    """
    import_installed()
    if find(root.__name__) is not root:
        raise TypeError(f"{root.__name__} is not a registered component")
    statements = read(files, bindings)
    resolver = Resolver(statements, str(files[0]) if files else "configuration")
    resolver.check_names()
    value = resolver.build(root)
    return Resolved(value, statements.given, dump(value))
