"""Time left of a whole run, from a plan that is corrected by the measured times of its stages."""

from __future__ import annotations

from collections.abc import Sequence

import attrs


@attrs.define
class _Entry:
    seconds: float = 0.0  # planned, over all its parts
    parts: int = 0  # how often the stage is started and ended, e.g. six evaluations
    completed: float = 0.0  # share, 0 to 1


class TimeLeft:
    """Time left of a plan.

    The plan's seconds are estimates, and only their proportions matter. Each kind of stage is corrected by the ratio
    of measured to planned seconds of that kind so far, or of all kinds while it has none.

    Args:
        plan: (cell label, stage, estimated seconds) of all work; a stage with several separate parts (evaluations)
            has an entry for each.
        parallel: number of stages that run at once.
    """

    def __init__(self, plan: Sequence[tuple[str, str, float]], parallel: int = 1) -> None:
        self._plan: dict[tuple[str, str], _Entry] = {}
        for cell, stage, seconds in plan:
            entry = self._plan.setdefault((cell, stage), _Entry())
            entry.seconds += seconds
            entry.parts += 1
        self._real: dict[str, float] = {}
        self._planned: dict[str, float] = {}
        self._parallel = max(parallel, 1)

    def record(self, cell: str, stage: str, begin: float, end: float, seconds: float | None) -> None:
        """Record that a part of a stage went from share `begin` to share `end` in `seconds`.

        Seconds are None if the time says nothing about speed, since another run did the work.
        """
        entry = self._plan.get((cell, stage))
        if entry is None:
            return
        entry.completed = min(entry.completed + (end - begin) / entry.parts, 1.0)
        if seconds is None:
            return
        self._real[stage] = self._real.get(stage, 0.0) + seconds
        self._planned[stage] = self._planned.get(stage, 0.0) + entry.seconds * (end - begin) / entry.parts

    def settle(self, cell: str, stage: str | None = None) -> None:
        """Mark a stage or a whole cell as done: it has finished, was cached, or has failed."""
        for (its_cell, its_stage), entry in self._plan.items():
            if its_cell == cell and stage in (None, its_stage):
                entry.completed = 1.0

    def part(self, cell: str, stage: str) -> float:
        """Expected seconds of one part of the stage; 0 if it is not in the plan."""
        entry = self._plan.get((cell, stage))
        return 0.0 if entry is None else entry.seconds / entry.parts * self._correction(stage)

    def left(self, running: Sequence[tuple[str, str, float, float]] = ()) -> float:
        """Seconds to the end.

        Args:
            running: (cell, stage, share of its part at which it began, seconds left of the part) of each running
                stage.
        """
        total = 0.0
        under_way = {(cell, stage): begin for cell, stage, begin, _left in running}
        for (cell, stage), entry in self._plan.items():
            share = 1.0 - entry.completed
            if (cell, stage) in under_way:
                share -= (1.0 - under_way[cell, stage]) / entry.parts
            total += max(share, 0.0) * entry.seconds * self._correction(stage)
        seconds = [left for *_, left in running]
        # Never sooner than the longest running stage.
        return max((total + sum(seconds)) / self._parallel, max(seconds, default=0.0))

    def _correction(self, stage: str) -> float:
        real, planned = self._real.get(stage, 0.0), self._planned.get(stage, 0.0)
        if not planned:
            real, planned = sum(self._real.values()), sum(self._planned.values())
        return real / planned if planned else 1.0
