"""The current stage, its rate and the time left: one live line, or plain lines in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from harness.terminal.time_left import TimeLeft

PLAIN_PERIOD = 10.0  # seconds between two lines without a terminal


class Stage:
    """One stage of one cell under way. Made by `ProgressLine.stage`; usable as a context manager."""

    def __init__(self, progress: ProgressLine, cell: str, name: str, total: float, unit: str, begin: float) -> None:
        self.cell = cell
        self.name = name
        self.total = total
        self.unit = unit
        self.begin = begin
        self.done = begin
        self.metrics: dict[str, float] = {}
        self._progress = progress
        self._started = progress.clock()
        self._paused_at: float | None = None
        self._idle = 0.0  # seconds paused
        self._last: float | None = None  # time of the last update, None when the next one only sets the baseline
        self._measured = (0.0, 0.0)  # units and seconds between updates

    def update(self, done: float, **metrics: float) -> None:
        """Set the total number of units done, and metrics to show (a loss, a return)."""
        now = self._progress.clock()
        if self._last is not None and self._paused_at is None:
            units, seconds = self._measured
            self._measured = (units + done - self.done, seconds + now - self._last)
        self._last, self.done, self.metrics = now, done, {**self.metrics, **metrics}
        self._progress.show(self)

    def finish(self) -> None:
        """The stage has ended, for now or for good."""
        self._progress.end(self)

    def pause(self) -> None:
        """Another stage of the cell runs first; the time until the next update or `resume` does not count."""
        if self._paused_at is None:
            self._paused_at, self._last = self._progress.clock(), None

    def resume(self) -> None:
        """Continue after a pause."""
        if self._paused_at is not None:
            self._idle += self._progress.clock() - self._paused_at
            self._paused_at = None

    @property
    def elapsed(self) -> float:
        """Seconds at work."""
        now = self._progress.clock() if self._paused_at is None else self._paused_at
        return now - self._started - self._idle

    @property
    def rate(self) -> float | None:
        """Units per second since the first update, so that start-up and compilation do not count."""
        units, seconds = self._measured
        return units / seconds if units > 0 and seconds > 0 else None

    @property
    def left(self) -> float:
        """Seconds to the end of the stage, by its rate or, before it has one, by the plan."""
        rate = self.rate
        if rate is not None:
            return max(self.total - self.done, 0.0) / rate
        planned = self._progress.time_left.part(self.cell, self.name) * (1 - self.share(self.begin))
        return max(planned - self.elapsed, 0.0)

    def share(self, units: float) -> float:
        """`units` as a share of the total, 0 to 1."""
        return min(units / self.total, 1.0) if self.total else 0.0

    def line(self) -> str:
        """Cell and stage, share done, rate, time left, metrics."""
        parts = [f"{self.cell}: {self.name} {100 * self.share(self.done):.0f}%"]
        if self.rate is not None:
            parts.append(f"{_rate(self.rate)} {self.unit}/s")
        if self.left:
            parts.append(f"{duration(self.left)} left")
        return ", ".join([*parts, *(f"{name} {value:.4g}" for name, value in self.metrics.items())])

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_error: object) -> None:
        self.finish()


class ProgressLine:
    """The progress of a whole run; a context manager, which leaves the terminal clean.

    Args:
        total_cells: number of cells.
        console: console to print on: a live line on a terminal, a plain line every ten seconds elsewhere.
        plan: (cell label, stage, estimated seconds) of all stages; see `TimeLeft`.
        parallel: number of stages that run at once.
        clock: function that gives seconds; for tests.
    """

    def __init__(
        self,
        total_cells: int,
        console: Console,
        *,
        plan: Sequence[tuple[str, str, float]] = (),
        parallel: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.time_left = TimeLeft(plan, parallel)
        self.clock = clock
        self._total_cells = total_cells
        self._cells: list[str] = []
        self._console = console
        self._lock = threading.RLock()  # the live line is drawn by a thread of its own
        self._running: list[Stage] = []
        self._current: Stage | None = None
        self._paused: dict[tuple[str, str], float] = {}  # units done of stages that ended before their total
        self._last_plain = clock() - PLAIN_PERIOD
        self._live = None
        if console.is_terminal:
            self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def stage(
        self, cell_label: str, stage_name: str, total_units: float, unit: str, *, begin: float | None = None
    ) -> Stage:
        """Start a stage of a cell, or continue one that ended before its total.

        Args:
            cell_label: label of the cell.
            stage_name: ``collecting``, ``pre-training``, ``training`` or ``evaluating``.
            total_units: total number of units.
            unit: name of the units, e.g. ``steps``.
            begin: units done before; by default those of the same stage of the cell so far.
        """
        with self._lock:
            if cell_label not in self._cells:
                self._cells.append(cell_label)
            before = self._paused.pop((cell_label, stage_name), 0.0)
            stage = Stage(self, cell_label, stage_name, total_units, unit, before if begin is None else begin)
            if stage.begin > before:  # done by an earlier run: nothing left of it, and no measure of speed
                self.time_left.record(cell_label, stage_name, stage.share(before), stage.share(stage.begin), None)
            self._running.append(stage)
        self.show(stage)
        return stage

    def settle(self, cell_label: str, stage_name: str | None = None) -> None:
        """Mark a stage (it was cached) or a whole cell (it has finished or failed) as done."""
        with self._lock:
            for stage in [s for s in self._running if s.cell == cell_label and stage_name in (None, s.name)]:
                self.end(stage)
            self.time_left.settle(cell_label, stage_name)

    def show(self, stage: Stage) -> None:
        """Show `stage`, and make it the running stage of its cell."""
        with self._lock:
            for other in self._running:
                if other is not stage and other.cell == stage.cell:
                    other.pause()
            stage.resume()
            self._current = stage
            if self._live is None and self.clock() - self._last_plain >= PLAIN_PERIOD:
                self._last_plain = self.clock()
                self._console.print(self.line(), highlight=False, markup=False, soft_wrap=True)

    def end(self, stage: Stage) -> None:
        """A stage has ended, for now or for good."""
        with self._lock:
            if stage not in self._running:
                return
            self._running.remove(stage)
            begin, end = stage.share(stage.begin), stage.share(stage.done)
            self.time_left.record(stage.cell, stage.name, begin, end, stage.elapsed)
            if stage.done < stage.total:
                self._paused[stage.cell, stage.name] = stage.done
            if self._current is stage:
                self._current = self._running[-1] if self._running else None

    def left(self) -> float:
        """Seconds to the end of the run."""
        return self.time_left.left([(s.cell, s.name, s.share(s.begin), s.left) for s in self._running])

    def line(self) -> str:
        """Text of the line."""
        with self._lock:
            left, stage = self.left(), self._current
            run = f"run: {duration(left)} left" if left else "run: nearly done"
            if stage is None:
                return run
            more = f" (+{len(self._running) - 1} more)" if len(self._running) > 1 else ""
            return f"[{self._cells.index(stage.cell) + 1}/{self._total_cells}] {stage.line()}{more} | {run}"

    def _render(self) -> Text:
        return Text(self.line(), no_wrap=True, overflow="ellipsis")

    def __enter__(self) -> ProgressLine:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._live is not None:
            self._live.stop()


def duration(seconds: float) -> str:
    """``0:07``, ``12:30`` or ``1:02:03``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
