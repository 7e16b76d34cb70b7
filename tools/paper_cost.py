"""What the paper's tables cost at the paper's scale, from measured steps a second.

    python -m tools.paper_cost
    python -m tools.paper_cost --gpu gpu/speeds.json

The steps are counted from the files in gin/experiments with gin/scale/paper.gin. Steps a second are those of
results/speed/rates.json, which says where each is from, and of a speeds.json that tools.gpu_check wrote. Every task
counts as humanoid-stand, where they were measured: those with fewer sub-actions take less, dog-trot takes more.
`harness.run --dry-run` times the steps of one study on the machine where it is called.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs

from harness.command_line import config_root, use_packaged_configs
from harness.commands import typed
from harness.entry_point import entry_point
from harness.experiment import Experiment
from spinrl.config import fingerprint, load, to_plain
from spinrl.errors import UserError
from spinrl.policies import SPIN
from tools.benchmark import CACHED

TABLES = ("tiers", "rapid_adaptation", "cardinality", "algorithms", "asm_epochs")
CONTROL_STEPS = 4100  # a second and core: humanoid-stand in dm_control
RATES = Path("results/speed/rates.json")


@attrs.frozen
class Rates:
    """Steps a second of a machine, by the names of `tools.benchmark`, for as many cells at a time as it has."""

    machine: str
    per_second: dict[str, float]


@attrs.frozen
class Work:
    """What cells of an experiment do at the paper's scale.

    Attributes:
        cells: number of them.
        steps: gradient steps by policy, and of pre-training as ASM.
        control_steps: of all evaluation episodes.
    """

    cells: int
    steps: Counter[str]
    control_steps: int

    def seconds(self, rates: Rates) -> float | None:
        """Seconds of the steps, those of evaluations aside; None where the speed of some was not measured."""
        if set(self.steps) - set(rates.per_second):
            return None
        return sum(count / rates.per_second[of] for of, count in self.steps.items())


def work_of(name: str, *, cached: bool) -> Work:
    """Count the steps of an experiment at the paper's scale.

    Args:
        name: of its gin file.
        cached: count SPIN alone, on stored slot embeddings; if not, every policy, with SPIN as published.
    """
    root = config_root() / "gin"
    experiment = load(Experiment, [root / "experiments" / f"{name}.gin", root / "scale" / "paper.gin"]).value
    cells = [cell for cell in experiment.cells() if isinstance(cell.policy, SPIN) or not cached]
    budget, evaluation = experiment.training.gradient_steps, experiment.evaluation
    steps: Counter[str] = Counter()
    asms = set()
    for cell in cells:
        steps[CACHED if cached else type(cell.policy).__name__] += budget
        asm = (cell.key.task, cell.key.bins, cell.key.tier, cell.key.seed, fingerprint(to_plain(cell.pretraining)))
        if cell.policy.needs_asm and asm not in asms:
            asms.add(asm)
            steps["ASM"] += cell.pretraining.total_steps(experiment.dataset(cell).transitions)
    episodes = sum(evaluation.episodes_at(share) for share in evaluation.marks(budget).values())
    return Work(len(cells), steps, len(cells) * episodes * evaluation.episode_steps)


def measured_on_gpu(path: Path) -> Rates:
    """The rates of all seeds at once that `tools.gpu_check` measured.

    Raises:
        UserError: when the file is not one of its.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        per_second = {each["of"]: each["seeds"] / each["together"] for each in found["beside"]}
        return Rates(f"one GPU: {found['machine'].split(',')[0]}", per_second)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a speeds.json that tools.gpu_check wrote: {error!r}") from error


def markdown(rates: Sequence[Rates]) -> str:
    """The cost of each table as Markdown; several GPUs share the cells."""
    columns = [(each, count) for each in rates for count in ((1, 8) if "one " in each.machine else (1,))]
    heads = [each.machine if count == 1 else f"{count} of them" for each, count in columns]
    lines = [f"| table | cells | million steps | evaluations, core-hours | {' | '.join(heads)} |"]
    lines.append(f"|---|---:|---:|---:|{'---:|' * len(heads)}")
    for name, cached in itertools.product(TABLES, (True, False)):
        work = work_of(name, cached=cached)
        label = f"`{name}`: {'cached SPIN' if cached else 'all, SPIN as published'}"
        counts = (
            f"{work.cells}",
            f"{work.steps.total() / 1e6:,.0f}",
            f"{work.control_steps / CONTROL_STEPS / 3600:,.0f}",
        )
        costs = [_words(work.seconds(each), count) for each, count in columns]
        lines.append(f"| {' | '.join([label, *counts, *costs])} |")
    return "\n".join(lines) + "\n"


def _words(known: float | None, machines: int) -> str:
    if known is None:
        return "not measured"
    hours = known / machines / 3600
    return (
        f"{hours / 24:,.0f} days" if hours >= 72 else f"{hours:,.0f} hours" if hours >= 2 else f"{60 * hours:,.0f} min"
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=typed("tools.paper_cost"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--gpu", type=Path, action="append", default=[], help="a speeds.json of tools.gpu_check")
    return made


@entry_point()
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser().parse_args(arguments)
    use_packaged_configs()
    if not RATES.exists():
        raise UserError(f"there is no {RATES} here; start it in the repository")
    rates = [Rates(each["machine"], each["per_second"]) for each in json.loads(RATES.read_text(encoding="utf-8"))]
    print(markdown([*rates, *map(measured_on_gpu, options.gpu)]), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
