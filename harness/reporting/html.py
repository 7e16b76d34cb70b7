"""A report as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from harness.reporting.returns import Invocation, ReportMeta
from harness.reporting.sections import Section, notes
from harness.reporting.statistics import policy_order, tier_order
from harness.reporting.tables import PAPER, text_columns

_TEMPLATE = Path(__file__).with_name("page.html.j2")
_FACTS: tuple[tuple[str, Callable[[Any], Any] | None], ...] = (
    ("preset", None),
    ("task", None),
    ("bins", None),
    ("tier", tier_order),
    ("policy", policy_order),
    ("algorithm", None),
    ("seed", None),
)


def html_page(
    table: pd.DataFrame,
    meta: ReportMeta,
    sections: Sequence[Section],
    images: Mapping[str, bytes],
    invocations: Sequence[Invocation] = (),
    probes: pd.DataFrame | None = None,
) -> str:
    """The page.

    Args:
        table: table of returns as in `harness.records`; the page begins with its tasks, policies and seeds.
        meta: source of the experiment's name.
        sections: sections from `harness.reporting.sections`.
        images: SVG of every figure that `sections` names, by file stem.
        invocations: command runs whose settings are shown.
        probes: table of the linear probe, used if `table` is empty.
    """
    shown = table if len(table) or probes is None else probes
    return render(
        meta.experiment,
        {name: _distinct(shown[name], order) for name, order in _FACTS if name in shown},
        sections,
        images,
        notes=notes(shown) if shown is table else (),
        invocations=invocations,
    )


def render(
    title: str,
    facts: Mapping[str, str],
    sections: Sequence[Section],
    images: Mapping[str, bytes],
    *,
    notes: Sequence[str],
    invocations: Sequence[Invocation] = (),
    text_columns: Callable[[pd.DataFrame], int] = text_columns,
) -> str:
    """A page of sections.

    Args:
        title: heading of the page.
        facts: lines under the heading, by name.
        sections: tables and figures.
        images: SVG of every figure that `sections` names, by file stem.
        notes: notes after the tables.
        invocations: command runs whose settings are shown.
        text_columns: function that gives the number of text columns, from the left, of a table.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.globals.update(text_columns=text_columns, paper=PAPER, zip=zip)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        experiment=title,
        facts=facts,
        sections=sections,
        images={stem: "data:image/svg+xml;base64," + base64.b64encode(svg).decode() for stem, svg in images.items()},
        notes=notes,
        invocations=invocations,
    )


def _distinct(values: pd.Series, order: Callable[[Any], Any] | None) -> str:
    return ", ".join(map(str, sorted(values.unique(), key=order)))
