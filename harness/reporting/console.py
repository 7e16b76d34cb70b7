"""The tables of a report in a terminal of 80 columns and more."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.reporting.tables import NamedTable, text_columns


def console_tables(tables: Iterable[NamedTable], notes: Iterable[str]) -> RenderableType:
    """Every table under its title, and the notes below them."""
    parts: list[RenderableType] = []
    for title, rows in tables:
        parts += [Text(title, style="bold"), console_table(rows)]
    return Group(*parts, *(Text(note, style="dim") for note in notes))


def console_table(rows: pd.DataFrame) -> Table:
    """One table; if it has policies and tiers, each policy becomes a heading, which saves width."""
    headed = "policy" in rows and "tier" in rows
    shown = rows.drop(columns="policy") if headed else rows
    rendered = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, padding=(0, 1))
    for index, column in enumerate(shown.columns):
        rendered.add_column(Text(str(column)), justify="left" if index < text_columns(shown) else "right")
    policy = None
    for full, row in zip(rows.itertuples(index=False), shown.itertuples(index=False), strict=True):
        if headed and full[0] != policy:
            policy = full[0]
            rendered.add_row(Text(str(policy), style="bold"))
        # Text objects: rich would read a policy name such as spin[fixed] as markup.
        rendered.add_row(*(Text(f"  {value}" if headed and i == 0 else str(value)) for i, value in enumerate(row)))
    return rendered
