"""Time left of a whole run, from a plan that is corrected by what its stages really take."""

from __future__ import annotations

from collections.abc import Sequence

import attrs


@attrs.define
class _Entry:
    seconds: float = 0.0  # planned, over all its parts
    parts: int = 0  # how often the stage is started and ended, e.g. six evaluations
    completed: float = 0.0  # share, 0 to 1


class TimeLeft:
    """What is left of a plan.

    The plan's seconds are a guess made for some machine; what counts is their proportion. Each kind of stage is
    corrected by the ratio of real to planned seconds of that kind so far, or of all kinds while it has none.

    Args:
        plan: (cell label, stage, estimated seconds) of all that is to be done; a stage that is done in several
            parts from scratch (evaluations) has an entry for each.
        parallel: how many stages are worked on at once.
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
        """One part of a stage went from share `begin` to share `end` of that part in `seconds`.

        None for seconds means that it says nothing about speed: another run did it.
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
        """Nothing more is to be done of a stage, or of the whole cell: it is done, was cached, or failed."""
        for (its_cell, its_stage), entry in self._plan.items():
            if its_cell == cell and stage in (None, its_stage):
                entry.completed = 1.0

    def part(self, cell: str, stage: str) -> float:
        """Seconds that one part of the stage is now thought to take, 0 for one that is not in the plan."""
        entry = self._plan.get((cell, stage))
        return 0.0 if entry is None else entry.seconds / entry.parts * self._correction(stage)

    def left(self, running: Sequence[tuple[str, str, float, float]] = ()) -> float:
        """Seconds to the end.

        Args:
            running: (cell, stage, share of its part at which it began, seconds left of the part) of each stage
                that is under way.
        """
        total = 0.0
        under_way = {(cell, stage): begin for cell, stage, begin, _left in running}
        for (cell, stage), entry in self._plan.items():
            share = 1.0 - entry.completed
            if (cell, stage) in under_way:
                share -= (1.0 - under_way[cell, stage]) / entry.parts
            total += max(share, 0.0) * entry.seconds * self._correction(stage)
        seconds = [left for *_, left in running]
        # Never sooner than the longest stage under way.
        return max((total + sum(seconds)) / self._parallel, max(seconds, default=0.0))

    def _correction(self, stage: str) -> float:
        real, planned = self._real.get(stage, 0.0), self._planned.get(stage, 0.0)
        if not planned:
            real, planned = sum(self._real.values()), sum(self._planned.values())
        return real / planned if planned else 1.0
