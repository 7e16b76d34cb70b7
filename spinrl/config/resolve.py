"""Gives gin statements their meaning: every binding checked, then components built from the root down.

References, scopes and macros mean what they mean in gin: ``@scope/Name()`` makes `scope` the active one for the
component and all below it, an unscoped reference inherits the active scope, and a macro's value is read within the
scope of the macro's name. Beyond gin, bindings also reach the components that are a field's default, so that no
binding is silently without effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from spinrl.config.fields import Field, Mismatch, accept, fields_of, one_line, shorten
from spinrl.config.gin_text import Binding, Macro, Place, Reference, Statements, walk
from spinrl.config.registry import Component, ConfigError, component_names, components, did_you_mean, find

_REQUIRED = Macro("gin.REQUIRED")
_BROKEN: Any = object()  # stands for a value that a problem was reported about


@attrs.frozen
class _Bound:
    """A checked value for a field, macros filled in and references still in place."""

    value: Any
    place: Place


class Resolver:
    """Checks statements, and builds components from them.

    Args:
        statements: statements that were read.
        start: name for problems without a place of their own, such as an unset field of the root.
    """

    def __init__(self, statements: Statements, start: str) -> None:
        self._statements = statements
        self._start = Place(0, 0, start)
        self._problems: dict[tuple[Place, str], None] = dict.fromkeys(statements.problems)
        # What is missing from a file that could not be read would show up as misspelt or unset names.
        self._complete = not statements.problems
        self._macros = {binding.key: binding for binding in statements.bindings if not binding.field}
        self._bound: dict[tuple[tuple[str, ...], type[Component]], dict[str, _Bound]] = {}
        self._built: dict[tuple[type[Component], tuple[str, ...]], Any] = {}
        self._check_doubled()
        for binding in statements.bindings:
            if binding.field:
                self._check_binding(binding)

    def check_names(self) -> None:
        """Find macros and scopes that nothing uses: a person who wrote them has misspelt them somewhere."""
        if self._complete:
            self._check_macros()
            self._check_scopes()

    def build(self, root: type[Component], scope: tuple[str, ...] = ()) -> Any:
        """The component of a class in a scope, with everything in it.

        Raises:
            ConfigError: with everything that was found to be wrong, in order of file and line.
        """
        built = self._component(root, scope, self._start, ()) if self._complete else _BROKEN
        if self._problems:
            by_place = sorted(self._problems, key=lambda each: (each[0].opening, each[0].line))
            # A file that is included twice has each of its problems once.
            raise ConfigError(dict.fromkeys(f"{place}: {text}" for place, text in by_place))
        return built

    def _problem(self, place: Place, text: str) -> None:
        self._problems[place, text] = None

    # --- every statement by itself ---------------------------------------------------------------------------

    def _check_doubled(self) -> None:
        seen: dict[tuple[Any, ...], Place] = {}
        for binding in self._statements.bindings:
            component = find(binding.component) or binding.component
            # A file may override another, and the command line any file; neither may contradict itself.
            giver = binding.place.opening if binding.place.line else "command line"
            key = (giver, binding.scope, component, binding.field)
            first = seen.setdefault(key, binding.place)
            if first is not binding.place:
                self._problem(binding.place, f"{binding.key} is set a second time; the first is {first}")

    def _check_binding(self, binding: Binding) -> None:
        cls = find(binding.component)
        if cls is None:
            near = did_you_mean(binding.component.split(".")[-1], component_names())
            near = near or "; give the module of one of your own with --import"
            self._problem(binding.place, f"{binding.component} is not a registered component{near}")
            return
        field = fields_of(cls).get(binding.field)
        if field is None:
            near = did_you_mean(binding.field, fields_of(cls)) or f"; it has {', '.join(fields_of(cls)) or 'none'}"
            self._problem(binding.place, f"{binding.component}.{binding.field} is not a field of {cls.__name__}{near}")
            return
        value = _BROKEN
        try:
            expanded = self._expand(binding.value, ())
            value = expanded if expanded is _REQUIRED else accept(expanded, field)
        except _UnknownMacro as error:
            # Where a file is missing the macro may stand in that.
            if self._complete and error.direct:
                self._problem(binding.place, f"{binding.key} uses {error}")
        except Mismatch as error:
            used = {each: self._macros.get(each.name) for each in walk(binding.value) if isinstance(each, Macro)}
            origin = "".join(f" ({macro!r} is set in {at.place})" for macro, at in used.items() if at)
            self._problem(binding.place, f"{binding.key} {error}{origin}")
        self._bound.setdefault((binding.scope, cls), {})[binding.field] = _Bound(value, binding.place)

    def _expand(self, value: Any, within: tuple[str, ...]) -> Any:
        """The value with macros filled in. What a macro refers to is read in the scope of the macro's name."""
        if isinstance(value, Macro) and value.name not in within:
            if value.name in ("REQUIRED", _REQUIRED.name):
                return _REQUIRED
            if value.name not in self._macros:
                near = did_you_mean(value.name, self._macros, "%{}")
                raise _UnknownMacro(f"{value!r}, which is not set{near}", direct=not within)
            return self._expand(self._macros[value.name].value, (*within, value.name))
        if isinstance(value, Macro):
            chain = " -> ".join(f"%{name}" for name in (*within, value.name))
            raise _UnknownMacro(f"{value!r}, which is set to itself: {chain}", direct=False)
        if isinstance(value, Reference) and within and not value.scope:
            return attrs.evolve(value, scope=tuple(within[-1].split("/")))
        if isinstance(value, list | tuple):
            return type(value)(self._expand(item, within) for item in value)
        if isinstance(value, dict):
            if any(True for _ in walk(list(value))):
                raise Mismatch(f"must have plain keys in its dict; found {shorten(value)}")
            return {key: self._expand(item, within) for key, item in value.items()}
        return value

    # --- names over all statements ---------------------------------------------------------------------------

    def _used(self) -> Iterator[tuple[Binding, Reference | Macro]]:
        """Every reference and macro, those of overridden bindings too: overriding one misspells nothing."""
        for binding in self._statements.bindings:
            for used in walk(binding.value):
                yield binding, used

    def _check_macros(self) -> None:
        used = {each.name for _, each in self._used() if isinstance(each, Macro)}
        for binding in self._statements.bindings:
            if not binding.field and binding.key not in used:
                near = _owners(binding.key) or did_you_mean(binding.key, used, "%{}")
                self._problem(binding.place, f"{binding.key} is set as a macro, but nothing uses %{binding.key}{near}")
            elif not binding.field:
                self._check_macro_value(binding)

    def _check_macro_value(self, binding: Binding) -> None:
        """Macros and the components in them may be used by nothing but other macros."""
        try:
            self._expand(binding.value, (binding.key,))
        except _UnknownMacro as error:
            self._problem(binding.place, f"{binding.key} uses {error}")
        except Mismatch as error:
            self._problem(binding.place, f"{binding.key} {error}")

    def _check_scopes(self) -> None:
        references = [(binding, each) for binding, each in self._used() if isinstance(each, Reference) and each.scope]
        active = {each.scope for _, each in references} | {tuple(name.split("/")) for name in self._macros}
        reached = {scope[:length] for scope in [*active, ()] for length in range(len(scope) + 1)}
        bound = {binding.scope for binding in self._statements.bindings if binding.field}
        named = {"/".join(scope) for scope in reached | bound if scope}
        for binding in self._statements.bindings:
            if binding.field and binding.scope not in reached:
                scope = "/".join(binding.scope)
                near = did_you_mean(scope, {"/".join(each) for each in reached if each}, "{}/" + binding.component)
                text = f"{binding.key}: no reference uses the scope {scope!r}, as @{scope}/{binding.component}() would"
                self._problem(binding.place, text + near)
        for binding, each in references:
            if each.scope not in bound:
                scope = "/".join(each.scope)
                near = did_you_mean(scope, named - {scope}, f"@{{}}/{each.name}()")
                self._problem(binding.place, f"{binding.key}: nothing is set in the scope {scope!r} of {each!r}{near}")

    # --- building --------------------------------------------------------------------------------------------

    def _component(
        self,
        cls: type[Component],
        scope: tuple[str, ...],
        place: Place,
        outer: tuple[tuple[type[Component], tuple[str, ...]], ...],
        defaults: Mapping[str, Any] | None = None,
    ) -> Any:
        """The component of a class in a scope; `defaults` are the values of one that is itself a default."""
        key = (cls, scope)
        if defaults is None and key in outer:
            chain = " -> ".join("/".join([*scope, cls.__name__]) for cls, scope in [*outer[outer.index(key) :], key])
            self._problem(place, f"components refer to each other in a circle: {chain}")
            return _BROKEN
        if defaults is None and key in self._built:
            return self._built[key]
        bound: dict[str, _Bound] = {}
        for length in range(len(scope) + 1):
            bound |= self._bound.get((scope[:length], cls), {})
        values: dict[str, Any] = dict(defaults or {})
        for name, field in fields_of(cls).items():
            if name in bound and bound[name].value is not _REQUIRED:
                values[name] = self._value(bound[name].value, scope, bound[name].place, (*outer, key))
            elif name in bound or (field.required and name not in values):
                self._unset(cls, field, bound.get(name), place)
                values[name] = _BROKEN
            elif (default := values.get(name, field.default())) is not attrs.NOTHING:
                values[name] = self._value(default, scope, place, (*outer, key))
        built = _BROKEN
        if not any(value is _BROKEN for value in values.values()):
            try:
                built = cls(**values)
            except (TypeError, ValueError) as error:
                self._problem(*_blame(cls, one_line(error), bound, place))
        if defaults is None:
            self._built[key] = built
        return built

    def _value(self, value: Any, scope: tuple[str, ...], place: Place, outer: tuple[Any, ...]) -> Any:
        """The value with references built, and bindings applied to components that are defaults."""
        if isinstance(value, Reference):
            cls = find(value.name)
            assert cls is not None, "accept() takes registered references only"
            return self._component(cls, value.scope or scope, place, outer)
        if isinstance(value, Component):
            defaults = {name: getattr(value, each.attribute.name) for name, each in fields_of(type(value)).items()}
            return self._component(type(value), scope, place, outer, defaults)
        if isinstance(value, list | tuple):
            items = [self._value(item, scope, place, outer) for item in value]
            return _BROKEN if any(item is _BROKEN for item in items) else type(value)(items)
        if isinstance(value, Mapping):
            pairs = {key: self._value(item, scope, place, outer) for key, item in value.items()}
            return _BROKEN if any(item is _BROKEN for item in pairs.values()) else pairs
        return value

    def _unset(self, cls: type[Component], field: Field, bound: _Bound | None, place: Place) -> None:
        said = "is still %gin.REQUIRED" if bound else "is not set"
        text = f"{cls.__name__}.{field.name} {said}; it must be {field.expected}"
        self._problem(bound.place if bound else place, text)


class _UnknownMacro(Exception):
    """A macro that has no value; the text follows ``KEY uses``. `direct` is False where it stands in another macro."""

    def __init__(self, text: str, direct: bool) -> None:
        super().__init__(text)
        self.direct = direct


def _owners(name: str) -> str:
    """``; did you mean IQL.expectile?`` for a field typed without its component."""
    known = [cls for each in components().values() for cls in each.values()]
    owners = [f"{cls.__name__}.{name}" for cls in known if name in fields_of(cls)]
    return f"; did you mean {' or '.join(owners)}?" if owners else ""


def _blame(cls: type[Component], message: str, bound: Mapping[str, _Bound], place: Place) -> tuple[Place, str]:
    """Where a component that refused its values was given them: the field that its message names first, or the last."""
    named = [bound[word].place for word in re.findall(r"\w+", message) if word in bound]
    last = max((each.place for each in bound.values()), default=place)
    return (named or [last])[0], f"{cls.__name__}: {message}"
