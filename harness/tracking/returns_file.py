"""The evaluations of an unfinished study on disk, by which it is resumed; MLflow mirrors them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import attrs

from harness.records import CellKey, Evaluation
from spinrl.cache import home


def study_folder(run_key: str) -> Path:
    """The folder of a study in the cache, by the key of its parent run."""
    return home() / "studies" / run_key


class ReturnsFile:
    """A file of JSON lines, one per evaluation. Lines that a full disk does not take are written later.

    Args:
        path: path of the file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending = ""

    @classmethod
    def of(cls, run_key: str) -> ReturnsFile:
        """The file of a study."""
        return cls(study_folder(run_key) / "returns.jsonl")

    def add(self, key: CellKey, evaluation: Evaluation) -> None:
        """Append an evaluation."""
        line = json.dumps({"cell": attrs.asdict(key), "evaluation": evaluation.to_plain()})
        self._pending += f"\n{line}\n"  # the first newline ends a line that a kill or a full disk left half-written
        content = self._pending.encode()
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                if file.write(content) == len(content):
                    self._pending = ""

    def read(self) -> dict[CellKey, list[Evaluation]]:
        """The evaluations of each cell, in order; half-written lines are skipped, and a missing file is empty."""
        found: dict[CellKey, dict[tuple[int, str], Evaluation]] = {}
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for line in filter(None, lines):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            evaluation = Evaluation.from_plain(entry["evaluation"])
            cell = found.setdefault(CellKey(**entry["cell"]), {})
            cell[evaluation.gradient_step, evaluation.metric] = evaluation
        return {key: list(each.values()) for key, each in found.items()}

    def delete(self) -> None:
        """Remove the file, and the study's folder if it is then empty."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()
