"""The stages of one cell on the terminal, from its events."""

from __future__ import annotations

from rich.console import Console

from harness.cells.events import (
    ASMReady,
    DatasetReady,
    Event,
    FeaturesReady,
    Metrics,
    Restarted,
    StageProgress,
    StageStarted,
    StartReady,
    Waiting,
)
from harness.terminal.progress import ProgressLine, Stage
from spinrl.events import STARTS

_SHOWN = ("train/loss_policy", "train/loss_asm", "start/loss_imitation", "start/loss_qvalue")  # beside the live line
_ENDS = {DatasetReady: "collecting", ASMReady: "pre-training", FeaturesReady: "embedding"}


class CellStages:
    """Turns the events of one cell into stages of a `ProgressLine`.

    Args:
        progress: line that shows the stages.
        console: console for the line about a file that the cell waits for.
        label: label of the cell.
    """

    def __init__(self, progress: ProgressLine, console: Console, label: str) -> None:
        self._progress = progress
        self._console = console
        self._label = label
        self._open: dict[str, Stage] = {}
        self._current: Stage | None = None

    def event(self, event: Event) -> None:
        """Handle an event of the cell."""
        match event:
            case StageStarted(stage, total, unit):
                if stage not in self._open:
                    self._open[stage] = self._progress.stage(self._label, stage, total, unit)
                self._current = self._open[stage]
                self._progress.show(self._current)
            case StageProgress(done) if self._current is not None:
                self._current.update(done)
            case Metrics(_, values) if self._current is not None:
                shown = {name.partition("/")[2]: value for name, value in values.items() if name in _SHOWN}
                self._current.metrics = shown
            case Restarted():
                for begun in self._open.values():
                    begun.finish()
                self._open, self._current = {}, None
            case Waiting(path):
                waits = f"{self._label}: another run is making {path.name}; waiting for it"
                self._console.print(waits, style="dim", soft_wrap=True)
            case DatasetReady() | ASMReady() | FeaturesReady():
                self._finish(_ENDS[type(event)])
            case StartReady(kind):
                self._finish(STARTS[kind])

    def _finish(self, stage: str) -> None:
        """End a stage; one that was never begun had its result in the cache."""
        if stage in self._open:
            self._open.pop(stage).finish()
        else:
            self._progress.settle(self._label, stage)
        self._current = None
