"""Components as plain data, as gin text, as flat parameters and as a fingerprint, and back.

Plain data (``{"component": "SPIN", "fields": {...}}``, JSON-able) is how a configuration reaches worker processes
and metadata files; flat parameters are for experiment trackers.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from spinrl.config.extensions import import_installed
from spinrl.config.fields import fields_of, shorten
from spinrl.config.gin_text import Binding, Place, Reference, Statements
from spinrl.config.registry import Component, ConfigError, component_names, did_you_mean, find
from spinrl.config.resolve import Resolver

_PLAIN = "plain configuration"  # name of the place in errors about plain data


def to_plain(component: Component) -> dict[str, Any]:
    """The component and everything in it as dicts, lists, strings, numbers, booleans and None.

    Raises:
        TypeError: for a component that is not registered or holds something else.
    """
    if find(type(component).__name__) is not type(component):
        raise TypeError(f"{type(component).__name__} is not a registered component")
    values = {name: _plain_value(value) for name, value in _values(component)}
    return {"component": type(component).__name__, "fields": values}


def from_plain(plain: Mapping[str, Any]) -> Component:
    """The component that `to_plain` made `plain` from, checked like a gin file. Fields left out take their default.

    Each component's fields become bindings in a scope of its own, which are then resolved like those of gin text.

    Raises:
        ConfigError: naming every unknown component or field, and every value that does not fit.
    """
    import_installed()
    if not _is_plain_component(plain):
        raise ConfigError([f"{_PLAIN}: expected a dict of 'component' and 'fields'; found {shorten(plain)}"])
    statements = Statements()
    root = _reference(plain, "", statements)
    cls = find(root.name)
    if cls is None:
        near = did_you_mean(root.name, component_names())
        own = "; import the module of one of your own first (--import MODULE)"
        raise ConfigError([f"{_PLAIN}: {root.name} is not a registered component{near}{own}"])
    return Resolver(statements, _PLAIN).build(cls, root.scope)


def plain_changes(component: Component) -> dict[str, Any]:
    """As `to_plain`, without the fields that have their default: what must be set for the rest to be free."""
    changed = {}
    for name, field in fields_of(type(component)).items():
        value = getattr(component, field.attribute.name)
        if value != field.default():
            changed[name] = plain_changes(value) if isinstance(value, Component) else _plain_value(value)
    return {"component": type(component).__name__, "fields": changed}


def dump(component: Component) -> str:
    """Gin text that sets every field, which `spinrl.config.load` reads back as an equal object.

    A class that appears with several values gets one scope for each, named by its ``name`` field where it has one.

    Raises:
        ValueError: for NaN, which gin text cannot say.
    """
    scopes = _scopes(component)
    blocks: dict[str, str] = {}
    for each in components_in(component):
        prefix = scopes[fingerprint(to_plain(each))]
        lines = [f"# {type(each).__name__}: {summary(type(each))}"]
        lines += [f"{prefix}.{name} = {_literal(value, scopes)}" for name, value in _values(each)]
        blocks.setdefault(prefix, "\n".join(lines) + "\n")
    return "\n".join(blocks.values())


def flatten(component: Component) -> dict[str, Any]:
    """Dotted names to scalars: ``policy`` the component's name, ``policy.dropout`` its field; plain lists as text."""
    flat: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Component):
            flat[name] = type(value).__name__
            for field, inner in _values(value):
                add(f"{name}.{field}", inner)
        elif isinstance(value, Mapping) and value:
            for key, inner in value.items():
                add(f"{name}.{key}", inner)
        elif isinstance(value, list | tuple) and any(isinstance(item, Component) for item in value):
            for index, inner in enumerate(value):
                add(f"{name}.{index}", inner)
        else:
            flat[name] = value if isinstance(value, bool | int | float | str | None) else str(_plain_value(value))

    for field, value in _values(component):
        add(field, value)
    return flat


def fingerprint(plain: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON of plain data."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def summary(cls: type[Component]) -> str:
    """The first line of a component's docstring."""
    return inspect.cleandoc(cls.__doc__ or "").split("\n", 1)[0]


def _values(component: Component) -> Iterator[tuple[str, Any]]:
    for name, field in fields_of(type(component)).items():
        yield name, getattr(component, field.attribute.name)


def _plain_value(value: Any) -> Any:
    if isinstance(value, Component):
        return to_plain(value)
    if isinstance(value, Mapping):
        return {key: _plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} is not plain data")


def _is_plain_component(plain: Any) -> bool:
    return (
        isinstance(plain, Mapping) and plain.keys() == {"component", "fields"} and isinstance(plain["fields"], Mapping)
    )


def _reference(plain: Mapping[str, Any], path: str, into: Statements) -> Reference:
    """A reference to the component that `plain` describes, whose fields become bindings in a scope of its own."""
    scope, name = (path or ".",), str(plain["component"])
    where = f"{_PLAIN} at {path[1:]}" if path else _PLAIN
    for field, item in plain["fields"].items():
        value = bindable(item, f"{path}.{field}", into)
        if path == "" or find(name):  # the field that refers to an unknown component is told so
            into.bindings.append(Binding(scope, name, str(field), value, Place(0, 0, where)))
    return Reference(scope, name, called=True)


def bindable(plain: Any, path: str, into: Statements) -> Any:
    """The value that a binding takes for `plain`."""
    if _is_plain_component(plain):
        return _reference(plain, path, into)
    if isinstance(plain, Mapping):
        return {key: bindable(item, f"{path}.{key}", into) for key, item in plain.items()}
    if isinstance(plain, list | tuple):
        return [bindable(item, f"{path}.{index}", into) for index, item in enumerate(plain)]
    return plain


def components_in(value: Any) -> Iterator[Component]:
    """Every component in a value, itself first, outer before inner."""
    if isinstance(value, Component):
        yield value
        for _, inner in _values(value):
            yield from components_in(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from components_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from components_in(inner)


def _scopes(root: Component) -> dict[str, str]:
    """How each distinct component in the tree is called in gin text, by its fingerprint: ``Tier`` or ``medium/Tier``.

    A class is unscoped in all places or in none, since gin hands an outer scope down to unscoped references. Only
    the root is always unscoped, and then so scoped are the others of its class.
    """
    distinct: dict[type[Component], dict[str, Component]] = {}
    for each in components_in(root):
        distinct.setdefault(type(each), {}).setdefault(fingerprint(to_plain(each)), each)
    names: dict[str, str] = {}
    for cls, values in distinct.items():
        if len(values) == 1:
            names[next(iter(values))] = cls.__name__
            continue
        labels = [str(getattr(each, "name", "")) for each in values.values()]
        unique = len(set(labels)) == len(labels) and all(label.isidentifier() and label.isascii() for label in labels)
        for number, (key, label) in enumerate(zip(values, labels, strict=True), start=1):
            names[key] = f"{label if unique else f'{cls.__name__.lower()}_{number}'}/{cls.__name__}"
    names[fingerprint(to_plain(root))] = type(root).__name__
    return names


def _literal(value: Any, scopes: Mapping[str, str]) -> str:
    """The value as gin reads it."""
    if isinstance(value, Component):
        return f"@{scopes[fingerprint(to_plain(value))]}()"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(k, scopes)}: {_literal(v, scopes)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        items = [_literal(item, scopes) for item in value]
        if isinstance(value, list):
            return f"[{', '.join(items)}]"
        return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            raise ValueError("gin text cannot say NaN")
        return "1e999" if value > 0 else "-1e999"  # gin has no word for infinity, but reads this as it
    return repr(str(value) if isinstance(value, Path) else value)


def default_text(value: Any) -> str:
    """A field's default in words: as gin text, a component that differs from its own defaults as Python."""
    if value is attrs.NOTHING:
        return "required"
    try:
        plain_defaults = all(each == type(each)() for each in components_in(value))
    except TypeError:  # a component with required fields
        plain_defaults = False
    if not plain_defaults:
        return repr(value)
    return _literal(value, {fingerprint(to_plain(each)): type(each).__name__ for each in components_in(value)})
