"""Gin files and bindings to one checked, frozen, plain object.

Every binding is checked before anything is built, including those of components that end up unused, and all that
is wrong is reported at once, each with its file and line. What the statements mean is in `spinrl.config.resolve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import attrs

from spinrl.config.gin_text import add_search_path, read
from spinrl.config.listing import describe_registry, format_registry
from spinrl.config.registry import Component, ConfigError, find
from spinrl.config.resolve import Resolver
from spinrl.config.serialize import dump, fingerprint, flatten, from_plain, to_plain

__all__ = [
    "ConfigError",
    "Resolved",
    "add_search_path",
    "describe_registry",
    "dump",
    "fingerprint",
    "flatten",
    "format_registry",
    "from_plain",
    "load",
    "to_plain",
]

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
    if find(root.__name__) is not root:
        raise TypeError(f"{root.__name__} is not a registered component")
    source = read(files, bindings)
    resolver = Resolver(source, str(files[0]) if files else "configuration")
    value = resolver.resolve_root(root)
    if resolver.problems:
        by_place = sorted(resolver.problems, key=lambda each: (each[0].opening, each[0].line))
        # A file that is included twice has each of its problems once.
        raise ConfigError(dict.fromkeys(f"{place}: {text}" for place, text in by_place))
    return Resolved(value, source.given, dump(value))
