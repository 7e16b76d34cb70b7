"""Counts of what is changed and left out while rows are cut into episodes."""

from __future__ import annotations

import attrs

# Next observations and the row after may differ by rounding: by this share of the entry's largest value in the episode,
# which is four units in the last place of single precision.
ROUNDING = 4 * 2.0**-23


@attrs.define
class Tally:
    """Counts of changes to rows while they are cut into episodes; complete after the last episode.

    Attributes:
        dropped: rows that were left out because their next observation is unknown.
        whole: episodes that had no other row, and were left out entirely.
        dropped_reward, reward: sums of absolute rewards of the dropped rows and of all rows.
        repeated: episodes whose last observation was repeated.
        unfinished: files that end within an episode.
        limits: time limits with a next observation and an episode after them.
        continued: number of those next observations that equal the first one of the episode after them.
        rounded: rows whose next observation differs from the following row by rounding.
        gaps: steps that rise by more than the others.
        first_gap: place of the first such step.
        incomplete: rows that were left out for missing numbers.
        cuts: number of times an episode was cut there.
        incomplete_reward: sum of the absolute rewards of incomplete rows that have one.
    """

    dropped: int = 0
    whole: int = 0
    dropped_reward: float = 0.0
    reward: float = 0.0
    repeated: int = 0
    unfinished: int = 0
    limits: int = 0
    continued: int = 0
    rounded: int = 0
    gaps: int = 0
    first_gap: str = ""
    incomplete: int = 0
    cuts: int = 0
    incomplete_reward: float = 0.0

    def notes(self) -> list[str]:
        """Lines on what was done."""
        made = []
        if self.unfinished:
            files = "the file ends" if self.unfinished == 1 else f"{self.unfinished} files end"
            made.append(f"{files} within an episode, which is stored as cut off there")
        if self.repeated:
            made.append(f"{self.repeated:,} episodes that the task ended repeat their last observation (never used)")
        if self.dropped:
            alone = f", and {self.whole:,} episodes with them, which had no other row" if self.whole else ""
            made.append(
                f"{self.dropped:,} rows were left out, the last of each cut-off episode: what they led to is "
                f"unknown{alone}{self._held(self.dropped_reward)}"
            )
        if self.incomplete:
            made.append(
                f"{self.incomplete:,} rows were left out because they lack a number (--missing drop), and episodes cut "
                f"off there {self.cuts:,} times{self._held(self.incomplete_reward)}"
            )
        if self.rounded:
            made.append(
                f"at {self.rounded:,} rows the next observation differs from the following row by rounding, at most "
                f"{ROUNDING:.1g} of the entry's largest value; taken as equal"
            )
        return made

    def _held(self, reward: float) -> str:
        """The share of the reward that rows held which were left out."""
        return f"; they held {reward / self.reward:.1%} of the reward" if self.reward else ""

    def warnings(self) -> list[str]:
        """Lines on possible faults of the data."""
        made = []
        for rows, lost, what_to_do in (
            (
                "that end episodes and were left out",
                self.dropped_reward,
                "if the task ended these episodes, give --ends terminal, and they are kept",
            ),
            ("that lack a number and were left out", self.incomplete_reward, "fill the numbers in to keep them"),
        ):
            if self.reward and lost > 0.5 * self.reward:
                share = lost / self.reward
                made.append(
                    f"the rows {rows} held {'all' if share == 1 else f'{share:.0%}'} of the reward; {what_to_do}"
                )
        if self.limits and self.continued == self.limits:
            made.append(
                f"at all {self.limits:,} time limits the next observation is the first of the following episode: right "
                "where the stream went on, wrong where it was reset (then leave them out: --column next_observations=)"
            )
        if self.gaps:
            made.append(
                f"steps rise by more than elsewhere at {self.gaps:,} rows ({self.first_gap}): rows may be missing "
                "there; the row after is taken as the next step"
            )
        return made
