"""Tables and figures from stored returns alone: ``python -m harness.report --experiment NAME``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.commands import typed
from harness.entry_point import entry_point
from harness.records import RETURN
from harness.reporting.comparison_figures import comparison_figures
from harness.reporting.comparisons import asymptotic_runs, by_asm_length
from harness.reporting.figures import figures, policy_styles, save
from harness.reporting.html import html_page
from harness.reporting.probe import RESULTS_FILE, probe_figures
from harness.reporting.returns import Invocation, ReportMeta, to_csv, to_frame
from harness.reporting.sections import Section, notes, probe_section, sections
from harness.reporting.statistics import summarize
from harness.reporting.tables import estimate_tables, half_width, matrix_tables, setting_tables, text_columns
from spinrl.errors import UserError


def console_report(table: pd.DataFrame, meta: ReportMeta) -> RenderableType:
    """The numbers of each task and the averages over tasks, for a terminal of 80 columns and more."""
    parts: list[RenderableType] = []
    summary = summarize(table, meta)
    returns = summary[summary["metric"] == RETURN]
    for title, rows in chain(setting_tables(returns, half_width), matrix_tables(returns), estimate_tables(summary)):
        parts += [Text(title, style="bold"), _console_table(rows)]
    if not parts:
        return Text(f"experiment {meta.experiment}: no evaluation has been stored yet")
    return Group(*parts, *(Text(note, style="dim") for note in notes(table)))


def markdown_report(table: pd.DataFrame, meta: ReportMeta) -> str:
    """Everything a report says but its figures and settings, as Markdown."""
    return _markdown(meta.experiment, sections(table, summarize(table, meta), meta, []), (), notes(table))


def write_report(
    table: pd.DataFrame,
    meta: ReportMeta,
    directory: Path,
    invocations: Sequence[Invocation] = (),
    probes: pd.DataFrame | None = None,
) -> list[Path]:
    """Write ``report.html``, ``report.md``, the raw numbers (``returns.csv``, ``probe.csv``) and every figure (PNG and
    SVG) into `directory`.

    Args:
        table: of `harness.records`.
        meta: what goes with it.
        directory: made where it is missing.
        invocations: what the table was made by; without them a report has no settings.
        probes: of `harness.tracking.read_back.load_probes`, if there are any.

    Returns:
        Every file written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths, stems = [], []
    summary = summarize(table, meta) if len(table) else table
    for stem, figure in _figures(table, summary, meta, probes):
        paths += save(figure, directory, stem)
        stems.append(stem)
    parts = sections(table, summary, meta, stems) if len(table) else []
    if probes is not None:
        parts.append(probe_section(probes, stems))
    images = {stem: (directory / f"{stem}.svg").read_bytes() for stem in stems}
    raw = [("returns.csv", to_csv(table))] if len(table) or probes is None else []
    raw += [] if probes is None else [(RESULTS_FILE, probes.to_csv(index=False))]
    for name, text in (
        ("report.html", html_page(table, meta, parts, images, invocations, probes)),
        ("report.md", _markdown(meta.experiment, parts, invocations, notes(table) if len(table) else ())),
        *raw,
    ):
        (directory / name).write_text(text, encoding="utf-8")
        paths.append(directory / name)
    return paths


def _figures(
    table: pd.DataFrame, summary: pd.DataFrame, meta: ReportMeta, probes: pd.DataFrame | None
) -> Iterator[tuple[str, Figure]]:
    if len(table):
        styles = policy_styles({*summary["policy"], *by_asm_length(summary, meta)["base"]})
        returned = table[table["metric"] == RETURN]
        runs = asymptotic_runs(returned, meta)
        yield from comparison_figures(summary[summary["metric"] == RETURN], runs, meta, styles)
        yield from figures(summary, meta, styles)
    if probes is not None:
        yield from probe_figures(probes)


def _markdown(
    experiment: str, parts: Sequence[Section], invocations: Sequence[Invocation], notes: Sequence[str]
) -> str:
    lines = [f"# {experiment}", ""]
    for part in parts:
        lines += [f"## {part.title}", "", *([part.note, ""] if part.note else [])]
        for title, rows in part.tables:
            text = text_columns(rows)
            align = ["---"] * text + ["---:"] * (len(rows.columns) - text)
            body = [rows.columns, align, *rows.itertuples(index=False)]
            lines += [f"### {title}", "", *(f"| {' | '.join(map(str, row))} |" for row in body), ""]
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


def _console_table(rows: pd.DataFrame) -> Table:
    """A table; where there are policies and tiers, the policy is a heading of its own to save width."""
    sections = "policy" in rows and "tier" in rows
    shown = rows.drop(columns="policy") if sections else rows
    rendered = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, padding=(0, 1))
    for index, column in enumerate(shown.columns):
        rendered.add_column(Text(str(column)), justify="left" if index < text_columns(shown) else "right")
    policy = None
    for full, row in zip(rows.itertuples(index=False), shown.itertuples(index=False), strict=True):
        if sections and full[0] != policy:
            policy = full[0]
            rendered.add_row(Text(str(policy), style="bold"))
        # As it is: rich would take a policy called spin[fixed] for markup.
        rendered.add_row(*(Text(f"  {value}" if sections and i == 0 else str(value)) for i, value in enumerate(row)))
    return rendered


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("harness.report"),
        description="Rebuild an experiment's tables and figures from the returns stored in MLflow, without training.",
        epilog="""examples:
  python -m harness.report --experiment spin_humanoid
  python -m harness.report --experiment spin_humanoid --out report/
  python -m harness.report --experiment spin_humanoid --tracking-uri http://localhost:5000
  python -m harness.report --experiment spin_humanoid --log   # the merged pages into the latest parent run too

All invocations of the experiment are merged: of a cell run twice, the results of the longest training count, and of
equals the latest.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--experiment", required=True, help="name of the MLflow experiment")
    made.add_argument("--tracking-uri", help="MLflow store (default: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db here)")
    made.add_argument(
        "--out",
        type=Path,
        default=Path("report"),
        help="folder for pages and figures (default: report)",
    )
    made.add_argument(
        "--log", action="store_true", help="log the pages to the experiment's latest parent run, as merged_report/, too"
    )
    return made


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = parser().parse_args(arguments)

    from harness.tracking.read_back import (  # MLflow takes seconds to import; --help need not wait
        NoReturnsError,
        load_invocations,
        load_probes,
        load_results,
        log_merged_report,
    )

    try:
        probes, probing = load_probes(options.tracking_uri, options.experiment)
        try:
            table, meta = load_results(options.tracking_uri, options.experiment)
            invocations = load_invocations(options.tracking_uri, options.experiment)
        except NoReturnsError:
            if probes is None:
                raise
            table, meta, invocations = to_frame([], preset=""), ReportMeta(experiment=options.experiment), []
        paths = write_report(table, meta, options.out, [*invocations, *probing], probes)
        logged = log_merged_report(options.tracking_uri, options.experiment, paths) if options.log else None
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console()
    if len(table):
        console.print(console_report(table, meta))
    console.print(f"{len(paths)} files in {options.out}: report.html, report.md and more", highlight=False)
    if logged:
        console.print(f"logged to run {logged}", highlight=False, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
