"""The bindable fields of a component, and the check of a value against a field.

A field that may be infinite says so with ``attrs.field(metadata={"infinite": True})``.
"""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from spinrl.config.gin_text import Reference, walk
from spinrl.config.registry import Component, component_names, did_you_mean, find
from spinrl.config.words import is_fixed_tuple, is_worded, kind_words, leaves, names_under, parts, words


class Mismatch(Exception):
    """A value does not fit a field; the text follows ``Component.field``."""


class _WrongType(Exception):
    """A value is not of a type; the text, often empty, follows the found value."""


@attrs.frozen
class Field:
    """One bindable field of a component: its name in gin, its resolved type and its attrs attribute."""

    name: str
    hint: Any
    attribute: Any  # attrs.Attribute

    @property
    def required(self) -> bool:
        """Whether the field has no default."""
        return self.attribute.default is attrs.NOTHING

    def default(self) -> Any:
        """The default's value; a factory that needs the instance has none and gives ``attrs.NOTHING``."""
        default = self.attribute.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            return attrs.NOTHING if default.takes_self else default.factory()
        return default

    @property
    def expected(self) -> str:
        """The type and range in words."""
        return words(self.hint, list(leaves(self.attribute.validator)))


@functools.cache
def fields_of(cls: type[Component]) -> Mapping[str, Field]:
    """The bindable fields of a component class, in order of definition."""
    hints = typing.get_type_hints(cls)
    attributes = [attribute for attribute in attrs.fields(cls) if attribute.init]  # type: ignore[arg-type]
    return {each.alias: Field(each.alias, hints[each.name], each) for each in attributes}


def accept(value: Any, field: Field) -> Any:
    """`value` as the field's type: an int becomes a float, a list a tuple and a string a path where the
    field's type says so.

    References stay references: only their class is checked. Everything else is checked whole, validators included.

    Raises:
        Mismatch: saying what was expected and what was found.
    """
    try:
        accepted = _convert(value, field.hint, bool(field.attribute.metadata.get("infinite")))
    except _WrongType as error:
        raise Mismatch(f"must be {field.expected}; found {shorten(value)}{error}") from None
    if any(isinstance(each, Reference) for each in walk(accepted)):
        return accepted  # validators see the components that are built in their place
    for validator in parts(field.attribute.validator):
        try:
            validator(None, field.attribute, accepted)
        except (TypeError, ValueError) as error:
            said = "" if is_worded(validator) else f" ({one_line(error)})"
            raise Mismatch(f"must be {field.expected}; found {shorten(value)}{said}") from None
        except AttributeError:
            pass  # it compares fields, and there is no component yet; it runs when that is built
    return accepted


def shorten(value: Any) -> str:
    """The value's repr, cut to fit a message."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]} … {text[-16:]}"


def one_line(error: Exception) -> str:
    """An exception's own message (attrs puts the attribute and the value behind it) on one line."""
    return " ".join(str(error.args[0] if error.args else error).split())


def _convert(value: Any, hint: Any, infinite: bool) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments, infinite)
    if origin is Literal:
        for option in arguments:
            if type(value) is type(option) and value == option:
                return value
        strings = [option for option in arguments if isinstance(option, str)]
        raise _WrongType(did_you_mean(value, strings, "{!r}") if isinstance(value, str) else "")
    if origin in (tuple, list, Sequence):
        return _convert_sequence(value, hint, infinite)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _WrongType
        key, item = arguments
        return {_convert(k, key, infinite): _convert(v, item, infinite) for k, v in value.items()}
    if isinstance(value, Reference) or (isinstance(hint, type) and issubclass(hint, Component)):
        return _convert_component(value, hint)
    if hint is float:
        return _convert_float(value, infinite)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)  # gin reads 1e6 as a float
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is None:
        hint = types.NoneType
    if hint is Any or (isinstance(value, hint) and (hint is bool or not isinstance(value, bool))):
        return value
    raise _WrongType


def _convert_union(value: Any, arms: Iterable[Any], infinite: bool) -> Any:
    """The arm that takes the value as it is, else the first that takes it converted."""
    taken, reasons = [], ""
    for arm in arms:
        try:
            taken.append(_convert(value, arm, infinite))
        except _WrongType as error:
            reasons = reasons or str(error)
    if not taken:
        raise _WrongType(reasons)
    return next((each for each in taken if type(each) is type(value)), taken[0])


def _convert_sequence(value: Any, hint: Any, infinite: bool) -> Any:
    if not isinstance(value, list | tuple):
        raise _WrongType
    arguments = typing.get_args(hint)
    if is_fixed_tuple(hint):
        if len(value) != len(arguments):
            raise _WrongType
        return tuple(_convert(item, each, infinite) for item, each in zip(value, arguments, strict=True))
    items = [_convert(item, arguments[0], infinite) for item in value]
    return items if typing.get_origin(hint) is list else tuple(items)


def _convert_float(value: Any, infinite: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _WrongType
    try:
        number = float(value)
    except OverflowError:
        raise _WrongType(", which is too large") from None
    if math.isnan(number) or (math.isinf(number) and not infinite):
        raise _WrongType(", which is not finite")
    return number


def _convert_component(value: Any, hint: Any) -> Any:
    is_component = isinstance(hint, type) and issubclass(hint, Component)
    if isinstance(value, Component) and is_component and isinstance(value, hint):
        return value
    if isinstance(value, str) and is_component:
        name = value.removesuffix("()").removeprefix("@")
        near = f"; write @{name}()" if name in names_under(hint) else did_you_mean(name, names_under(hint), "@{}()")
        raise _WrongType(near)
    if not isinstance(value, Reference):
        raise _WrongType
    cls = find(value.name)
    if cls is None:
        names = names_under(hint) if is_component else component_names()
        near = did_you_mean(value.name, names, "@{}()") or "; give the module of one of your own with --import"
        raise _WrongType(f", which is not registered{near}")
    if not is_component or not issubclass(cls, hint):
        raise _WrongType(f", which is {kind_words(cls)}")
    if not value.called:
        raise _WrongType(f", which is not called; write {value!r}()")
    return value
