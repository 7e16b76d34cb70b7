"""The sections of a report and their order, for all its formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import pandas as pd

from harness.records import RETURN
from harness.reporting.cells import bounded
from harness.reporting.comparisons import asymptotic_runs, best_checkpoint_runs
from harness.reporting.estimates import choice
from harness.reporting.paper_tables import paper_tables
from harness.reporting.probe import NOTES as PROBE_NOTES
from harness.reporting.probe import probe_tables
from harness.reporting.returns import ReportMeta
from harness.reporting.statistics import ENOUGH, REFERENCE_POLICY
from harness.reporting.tables import (
    NamedTable,
    aggregate_tables,
    asm_length_tables,
    difference_tables,
    estimate_tables,
    improvement_tables,
    matrix_tables,
    per_task_tables,
    setting_tables,
)

NOTES = (
    "Mean return over seeds and episodes, with its 95% interval (bounds in brackets, or half its width after ±). The "
    f"interval is over the means of the seeds: Student's t below {ENOUGH} seeds, from then on a studentised bootstrap. "
    "Of a single seed it is over the evaluation episodes, which the cell says (episodes, or e): it tells how well that "
    "one policy was measured, not how the next seed will do.",
    "Normalized: 100 · (return − random) / (expert − random). Share: of the best return at the full budget of any "
    "policy on the same dataset.",
    f"Time to target: seconds of ASM pre-training and training until 95% of {REFERENCE_POLICY}'s return at its full "
    f"budget, which {REFERENCE_POLICY} itself reaches by construction; evaluation is not counted.",
)


def notes(table: pd.DataFrame) -> list[str]:
    """Notes on how the numbers of a report are computed."""
    budgets = table[table["fraction"] >= 1.0].groupby("gradient_step")["policy"].unique()
    if len(budgets) < 2:
        return list(NOTES)
    steps = "; ".join(f"{step:,} gradient steps: {', '.join(sorted(names))}" for step, names in budgets.items())
    return [f"Not all trainings have the same budget. {steps}.", *NOTES]


_PAPER = (
    "Columns marked (paper) hold the numbers of arXiv 2601.04441: at its budget of 1M gradient steps, over five seeds, "
    "those by tier averaged over its own tasks, minutes on one A40. They are not of the tasks, data or budget of the "
    "columns beside them."
)
_OVERALL = (
    "At the full budget, over tasks and seeds: the interquartile mean (IQM) of all runs and the mean over tasks, which "
    "weigh alike. Intervals are stratified by dataset; a mean has none where a dataset has one seed, an IQM or a "
    f"probability of improvement none where one has fewer than {ENOUGH}. Policies that have not finished every dataset "
    "are left out. A profile shows the share of runs above each score; a probability of improvement of 0.5 is a tie."
)
_DIFFERENCES = (
    "Seeds of two policies are not paired (Welch's interval): they share the data and the starts of the episodes, but "
    "neither initial weights nor batches, and pairing three seeds would leave two degrees of freedom."
)
_CURVES = (
    "Mean and 95% interval, against gradient steps and against the time of ASM pre-training and training, both on "
    "logarithmic axes, and as tables coloured by score. Bands are cut where they leave the axes."
)
_ASM = (
    "Return at the full budget against the length of ASM pre-training, beside the policies trained as usual. In arXiv "
    "2601.04441, at its scale of 100 epochs, 20 are enough to be above the fully trained factored policy on every task."
)
_BEST = (
    "Not asymptotic: of each finished run its best evaluation, wherever in the budget, judged by the episodes that it "
    "was chosen by. This flatters, and more the more evaluations there are; compare it with nothing above."
)
_ESTIMATES = (
    "Estimates from data alone, not returns of a simulator; all but the likelihood are of the discounted return. "
    "Fitted Q: from the first states, as networks learned it from the data; it errs where the policy leaves the data. "
    "Per decision WIS and weighted doubly robust: by importance weights, withheld where too few episodes count. "
    "Log-likelihood: of the actions of held-out episodes, in nats for a joint action; it says how well the behaviour "
    "is predicted, not how good it is. Each is of 2,000 episodes at most, drawn at random and the same ones for all "
    "policies; the interval of one seed is over its data, that of several over the seeds. "
    "Against returns: a policy is one of one seed after one share of its training, and its truth the mean discounted "
    "return of its episodes. Kendall's τ and Spearman's ρ are 1 where an estimate orders policies as their truths do "
    "(95% bootstrap over policies); regret is the share of the best truth lost by choosing the best estimate; covered "
    "the share of 95% intervals that hold the truth; error the root mean square, in standard deviations of the truths "
    "over policies; minutes of one estimate."
)
_PROBE = (
    "How much of an action one linear classifier per slot reads from the frozen slot embeddings, of the pre-trained "
    "ASM and of a random one. " + " ".join(PROBE_NOTES) + " Exact match above independence: slots are right together. "
    "Rows marked (paper) are arXiv 2601.04441's, of dog-trot at its scale; it does not say what its probe sees."
)


@attrs.frozen
class Section:
    """A part of a report.

    Attributes:
        title: its heading.
        note: text before the tables.
        tables: tables with their titles.
        figures: file stems.
    """

    title: str
    note: str
    tables: Sequence[NamedTable] = ()
    figures: Sequence[str] = ()


def sections(table: pd.DataFrame, summary: pd.DataFrame, meta: ReportMeta, stems: Sequence[str]) -> list[Section]:
    """Every part of a report on returns and estimates that is not empty.

    Args:
        table: table of returns as in `harness.records`.
        summary: table of `harness.reporting.statistics.summarize`.
        meta: reference returns and pre-training lengths that belong to the table.
        stems: file stems of the figures that were drawn.
    """
    found = [part for part in _all(table, summary, meta, stems) if part.tables or part.figures]
    favoured = choice(table)
    return [*found, *([Section("Which policy the estimates favour", " ".join(favoured))] if favoured else [])]


def probe_section(probes: pd.DataFrame, stems: Sequence[str]) -> Section:
    """The section on the linear probe."""
    tables = list(probe_tables(probes, with_paper=True))
    return Section("Linear probe", _PROBE, tables, [stem for stem in stems if stem.startswith("probe_")])


def _all(table: pd.DataFrame, summary: pd.DataFrame, meta: ReportMeta, stems: Sequence[str]) -> Iterator[Section]:
    def drawn(*kinds: str) -> list[str]:
        return [stem for stem in stems if stem.startswith(kinds)]

    everything, with_estimates, returned = table, summary, table["metric"] == RETURN
    table, summary = table[returned], summary[summary["metric"] == RETURN]
    finished, best = asymptotic_runs(table, meta), best_checkpoint_runs(table, meta)
    overall = [*aggregate_tables(finished, "asymptotic"), *improvement_tables(finished)]
    yield Section("Beside the paper", _PAPER, list(paper_tables(summary)))
    yield Section("Over tasks and seeds", _OVERALL, overall, drawn("profile_"))
    by_task = [*matrix_tables(summary), *per_task_tables(summary), *difference_tables(table)]
    yield Section("By tier and by task", _DIFFERENCES, by_task)
    yield Section("Learning curves", _CURVES, [], drawn("curves_", "table_"))
    yield Section("Length of ASM pre-training", _ASM, list(asm_length_tables(summary, meta)), drawn("asm_"))
    yield Section("Each task over the budget", "", list(setting_tables(summary, bounded)))
    yield Section("Estimates", _ESTIMATES, list(estimate_tables(everything, with_estimates)), drawn("estimates_"))
    yield Section("Best checkpoint", _BEST, list(aggregate_tables(best, "best_checkpoint")))
