"""The registry as a listing: every component with its fields, types, defaults and docstring lines."""

from __future__ import annotations

import inspect
import re
import textwrap

import attrs

from spinrl.config.extensions import import_installed
from spinrl.config.fields import fields_of
from spinrl.config.registry import Component, components
from spinrl.config.serialize import default_text, summary


def format_registry(width: int = 100) -> str:
    """The registry as text for a terminal of so many columns."""
    import_installed()
    lines: list[str] = []
    for kind, known in components().items():
        lines += [kind.upper(), ""]
        for component, cls in known.items():
            lines += textwrap.wrap(f"@{component}()  {summary(cls)}", width, subsequent_indent="    ")
            docs = field_docs(cls)
            for name, field in fields_of(cls).items():
                head = f"{component}.{name} = {_default(field.required, field.default())}"
                body = f"{field.expected}: {docs[name]}" if name in docs else field.expected
                lines += textwrap.wrap(head, width, initial_indent="    ", subsequent_indent="        ")
                lines += textwrap.wrap(body, width, initial_indent="        ", subsequent_indent="        ")
            lines.append("")
    return "\n".join(lines)


def field_docs(cls: type[Component]) -> dict[str, str]:
    """What the docstrings of a component and its bases say of each field, each on one line."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        docs |= _attribute_docs(base.__doc__ or "")
    return docs


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
