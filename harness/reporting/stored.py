"""A stored study, and its numbers and tables for the pages about results."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pandas as pd

from harness.records import RETURN
from harness.reporting.cells import bounded, decimals, number, percent
from harness.reporting.comparisons import DATASET, differences, targets
from harness.reporting.probe import RESULTS_FILE
from harness.reporting.returns import COLUMNS, META_FILE, RETURNS_FILE, ReportMeta, read_csv
from harness.reporting.statistics import (
    Interval,
    asymptotic,
    mean_interval,
    policy_order,
    summarize,
    tier_order,
    units,
)
from spinrl.errors import UserError


class StudyError(UserError):
    """A folder holds no study, or its study cannot be read; the message is one line for the user."""


@attrs.frozen(eq=False)
class Study:
    """The stored results of a study, or of a part of it.

    Attributes:
        name: name of its folder.
        table: table of returns and estimates as in `harness.records`.
        summary: summary of the table by `harness.reporting.statistics.summarize`.
        meta: reference returns and pre-training lengths that belong to the table.
        probes: results of the linear probe, or None.
    """

    name: str
    table: pd.DataFrame
    summary: pd.DataFrame
    meta: ReportMeta
    probes: pd.DataFrame | None = None

    @classmethod
    def read(cls, folder: Path) -> Study:
        """Read a study from the folder of `harness.report.write_report`; figures and pages may be missing.

        Raises:
            StudyError: if the folder has neither returns nor probes, or a file cannot be read.
        """
        returns, meta, probes = folder / RETURNS_FILE, folder / META_FILE, folder / RESULTS_FILE
        if not returns.is_file() and not probes.is_file():
            raise StudyError(f"{folder} has neither {RETURNS_FILE} nor {RESULTS_FILE}; give the folder of a report")
        try:
            table = read_csv(returns if returns.is_file() else ",".join(COLUMNS))
            found = ReportMeta(experiment=folder.resolve().name)
            if meta.is_file():
                found = ReportMeta.from_json(meta.read_text(encoding="utf-8"))
            probed = pd.read_csv(probes) if probes.is_file() else None
        except (ValueError, KeyError, TypeError) as error:
            raise StudyError(f"the study in {folder} cannot be read: {error}") from error
        return cls(folder.resolve().name, table, summarize(table, found), found, probed)

    @property
    def returns(self) -> pd.DataFrame:
        """The rows of `table` that are returns of a simulator."""
        return self.table[self.table["metric"] == RETURN]

    @property
    def full(self) -> pd.DataFrame:
        """The rows of `summary` that are returns at the full budget."""
        return asymptotic(self.summary[self.summary["metric"] == RETURN])

    def only(self, **where: str | int) -> Study:
        """The part of the study with the given values, e.g. ``tier="expert"``."""
        table, summary = self.table, self.summary
        for column, value in where.items():
            table, summary = table[table[column] == value], summary[summary[column] == value]
        return attrs.evolve(self, table=table, summary=summary)

    def values(self, column: str) -> list[str]:
        """The distinct values of a column: policies and tiers in the paper's order, others sorted."""
        order = {"policy": policy_order, "tier": tier_order}.get(column)
        return sorted(self.summary[column].unique(), key=order)

    @property
    def policies(self) -> list[str]:
        """All policies, in the paper's order."""
        return self.values("policy")

    @property
    def seeds(self) -> str:
        """The number of seeds, in words."""
        low, high = int(self.full["seeds"].min()), int(self.full["seeds"].max())
        return "one seed" if high == 1 else f"{high if low == high else f'{low} to {high}'} seeds"

    @property
    def episodes(self) -> int:
        """Evaluation episodes of each seed at the full budget, the fewest of any policy."""
        return int((self.full["episodes"] / self.full["seeds"]).min())

    @property
    def steps(self) -> int:
        """Gradient steps of the full budget that most trainings have."""
        return int(self.full["gradient_step"].mode()[0])

    def datasets(self) -> list[tuple[str, Study]]:
        """Name and part of the study for each dataset; the name has task and tier, and bins if they vary."""
        rows = self.summary[list(DATASET)].drop_duplicates().itertuples(index=False, name=None)
        bins = self.summary["bins"].nunique() > 1
        return [
            (f"{task}{f' {of} bins' if bins else ''} {tier}", self.only(task=task, bins=of, tier=tier))
            for task, of, tier in sorted(rows, key=lambda dataset: (*dataset[:2], tier_order(dataset[2])))
        ]

    @property
    def _datasets(self) -> int:
        return len(self.summary[list(DATASET)].drop_duplicates())

    def interval(self, policy: str, fraction: float = 1.0) -> Interval | None:
        """Mean return over datasets at a share of the budget; None if the policy lacks a dataset."""
        rows = self.returns[np.isclose(self.returns["fraction"], fraction) & (self.returns["policy"] == policy)]
        samples = [units(group["return"], group["seed"]) for _, group in rows.groupby(list(DATASET))]
        if len(samples) < self._datasets:
            return None
        over = {kind for _, kind in samples}
        found = mean_interval([sample for sample, _ in samples], np.random.default_rng(0), over=min(over))
        return found if len(over) == 1 else Interval(found.value)

    def mean(self, policy: str, fraction: float = 1.0, column: str = "mean") -> float:
        """Mean over datasets of a column of `summary`; NaN if the policy lacks a dataset.

        With ``share`` as column it is the mean of the ratios, in percent, to each dataset's best asymptotic return.
        """
        rows = self.summary[(self.summary["policy"] == policy) & np.isclose(self.summary["fraction"], fraction)]
        rows = rows[rows["metric"] == RETURN]
        return float(rows[column].mean(skipna=False)) if len(rows) == self._datasets else float("nan")

    def best(self) -> str:
        """The policy with the highest mean return at the full budget."""
        return max(self.policies, key=lambda policy: np.nan_to_num(self.mean(policy), nan=-np.inf))

    def led(self, policy: str) -> list[str]:
        """The datasets on which the policy is the best."""
        return [name for name, part in self.datasets() if part.best() == policy]

    def behind(self, policy: str) -> list[str]:
        """The other datasets, with the return of the policy and that of the best."""
        return [
            f"{name} ({part.mean(policy):.0f}; {part.best()} {part.mean(part.best()):.0f})"
            for name, part in self.datasets()
            if part.best() != policy
        ]

    def difference(self, policy: str, reference: str) -> Interval:
        """Difference of two policies' returns at the full budget, as the mean over the datasets of both."""
        found = differences(self.returns[self.returns["policy"].isin([policy, reference])], reference)
        cell = found[policy].iloc[-1] if policy in found else None
        return Interval(float("nan")) if cell is None else cell

    def clear(self, policy: str, reference: str) -> list[str]:
        """The datasets on which the whole interval of `difference` is above zero."""
        return [name for name, part in self.datasets() if part.difference(policy, reference).low > 0]

    def grid(
        self, by: str, what: str = "return", *, fraction: float = 1.0, paper: pd.DataFrame | None = None
    ) -> pd.DataFrame:
        """A table with a row for each value of `by`, one for all, and the paper's rows; a column for each policy.

        Args:
            by: ``tier``, ``task``, ``bins``, ``algorithm`` or ``dataset``.
            what: ``return`` (mean with its interval) or ``share`` (see `mean`).
            fraction: share of the budget.
            paper: table of `harness.reporting.paper_numbers`, or None.
        """
        parts = self.datasets() if by == "dataset" else [(value, self.only(**{by: value})) for value in self.values(by)]
        if len(parts) > 1 and by != "algorithm":
            parts.append(("average", self))

        def cell(part: Study, policy: str) -> str:
            if what == "share":
                return percent(part.mean(policy, fraction, "share"))
            return text(part.interval(policy, fraction))

        rows = [[name, *(cell(part, policy) for policy in self.policies)] for name, part in parts]
        written = percent if what == "share" else number
        if paper is not None:
            numbers = paper.reindex(columns=self.policies).itertuples(name=None)
            rows += [[f"{label} (paper)", *map(written, values)] for label, *values in numbers]
        return pd.DataFrame(rows, columns=[by, *self.policies])

    def curves(self, policy: str) -> pd.DataFrame:
        """A policy's return on each dataset, a column for each share of the budget."""
        fractions = sorted(self.returns["fraction"].unique())
        rows = [
            [name, *(text(part.interval(policy, fraction)) for fraction in fractions)] for name, part in self.datasets()
        ]
        return pd.DataFrame(rows, columns=["dataset", *(f"{100 * fraction:g}%" for fraction in fractions)])

    def times(self) -> pd.DataFrame:
        """For each policy: minutes spent, number of datasets on which it reached the target, and mean minutes to it."""
        found, full = targets(self.summary[self.summary["metric"] == RETURN]), self.full
        rows = []
        for policy in self.policies:
            asm, train = (
                full.loc[full["policy"] == policy, name].mean() / 60 for name in ("asm_seconds", "train_seconds")
            )
            reached, minutes = found.reached[policy], found.minutes[policy].mean(skipna=False)
            count = "–" if reached.isna().any() else f"{reached.sum():.0f} of {found.datasets * len(reached)}"
            rows.append([policy, number(asm), number(train), count, number(minutes)])
        to_target = f"mean minutes to target, not reached counted as {found.longest:.1f}"
        return pd.DataFrame(rows, columns=["policy", "ASM, min", "training, min", "target reached", to_target])


def text(interval: Interval | None) -> str:
    """An interval without decimals where it is large, or a dash."""
    if interval is None or np.isnan(interval.value):
        return "–"
    return bounded(interval, decimals(interval.value, interval.low, interval.high))
