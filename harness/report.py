"""Tables and figures from stored returns alone: ``python -m harness.report --experiment NAME``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.figures import figures, save
from harness.records import ReportMeta, to_csv
from harness.statistics import (
    LINE,
    REFERENCE_POLICY,
    policy_order,
    summarize,
    tier_by_policy,
    tier_order,
    time_to_target,
)

GROUP = ["preset", "metric", "algorithm"]  # never averaged over
SETTING_TITLE = ["task", "bins", *GROUP]
NOTES = (
    "Mean return over seeds and episodes, with its 95% bootstrap interval (bounds in brackets, or half its width "
    "after ±): over seeds where there are several, else over episodes.",
    "Normalized: 100 · (return − random) / (expert − random). Share: of the best return at the full budget of any "
    "policy on the same data.",
    f"Time to target: seconds of ASM pre-training and training until 95% of {REFERENCE_POLICY}'s return at its full "
    "budget; evaluation is not counted.",
)


def console_report(table: pd.DataFrame, meta: ReportMeta) -> RenderableType:
    """Everything a report says, for a terminal of 80 columns and more."""
    parts: list[RenderableType] = []
    for title, rows in _tables(summarize(table, meta), _half_width):
        parts += [Text(title, style="bold"), _console_table(rows)]
    if not parts:
        return Text(f"experiment {meta.experiment}: no evaluation has been stored yet")
    return Group(*parts, *(Text(note, style="dim") for note in NOTES))


def markdown_report(table: pd.DataFrame, meta: ReportMeta) -> str:
    """Everything a report says but its figures, as Markdown."""
    return _markdown(summarize(table, meta), meta, [])


def write_report(table: pd.DataFrame, meta: ReportMeta, directory: Path) -> list[Path]:
    """Write ``report.md``, ``returns.csv`` and every figure (PNG and SVG) into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    summary = summarize(table, meta)
    paths, stems = [], []
    for stem, figure in figures(summary, meta):
        paths += save(figure, directory, stem)
        stems.append(stem)
    for name, text in (("report.md", _markdown(summary, meta, stems)), ("returns.csv", to_csv(table))):
        (directory / name).write_text(text, encoding="utf-8")
        paths.append(directory / name)
    return paths


def _markdown(summary: pd.DataFrame, meta: ReportMeta, figure_stems: Sequence[str]) -> str:
    lines = [f"# {meta.experiment}", ""]
    for title, rows in _tables(summary, _interval):
        text = _text_columns(rows)
        align = ["---"] * text + ["---:"] * (len(rows.columns) - text)
        body = [rows.columns, align, *rows.itertuples(index=False)]
        lines += [f"## {title}", "", *(f"| {' | '.join(map(str, row))} |" for row in body), ""]
    if summary.empty:
        lines += ["No evaluation has been stored yet.", ""]
    lines += [line for stem in figure_stems for line in (f"![{stem}]({stem}.png)", "")]
    return "\n".join([*lines, *(f"{note}  " for note in NOTES), ""])


def _console_table(rows: pd.DataFrame) -> Table:
    """A table; where there are policies and tiers, the policy is a heading of its own to save width."""
    sections = "policy" in rows and "tier" in rows
    shown = rows.drop(columns="policy") if sections else rows
    rendered = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, padding=(0, 1))
    for index, column in enumerate(shown.columns):
        rendered.add_column(str(column), justify="left" if index < _text_columns(shown) else "right")
    policy = None
    for full, row in zip(rows.itertuples(index=False), shown.itertuples(index=False), strict=True):
        if sections and full[0] != policy:
            policy = full[0]
            rendered.add_row(Text(str(policy), style="bold"))
        rendered.add_row(*(f"  {value}" if sections and i == 0 else str(value) for i, value in enumerate(row)))
    return rendered


def _tables(summary: pd.DataFrame, interval: Callable[[Any], str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Title and cells, as text, of each table of a report; `interval` writes a mean with its bounds."""
    for values, group in summary.groupby(SETTING_TITLE, sort=True):
        task, bins, preset, metric, algorithm = values
        setting = f"{task}, {bins} bins, {_algorithm_title(preset, metric, algorithm)}"
        yield f"{setting}: mean return by share of the budget, {_counts(group)}", _by_fraction(group, interval)
        if group["normalized"].notna().any():
            yield f"{setting}: normalized score", _by_fraction(group, lambda row: _number(row.normalized))
        yield f"{setting}: share of the best full-budget return", _by_fraction(group, lambda row: _percent(row.share))
        yield f"{setting}: seconds spent, and time to target", _times(group)
    for values, group in summary.groupby(GROUP, sort=True):
        if group["policy"].nunique() < 2 and group["tier"].nunique() < 2:
            continue
        settings = group[["task", "bins"]].drop_duplicates().itertuples(index=False)
        over = ", ".join(f"{task}, {bins} bins" for task, bins in settings)
        for column, what in (("mean", "return at the full budget"), ("normalized", "normalized score")):
            matrix = tier_by_policy(group, column)
            if matrix.notna().any(axis=None):
                yield f"{_algorithm_title(*values)}: {what} by tier and policy ({over})", _matrix(matrix)


def _algorithm_title(preset: str, metric: str, algorithm: str) -> str:
    return f"{algorithm.upper()}, {preset} preset" + ("" if metric == "return" else f", {metric}")


def _counts(group: pd.DataFrame) -> str:
    """How many seeds, and evaluation episodes of each, are behind the numbers."""
    parts = []
    for numbers, name in ((group["seeds"], "seed"), (group["episodes"] // group["seeds"], "episode")):
        low, high = int(numbers.min()), int(numbers.max())
        parts.append(f"{low if low == high else f'{low} to {high}'} {name}{'' if high == 1 else 's'}")
    return f"{parts[0]} of {parts[1]}"


def _by_fraction(group: pd.DataFrame, cell: Callable[[Any], str]) -> pd.DataFrame:
    fractions = sorted(group["fraction"].unique())
    rows = []
    for (policy, tier), line in _lines(group):
        at = {row.fraction: row for row in line.itertuples()}
        cells = [cell(at[fraction]) if fraction in at else "–" for fraction in fractions]
        rows.append([policy, tier, *cells])
    names = [f"{100 * fraction:g}%" for fraction in fractions]
    return pd.DataFrame(rows, columns=["policy", "tier", *names])


def _times(group: pd.DataFrame) -> pd.DataFrame:
    targets = time_to_target(group).set_index(list(LINE))
    rows = []
    for (policy, tier), line in _lines(group):
        target = targets.loc[tuple(line.iloc[0][list(LINE)])]
        last = line.sort_values("gradient_step").iloc[-1]
        never = target["seconds"] is None and not math.isnan(target["target"])
        rows.append(
            [
                policy,
                tier,
                *(_seconds(last[name]) for name in ("asm_seconds", "train_seconds", "evaluation_seconds")),
                _number(target["target"]),
                "never" if never else _seconds(target["seconds"]),
            ]
        )
    return pd.DataFrame(rows, columns=["policy", "tier", "ASM", "training", "evaluation", "target", "reached in"])


def _matrix(matrix: pd.DataFrame) -> pd.DataFrame:
    rows = [
        [tier, *(_number(value) for value in row)] for tier, row in zip(matrix.index, matrix.to_numpy(), strict=True)
    ]
    return pd.DataFrame(rows, columns=["tier", *matrix.columns])


def _lines(group: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    lines = [((str(policy), str(tier)), line) for (policy, tier), line in group.groupby(["policy", "tier"])]
    return sorted(lines, key=lambda item: (policy_order(item[0][0]), tier_order(item[0][1])))


def _text_columns(rows: pd.DataFrame) -> int:
    return sum(str(column) in ("policy", "tier") for column in rows.columns)


def _interval(row: Any) -> str:
    return f"{row.mean:.1f}" if math.isnan(row.low) else f"{row.mean:.1f} [{row.low:.0f}, {row.high:.0f}]"


def _half_width(row: Any) -> str:
    return f"{row.mean:.0f}" if math.isnan(row.low) else f"{row.mean:.0f}±{(row.high - row.low) / 2:.0f}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}%"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m harness.report",
        description="Rebuild an experiment's tables and figures from the returns stored in MLflow, without training.",
        epilog="""examples:
  python -m harness.report --experiment spin_humanoid
  python -m harness.report --experiment spin_humanoid --out report/
  python -m harness.report --experiment spin_humanoid --tracking-uri http://localhost:5000

All invocations of the experiment are merged: of a cell run twice, the results that went furthest through the
budget count, and of equals the latest.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--experiment", required=True, help="name of the MLflow experiment")
    made.add_argument("--tracking-uri", help="MLflow store (default: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db here)")
    made.add_argument(
        "--out", type=Path, default=Path("report"), help="folder for report.md and figures (default: report)"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = parser().parse_args(arguments)

    from harness.results import ResultsError, load_results  # MLflow takes seconds to import; --help need not wait

    try:
        table, meta = load_results(options.tracking_uri, options.experiment)
        paths = write_report(table, meta, options.out)
    except (ResultsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console()
    console.print(console_report(table, meta))
    console.print(f"{len(paths)} files in {options.out}: report.md, returns.csv and figures", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
