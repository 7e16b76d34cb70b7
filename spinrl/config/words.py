"""Types and validators of a field in words.

The annotation gives the type and the attrs validators the range; both are read from the class, so that a message
or a listing can never drift from the code.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import validators

from spinrl.config.registry import Component, components

# attrs keeps these classes private; their own functions give them away.
_And: Any = type(validators.and_())
_Optional: Any = type(validators.optional(validators.ge(0)))
_Number: Any = type(validators.ge(0))
_In: Any = type(validators.in_(()))
_Each: Any = type(validators.deep_iterable(validators.ge(0)))
_MinLength: Any = type(validators.min_len(0))
_MaxLength: Any = type(validators.max_len(0))

_OPERATORS = {">=": "at least", ">": "above", "<=": "at most", "<": "below"}
_TYPES = {int: "an int", float: "a float", bool: "True or False", str: "a string", Path: "a path (a string)"}


def words(hint: Any, rules: Sequence[Any] = ()) -> str:
    """A type with validators in words, to stand after "must be".

    Args:
        hint: the resolved annotation.
        rules: its validators, as `leaves` gives them; those that have no words are left out.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        arms = [arm for arm in arguments if arm is not types.NoneType]
        text = " or ".join(words(arm, rules) for arm in arms)
        return f"{text}, or None" if len(arms) < len(arguments) else text
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments)) if len(arguments) > 1 else repr(arguments[0])
    if origin in (tuple, list, Sequence):
        inner = [leaf for rule in rules if isinstance(rule, _Each) for leaf in leaves(rule.member_validator)]
        if is_fixed_tuple(hint):
            return f"a list of {len(arguments)}: " + ", ".join(words(each, inner) for each in arguments)
        return f"a list{_length(rules)}, each {words(arguments[0], inner)}"
    if origin in (dict, Mapping):
        return f"a dict, each key {words(arguments[0])} and each value {words(arguments[1])}"
    if hint is None or hint is types.NoneType:
        return "None"
    if hint is Any:
        return "any value"
    if isinstance(hint, type) and issubclass(hint, Component):
        names = [f"@{name}()" for name in names_under(hint)]
        listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        return f"{kind_words(hint)} ({'one of ' if len(names) > 1 else ''}{listed or 'none is registered'})"
    return _ranged(_TYPES.get(hint) or f"a {getattr(hint, '__name__', hint)}", rules)


def is_fixed_tuple(hint: Any) -> bool:
    """Whether the type is a tuple of a given length."""
    return typing.get_origin(hint) is tuple and typing.get_args(hint)[-1:] != (Ellipsis,)


def names_under(base: type[Component]) -> list[str]:
    """The registered components that a field annotated `base` takes."""
    known = components().get(getattr(base, "kind", ""), {})
    return [name for name, cls in known.items() if issubclass(cls, base)]


def _ranged(text: str, rules: Sequence[Any]) -> str:
    for rule in rules:
        if isinstance(rule, _In):
            listed = "one of " + ", ".join(map(repr, rule.options))
            text = listed if text == _TYPES[str] else f"{text}, {listed}"
    bounds = {rule.compare_op: rule.bound for rule in rules if isinstance(rule, _Number)}
    if {">=", "<="} <= bounds.keys():
        text += f" from {bounds.pop('>=')} to {bounds.pop('<=')}"
    limits = [f"{word} {bounds[operator]}" for operator, word in _OPERATORS.items() if operator in bounds]
    return text + (" " + " and ".join(limits) if limits else "") + _length(rules, "characters")


def _length(rules: Sequence[Any], unit: str = "items") -> str:
    limits = [f"{rule.min_length} or more" for rule in rules if isinstance(rule, _MinLength)]
    limits += [f"{rule.max_length} or fewer" for rule in rules if isinstance(rule, _MaxLength)]
    return f" with {' and '.join(limits)} {unit}" if limits else ""


def kind_words(cls: type[Component]) -> str:
    """``a policy``, ``an encoder``."""
    return f"{'an' if cls.kind[0] in 'aeiou' else 'a'} {cls.kind}"


def parts(validator: Any) -> Iterator[Any]:
    """The validators that must all pass."""
    if isinstance(validator, _And):
        for part in validator._validators:
            yield from parts(part)
    elif validator is not None:
        yield validator


def leaves(validator: Any) -> Iterator[Any]:
    """As `parts`, seen through ``optional``."""
    for part in parts(validator):
        if isinstance(part, _Optional):
            yield from leaves(part.validator)
        else:
            yield part


def is_worded(validator: Any) -> bool:
    """Whether `words` says all that the validator asks for."""
    if isinstance(validator, _Each):
        return validator.iterable_validator is None and all(map(is_worded, leaves(validator.member_validator)))
    if isinstance(validator, _Optional):
        return all(map(is_worded, leaves(validator)))
    return isinstance(validator, _Number | _In | _MinLength | _MaxLength)
