"""The figures of `tools.gpu_check`, and their table beside the aims."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

AIMS = {"SPIN cached": 10.0, "Factored": 10.0, "SAINT": 3.0, "SPIN": 3.0, "ASM": 5.0}  # captured against eager
MOST_BESIDE = 2.0  # times one seed's time that five seeds at once may take


@attrs.frozen(kw_only=True)
class Figure:
    """Steps a second of one kind of work, eager and captured; None where it was not measured.

    Attributes:
        preset: whose sizes: laptop or paper.
        what: update (a gradient step) or act (an action for one observation).
        of: the policy's class name, "SPIN cached", or "ASM".
        eager: steps a second.
        captured: steps a second.
    """

    preset: str
    what: str
    of: str
    eager: float
    captured: float | None

    @property
    def times(self) -> float | None:
        """How many times as fast captured steps are."""
        return None if self.captured is None else self.captured / self.eager


@attrs.frozen(kw_only=True)
class Beside:
    """Seconds of one gradient step of one seed alone, and of one of each seed at once, at the paper's sizes."""

    of: str
    seeds: int
    one: float
    together: float


@attrs.frozen(kw_only=True)
class Study:
    """A training of all seeds at once.

    Attributes:
        policy: its name.
        seeds: number of seeds.
        gradient_steps: budget of each.
        seconds: from its start to its end, pre-training and evaluations included.
        evaluated: gradient steps after which there are returns, of the seed that has most.
        returns: mean return over seeds and episodes at each of them.
        ended: whether the budget was done before the time was over.
    """

    policy: str
    seeds: int
    gradient_steps: int
    seconds: float
    evaluated: tuple[int, ...]
    returns: tuple[float, ...]
    ended: bool


def markdown(machine: str, figures: Iterable[Figure], beside: Sequence[Beside], studies: Sequence[Study]) -> str:
    """Every figure as Markdown, beside the aim."""
    lines = [
        machine,
        "",
        "| sizes | work | eager, a second | captured, a second | times | aim |",
        "|---|---|---:|---:|---:|---|",
    ]
    for each in figures:
        aim = AIMS.get(each.of) if each.what == "update" else None
        times = each.times
        captured = "–" if times is None else f"{each.captured:,.1f}"
        cells = [each.preset, f"{each.what}, {each.of}", f"{each.eager:,.1f}", captured]
        lines.append(_row(*cells, "–" if times is None else f"{times:.1f}", _judged(aim, times, "at least")))
    lines += [
        "",
        "| paper sizes | one seed, ms a step | all seeds at once, ms | seeds | times | aim |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for one in beside:
        times = one.together / one.one
        aim = MOST_BESIDE if one.seeds == 5 else None
        cells = [one.of, f"{1000 * one.one:.2f}", f"{1000 * one.together:.2f}", str(one.seeds), f"{times:.2f}"]
        lines.append(_row(*cells, _judged(aim, times, "under")))
    lines += [
        "",
        "| training | seeds | gradient steps | seconds | mean return (at gradient step) |",
        "|---|---:|---:|---:|---|",
    ]
    for study in studies:
        returns = ", ".join(
            f"{value:.0f} ({step:,})" for step, value in zip(study.evaluated, study.returns, strict=True)
        )
        steps = f"{study.gradient_steps:,}" + ("" if study.ended else ", not all done")
        lines.append(_row(study.policy, str(study.seeds), steps, f"{study.seconds:.0f}", returns or "none"))
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _judged(aim: float | None, found: float | None, word: str) -> str:
    if aim is None or found is None:
        return ""
    met = found < aim if word == "under" else found >= aim
    return f"{word} {aim:g}: {'met' if met else 'missed'}"
