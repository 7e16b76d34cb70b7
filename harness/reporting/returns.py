"""The table of returns: one row for every evaluation episode, and nothing derived.

Every table and figure is a pure function of these rows and of the reference returns in `ReportMeta`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import attrs
import pandas as pd

from harness.records import CELL_COLUMNS, CellKey, Evaluation

_DTYPES = {
    "task": str,
    "bins": "int64",
    "tier": str,
    "policy": str,
    "algorithm": str,
    "seed": "int64",
    "gradient_step": "int64",
    "fraction": "float64",
    "episode": "int64",
    "return": "float64",
    "asm_seconds": "float64",
    "train_seconds": "float64",
    "evaluation_seconds": "float64",
    "preset": str,
    "metric": str,
    "start_seconds": "float64",
    "discounted": "float64",
    "ended_early": "int64",
    "asm_share": "float64",
    "low": "float64",
    "high": "float64",
    "effective_episodes": "float64",
    "remark": str,
    "details": str,
}
# Values of columns that tables of earlier versions lack.
_ABSENT = {"start_seconds": "0", "discounted": "nan", "ended_early": "0", "asm_share": "1"}
_BOUNDS = ("low", "high", "effective_episodes")  # of estimates
_ABSENT |= {**dict.fromkeys(_BOUNDS, "nan"), "remark": "", "details": ""}


COLUMNS = tuple(_DTYPES)
SECONDS = ("asm_seconds", "start_seconds", "train_seconds", "evaluation_seconds")
RETURNS_FILE = "returns.csv"
META_FILE = "report_meta.json"
IDENTITY = ("preset", *CELL_COLUMNS)  # columns that identify a cell


@attrs.frozen
class Reference:
    """Random and expert return by which scores of one task and bin count are normalised."""

    random: float
    expert: float


@attrs.frozen(kw_only=True)
class ReportMeta:
    """Data that belongs to a table of returns but is not in its rows.

    Attributes:
        experiment: name of the experiment in MLflow.
        references: random and expert return by (task, bins); a task without one is reported unnormalised.
        asm_epochs: passes over the dataset that ASM pre-training makes at its full length, by (preset, task,
            bins, tier).
    """

    experiment: str
    references: Mapping[tuple[str, int], Reference] = attrs.field(factory=dict)
    asm_epochs: Mapping[tuple[str, str, int, str], float] = attrs.field(factory=dict)

    def to_json(self) -> str:
        """JSON text for the artifact beside the returns."""
        references = [
            {"task": task, "bins": bins, **attrs.asdict(reference)}
            for (task, bins), reference in sorted(self.references.items())
        ]
        epochs = [
            {"preset": preset, "task": task, "bins": bins, "tier": tier, "epochs": epochs}
            for (preset, task, bins, tier), epochs in sorted(self.asm_epochs.items())
        ]
        plain = {"experiment": self.experiment, "references": references, "asm_epochs": epochs}
        return json.dumps(plain, indent=1)

    @classmethod
    def from_json(cls, text: str) -> ReportMeta:
        """The inverse of `to_json`."""
        plain = json.loads(text)
        references = {
            (row["task"], int(row["bins"])): Reference(row["random"], row["expert"]) for row in plain["references"]
        }
        epochs = {
            (row["preset"], row["task"], int(row["bins"]), row["tier"]): row["epochs"]
            for row in plain.get("asm_epochs", [])  # absent from older stores
        }
        return cls(experiment=plain["experiment"], references=references, asm_epochs=epochs)


def to_the_minute(seconds: float) -> str:
    """Seconds since the epoch as text in UTC, to the minute, as in `Invocation.started`."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


@attrs.frozen(kw_only=True)
class Invocation:
    """One run of the command that produced returns.

    Attributes:
        name: name of its MLflow run.
        started: start time in UTC.
        status: status of its MLflow run, e.g. ``FINISHED``.
        tags: tags of its run: preset, git_commit, ``version.<package>``, ``machine.<choice>``.
        given: gin files and bindings as given; empty if not stored.
        resolved: value of every field; empty if not stored.
    """

    name: str
    started: str
    status: str
    tags: Mapping[str, str]
    given: str
    resolved: str

    def facts(self) -> list[tuple[str, str]]:
        """Name and text of each short fact; versions and machine choices are one line each."""
        rows = [("started", f"{self.started} UTC"), ("status", self.status)]
        grouped: dict[str, list[str]] = {}
        for name, value in sorted(self.tags.items()):
            group, _, rest = name.partition(".")
            if rest:
                grouped.setdefault(group, []).append(f"{rest} {value}")
            else:
                rows.append((name, value))
        return rows + [(group, ", ".join(values)) for group, values in grouped.items()]

    def texts(self) -> list[tuple[str, str]]:
        """Name and text of the stored configurations."""
        named = (("as given", self.given), ("every value", self.resolved))
        return [(name, text) for name, text in named if text.strip()]


def to_frame(results: Iterable[tuple[CellKey, Evaluation]], *, preset: str) -> pd.DataFrame:
    """One row an episode, or an estimate; ``metric`` says what its ``return`` holds, NaN of an estimate withheld.

    Args:
        results: pairs of cell and evaluation, in any order.
        preset: scale of the results (``laptop``, ``paper``); every row names it.
    """
    rows = [
        {
            **attrs.asdict(key),
            **{name: value for name, value in evaluation.to_plain().items() if name != "returns"},
            "details": json.dumps(evaluation.details) if evaluation.details else "",
            "episode": episode,
            "discounted": evaluation.discounted[episode] if evaluation.discounted else float("nan"),
            "return": value,
            "preset": preset,
        }
        for key, evaluation in results
        for episode, value in enumerate(evaluation.returns or [float("nan")])
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_DTYPES)


def from_frame(frame: pd.DataFrame) -> list[tuple[CellKey, Evaluation]]:
    """The inverse of `to_frame` (the preset is left behind), in order of cell, gradient step and metric."""
    results = []
    for values, rows in frame.groupby([*CELL_COLUMNS, "gradient_step", "metric", "asm_share"], sort=True):
        rows = rows.sort_values("episode")
        first = rows.iloc[0]
        key = CellKey(**{name: _plain(value) for name, value in zip(CELL_COLUMNS, values, strict=False)})
        evaluation = Evaluation(
            gradient_step=int(first["gradient_step"]),
            fraction=float(first["fraction"]),
            returns=tuple(rows["return"].dropna()),
            asm_seconds=float(first["asm_seconds"]),
            train_seconds=float(first["train_seconds"]),
            evaluation_seconds=float(first["evaluation_seconds"]),
            metric=str(first["metric"]),
            start_seconds=float(first["start_seconds"]),
            discounted=() if rows["discounted"].isna().all() else tuple(rows["discounted"]),
            ended_early=bool(first["ended_early"]),
            asm_share=float(first["asm_share"]),
            **{name: None if pd.isna(first[name]) else float(first[name]) for name in _BOUNDS},  # type: ignore[arg-type]
            remark=str(first["remark"]),
            details=json.loads(first["details"] or "{}"),
        )
        results.append((key, evaluation))
    return results


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def to_csv(frame: pd.DataFrame) -> str:
    """CSV text that `read_csv` gives back exactly."""
    return frame[list(COLUMNS)].to_csv(index=False)


def read_csv(source: str | Path) -> pd.DataFrame:
    """A table from a CSV file (a `Path`) or from CSV text (a `str`).

    Raises:
        ValueError: if columns are missing or a value is not of its column's type; the message names them.
    """
    name = str(source) if isinstance(source, Path) else "the table"
    # Everything as text at first: a tier may be called "null", and floats are then read exactly.
    raw = pd.read_csv(source if isinstance(source, Path) else StringIO(source), dtype=str, keep_default_na=False)
    raw = raw.assign(**{column: value for column, value in _ABSENT.items() if column not in raw.columns})
    missing = [column for column in COLUMNS if column not in raw.columns]
    if missing:
        raise ValueError(f"{name} has no column {', '.join(missing)}")
    empty = {column: {"": "nan"} for column in ("return", "discounted", "asm_seconds", *_BOUNDS)}
    try:
        return raw[list(COLUMNS)].replace(empty).astype(_DTYPES)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} holds a value of the wrong type: {error}") from error


def trained(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of policies in training, without evaluations of the ASM before it (`Evaluating.during_pretraining`)."""
    return table[table["gradient_step"] > 0]


def learning_seconds(table: pd.DataFrame) -> pd.Series:
    """Seconds of each row that count towards time to target: ASM pre-training, starts, and training."""
    return table["asm_seconds"] + table["start_seconds"] + table["train_seconds"]


def merge(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table from the tables of several invocations, oldest first.

    If a cell is in several tables, all rows of one training are kept: the longest training, and the latest among
    equals. So a complete re-run replaces earlier results, and an unfinished or shorter one does not.
    """
    best: dict[tuple, pd.DataFrame] = {}
    for frame in frames:
        for identity, rows in frame.groupby(list(IDENTITY), sort=False):
            kept = best.get(identity)
            if kept is None or rows["gradient_step"].max() >= kept["gradient_step"].max():
                best[identity] = rows
    if not best:
        return to_frame([], preset="")
    return pd.concat(best.values(), ignore_index=True)
