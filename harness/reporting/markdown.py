"""A report, or one of its tables, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.reporting.returns import Invocation
from harness.reporting.sections import Section
from harness.reporting.tables import text_columns


def markdown_table(rows: pd.DataFrame) -> str:
    """The lines of one table."""
    text = text_columns(rows)
    align = ["---"] * text + ["---:"] * (len(rows.columns) - text)
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (rows.columns, align, *rows.itertuples(index=False)))


def markdown_page(
    experiment: str, parts: Sequence[Section], invocations: Sequence[Invocation], notes: Sequence[str]
) -> str:
    """The page; figures are links to PNG files beside it.

    Args:
        experiment: title of the page.
        parts: sections from `harness.reporting.sections`.
        invocations: command runs whose settings are shown.
        notes: notes after the tables.
    """
    lines = [f"# {experiment}", ""]
    for part in parts:
        lines += [f"## {part.title}", "", *([part.note, ""] if part.note else [])]
        for title, rows in part.tables:
            lines += [f"### {title}", "", markdown_table(rows), ""]
        lines += [line for stem in part.figures for line in (f"![{stem}]({stem}.png)", "")]
    if not parts:
        lines += ["No evaluation has been stored yet.", ""]
    lines += [*(f"{note}  " for note in notes), ""]
    if invocations:
        lines += ["## Settings", ""]
    for run in invocations:
        lines += [f"### {run.name}", "", *(f"- {name}: {value}" for name, value in run.facts()), ""]
        lines += [line for _, text in run.texts() for line in ("```python", text.strip(), "```", "")]
    return "\n".join(lines)
