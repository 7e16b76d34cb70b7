"""The typed registry: every configurable component by kind and name.

A component is a frozen, keyword-only attrs class deriving from the abstract base of its kind, which derives
from `Component` and sets `kind`. The attrs class is the configuration: there is no second mirror of its fields.
"""

from __future__ import annotations

import difflib
from abc import ABC
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

import attrs

from spinrl.errors import UserError


class ConfigError(UserError):
    """A configuration that cannot be run.

    Attributes:
        problems: one line each, naming the place, the field, what was expected, what was found and the nearest name.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class Component(ABC):
    """Base of everything that a gin binding can configure."""

    kind: ClassVar[str]


_COMPONENTS: dict[str, dict[str, type[Component]]] = {}

C = TypeVar("C", bound=type[Component])


def register(cls: C) -> C:
    """Register a component under its kind and class name. Use above ``@attrs.frozen(kw_only=True)``.

    Raises:
        TypeError: when the class is not a frozen, keyword-only attrs class deriving from `Component`, or has no
            kind or docstring.
        ValueError: when another class has the same name; names are unique over all kinds, since gin text may give a
            name alone.
    """
    complaint = _complaint(cls)
    if complaint:
        raise TypeError(f"{cls!r} cannot be registered: it needs {complaint}")
    if (known := find(cls.__name__)) is not None:
        raise ValueError(f"{cls.__name__} is already registered, as {known.kind} by {known.__module__}")
    _COMPONENTS.setdefault(cls.kind, {})[cls.__name__] = cls
    return cls


def _complaint(cls: Any) -> str:
    """What a class lacks to be a component; empty when it lacks nothing."""
    if not (isinstance(cls, type) and issubclass(cls, Component) and attrs.has(cls)):
        return "to be an attrs class and a Component, with @register above @attrs.frozen"
    frozen = cls.__setattr__.__name__ == "_frozen_setattrs"  # the only mark that every attrs version leaves
    if not (frozen and all(field.kw_only for field in attrs.fields(cls) if field.init)):
        return "@attrs.frozen(kw_only=True)"
    if not getattr(cls, "kind", ""):
        return "a kind, set by the abstract base that it derives from"
    return "" if cls.__doc__ else "a docstring that lists its fields"


def components() -> dict[str, dict[str, type[Component]]]:
    """Every registered class, by kind and then name, both sorted."""
    return {kind: dict(sorted(_COMPONENTS[kind].items())) for kind in sorted(_COMPONENTS)}


def component_names() -> list[str]:
    """The names of all registered components of every kind, sorted."""
    return sorted(name for known in _COMPONENTS.values() for name in known)


def find(selector: str) -> type[Component] | None:
    """The class that a gin selector names (``SPIN``, or ``policy.SPIN`` as gin also allows), or None."""
    *modules, name = selector.split(".")
    for kind, known in _COMPONENTS.items():
        if name in known:
            module = ["spinrl", *kind.split(".")]
            return known[name] if modules == module[len(module) - len(modules) :] else None
    return None


def did_you_mean(name: str, known: Iterable[str], form: str = "{}") -> str:
    """``; did you mean NAME?`` for the known name nearest to `name`, in the given form; empty where none is near."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {form.format(by_lower[near[0]])}?" if near else ""
