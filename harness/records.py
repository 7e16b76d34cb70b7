"""The records of an experiment: one row for every evaluation episode, and nothing derived.

Every table and figure is a pure function of these rows and of the reference returns in `ReportMeta`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from spinrl.evaluation import Estimate

RETURN = "return"  # the metric of a simulator; all others are estimates
LIKELIHOOD = "log_likelihood"  # the one estimate that is not of a return
PROTOCOL_FRACTIONS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)  # shares of the budget at which returns are reported
CELL_COLUMNS = ("task", "bins", "tier", "policy", "algorithm", "seed")


def metric_name(metric: str) -> str:
    """A metric in words."""
    return "return" if metric == RETURN else f"estimated {metric.replace('_', ' ')}"


def setting_name(task: str, bins: int) -> str:
    """A task and its number of bins in words."""
    return f"{task}, {bins} bins" if int(bins) else task


@attrs.frozen(kw_only=True)
class CellKey:
    """One cell of the grid.

    Attributes:
        task: name of the task, e.g. ``humanoid-stand``.
        bins: choices of each sub-action; 0 for the dataset's own.
        tier: tier of the dataset, e.g. ``medium-expert``.
        policy: short name, e.g. ``spin``.
        algorithm: short name, e.g. ``iql``.
        seed: seed of the training.
    """

    task: str
    bins: int
    tier: str
    policy: str
    algorithm: str
    seed: int

    def label(self) -> str:
        """Short text for progress lines and run names."""
        setting = f"{self.task}/{self.bins}" if self.bins else self.task
        return f"{setting} {self.tier} {self.policy}-{self.algorithm} s{self.seed}"


def _floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


@attrs.frozen(kw_only=True)
class Evaluation:
    """The returns of one evaluation, or one estimate of them, with the time spent before it.

    Attributes:
        gradient_step: policy updates so far.
        fraction: share of the budget of gradient steps, 0 to 1.
        returns: undiscounted return of each episode, or the one estimate; none where that was withheld.
        metric: `RETURN` of a simulator, or the name of an estimate.
        asm_seconds: time of ASM pre-training; 0 without one, the original time for a cached one.
        train_seconds: time of training so far, without evaluations.
        evaluation_seconds: time of all evaluations so far, this one included.
        start_seconds: time of imitation and critic start; 0 without them, the original time for cached ones.
        discounted: discounted return of each episode, with the algorithm's gamma; empty for an estimate.
        ended_early: whether training ended here by `Training.patience`; the fraction is then 1, and the gradient step
            the one at which it ended.
        asm_share: share of the ASM pre-training that was done; under 1 the policy is the ASM at that point.
        low, high: 95% interval of an estimate, where it has one.
        effective_episodes: effective number of episodes behind an estimate, where it is known.
        remark: the reason why an estimate was withheld, or what it suffers from.
        details: further figures of an estimate by name.
    """

    gradient_step: int
    fraction: float
    returns: tuple[float, ...] = attrs.field(converter=_floats)
    asm_seconds: float
    train_seconds: float
    evaluation_seconds: float
    metric: str = RETURN
    start_seconds: float = 0.0
    discounted: tuple[float, ...] = attrs.field(default=(), converter=_floats)
    ended_early: bool = False
    asm_share: float = 1.0
    low: float | None = None
    high: float | None = None
    effective_episodes: float | None = None
    remark: str = ""
    details: Mapping[str, float] = attrs.field(factory=dict, converter=dict)

    @staticmethod
    def fields_of(estimate: Estimate) -> dict[str, Any]:
        """The fields that an estimate fills."""
        bounds = {name: getattr(estimate, name) for name in ("low", "high", "effective_episodes")}
        return {
            "metric": estimate.metric,
            "returns": () if estimate.value is None else (estimate.value,),
            **{name: None if math.isnan(value) else value for name, value in bounds.items()},
            "remark": estimate.remark,
            "details": estimate.details,
        }

    @property
    def identity(self) -> tuple[int, str, float]:
        """The fields that distinguish it from other evaluations of its cell."""
        return self.gradient_step, self.metric, self.asm_share

    @property
    def seconds(self) -> float:
        """Total time of learning: ASM, starts and training."""
        return self.asm_seconds + self.start_seconds + self.train_seconds

    @property
    def mean(self) -> float:
        """Over episodes; NaN of an estimate that was withheld."""
        return math.fsum(self.returns) / len(self.returns) if self.returns else math.nan

    def figures(self) -> dict[str, float]:
        """What it found by name: mean and standard deviation of returns; value, bounds and details of an estimate."""
        if self.metric == RETURN:
            deviation = math.sqrt(math.fsum((value - self.mean) ** 2 for value in self.returns) / len(self.returns))
            return {f"{RETURN}_mean": self.mean, f"{RETURN}_std": deviation}
        bounds = {name: getattr(self, name) for name in ("low", "high", "effective_episodes")}
        known = {name: value for name, value in bounds.items() if value is not None} | dict(self.details)
        value = {self.metric: self.mean} if self.returns else {}
        return value | {f"{self.metric}_{name}": figure for name, figure in known.items()}

    def to_plain(self) -> dict[str, Any]:
        """JSON-able fields."""
        return attrs.asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Evaluation:
        """The inverse of `to_plain`."""
        return cls(**plain)
