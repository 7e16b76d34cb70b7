"""Tables and figures from stored returns alone: ``python -m harness.report --experiment NAME``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console, RenderableType
from rich.text import Text

from harness.commands import typed
from harness.entry_point import entry_point
from harness.records import RETURN
from harness.reporting.cells import half_width
from harness.reporting.comparison_figures import comparison_figures
from harness.reporting.comparisons import asymptotic_runs, by_asm_length
from harness.reporting.console import console_tables
from harness.reporting.docs import rendered_docs
from harness.reporting.estimate_figures import truth_figures
from harness.reporting.figures import figures, policy_styles, save
from harness.reporting.html import html_page
from harness.reporting.markdown import markdown_page
from harness.reporting.probe import RESULTS_FILE, probe_figures
from harness.reporting.returns import META_FILE, RETURNS_FILE, Invocation, ReportMeta, to_csv, to_frame
from harness.reporting.sections import notes, probe_section, sections
from harness.reporting.statistics import during_pretraining, summarize
from harness.reporting.stored import Study
from harness.reporting.tables import estimate_tables, matrix_tables, setting_tables


def console_report(table: pd.DataFrame, meta: ReportMeta) -> RenderableType:
    """The numbers of each task and the averages over tasks, for a terminal of 80 columns and more."""
    summary = summarize(table, meta)
    returns = summary[summary["metric"] == RETURN]
    tables = [*setting_tables(returns, half_width), *matrix_tables(returns), *estimate_tables(table, summary)]
    if not tables:
        return Text(f"experiment {meta.experiment}: no evaluation has been stored yet")
    return console_tables(tables, notes(table))


def write_report(
    table: pd.DataFrame,
    meta: ReportMeta,
    directory: Path,
    invocations: Sequence[Invocation] = (),
    probes: pd.DataFrame | None = None,
) -> list[Path]:
    """Write ``report.html``, ``report.md``, the raw numbers (``returns.csv``, ``report_meta.json``, ``probe.csv``) and
    every figure (PNG and SVG) into `directory`.

    Args:
        table: table of returns as in `harness.records`.
        meta: reference returns and pre-training lengths that belong to the table.
        directory: output folder; created if missing.
        invocations: command runs that the table comes from; without them the report has no settings.
        probes: table of `harness.tracking.read_back.load_probes`, or None.

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
    raw = [(RETURNS_FILE, to_csv(table)), (META_FILE, meta.to_json())] if len(table) or probes is None else []
    raw += [] if probes is None else [(RESULTS_FILE, probes.to_csv(index=False))]
    for name, text in (
        ("report.html", html_page(table, meta, parts, images, invocations, probes)),
        ("report.md", markdown_page(meta.experiment, parts, invocations, notes(table) if len(table) else ())),
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
        yield from figures(summary, meta, styles, during_pretraining(table))
        yield from truth_figures(table, styles)
    if probes is not None:
        yield from probe_figures(probes)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("harness.report"),
        description="Rebuild an experiment's tables and figures from stored returns, without training.",
        epilog="""examples:
  python -m harness.report --experiment spin_humanoid
  python -m harness.report --experiment spin_humanoid --out report/
  python -m harness.report --experiment spin_humanoid --tracking-uri http://localhost:5000
  python -m harness.report --experiment spin_humanoid --log   # the merged pages into the latest parent run too
  python -m harness.report --folder results/ranking           # from the returns.csv of a report, without MLflow
  python -m harness.report --docs results                     # docs/results.md and the README's results, from results/

All invocations of the experiment are merged. If a cell was run several times, the longest training counts, and the
latest among equals.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument("--experiment", help="name of the MLflow experiment")
    source.add_argument("--folder", type=Path, help="folder with the returns.csv or probe.csv of an earlier report")
    source.add_argument(
        "--docs", type=Path, metavar="RESULTS", help="folder of stored studies, in a checkout, to render the docs from"
    )
    made.add_argument("--tracking-uri", help="MLflow store (default: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db here)")
    made.add_argument("--out", type=Path, default=Path("report"), help="folder for pages and figures (default: report)")
    made.add_argument(
        "--log", action="store_true", help="log the pages to the experiment's latest parent run, as merged_report/, too"
    )
    return made


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    made = parser()
    options = made.parse_args(arguments)
    if options.log and options.experiment is None:
        made.error("--log needs --experiment: only runs of MLflow can be logged to")
    if options.docs is not None:
        for path, text in rendered_docs(options.docs).items():
            path.write_text(text, encoding="utf-8")
            print(f"rendered {path}")
        return 0
    if options.experiment is not None:
        return from_mlflow(options)
    study = Study.read(options.folder)
    show(study.table, study.meta, write_report(study.table, study.meta, options.out, (), study.probes), options.out)
    return 0


def from_mlflow(options: argparse.Namespace) -> int:
    """Write and print the report of an experiment; returns the exit code."""
    from harness.tracking.read_back import (  # MLflow takes seconds to import; --help need not wait
        NoReturnsError,
        load_invocations,
        load_probes,
        load_results,
        log_merged_report,
    )

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
    show(table, meta, paths, options.out)
    if logged:
        print(f"logged to run {logged}")
    return 0


def show(table: pd.DataFrame, meta: ReportMeta, paths: Sequence[Path], directory: Path) -> None:
    """Print the numbers, and where the files are."""
    console = Console()
    if len(table):
        console.print(console_report(table, meta))
    console.print(f"{len(paths)} files in {directory}: report.html, report.md and more", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
