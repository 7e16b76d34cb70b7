"""The registry as a listing: every component with its fields, types, defaults and docstring lines."""

from __future__ import annotations

import inspect
import re
import textwrap

import attrs

from spinrl.config.fields import fields_of
from spinrl.config.registry import Component, components
from spinrl.config.serialize import default_text, summary


@attrs.frozen
class FieldRecord:
    """One field, all in words; `doc` is empty where no docstring lists it."""

    name: str
    type: str
    default: str
    doc: str


@attrs.frozen
class ComponentRecord:
    """One registered component."""

    kind: str
    name: str
    summary: str
    fields: tuple[FieldRecord, ...]


def describe_registry() -> list[ComponentRecord]:
    """Every registered component, by kind and then name."""
    return [
        ComponentRecord(kind, name, summary(cls), _field_records(cls))
        for kind, known in components().items()
        for name, cls in known.items()
    ]


def format_registry(width: int = 100) -> str:
    """The registry as text for a terminal of so many columns."""
    lines: list[str] = []
    kind = ""
    for record in describe_registry():
        if record.kind != kind:
            kind = record.kind
            lines += [f"{kind.upper()}", ""]
        lines += textwrap.wrap(f"@{record.name}()  {record.summary}", width, subsequent_indent="    ")
        for field in record.fields:
            head = f"{record.name}.{field.name} = {field.default}"
            body = f"{field.type}: {field.doc}" if field.doc else field.type
            lines += textwrap.wrap(head, width, initial_indent="    ", subsequent_indent="        ")
            lines += textwrap.wrap(body, width, initial_indent="        ", subsequent_indent="        ")
        lines.append("")
    return "\n".join(lines)


def _field_records(cls: type[Component]) -> tuple[FieldRecord, ...]:
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        docs |= _attribute_docs(base.__doc__ or "")
    return tuple(
        FieldRecord(name, field.wants, _default(field.required, field.default()), docs.get(name, ""))
        for name, field in fields_of(cls).items()
    )


def _default(required: bool, value: object) -> str:
    # A default that a factory works out from the other fields has no one value to show.
    return "(from the other fields)" if value is attrs.NOTHING and not required else default_text(value)


def _attribute_docs(docstring: str) -> dict[str, str]:
    """The entries of a docstring's ``Attributes:`` section, each on one line."""
    section = re.search(r"^Attributes:\n((?:[ \t]+.*\n|\n)*)", inspect.cleandoc(docstring) + "\n", re.MULTILINE)
    docs: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(section[1]).splitlines() if section else ():
        entry = re.match(r"(\w+)(?:\s*\([^)]*\))?:\s*(.*)", line)
        if entry:
            name, docs[entry[1]] = entry[1], entry[2]
        elif name and line.strip():
            docs[name] = f"{docs[name]} {line.strip()}".strip()
    return docs
