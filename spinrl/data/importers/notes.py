"""Lines on what an import of columns took, changed and doubts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spinrl.data.importers.arrays import Arrays
from spinrl.data.importers.choices import SeenActions
from spinrl.data.importers.options import ArrayOptions
from spinrl.data.importers.survey import Survey
from spinrl.specs import ActionSpec


def changes(opened: Sequence[Arrays], options: ArrayOptions) -> list[str]:
    """Lines on rows and values of the files that were changed."""
    made = []
    if any(arrays.order is not None for arrays in opened):
        made.append(f"rows were not in the order of {options.step_column}, and are sorted by it within each episode")
    if filled := sum(arrays.values.filled for arrays in opened):
        by = "the mean of their column" if options.missing == "mean" else "0"
        made.append(f"{filled:,} numbers were missing, and are replaced by {by} (--missing {options.missing})")
    return made


def notes(opened: Sequence[Arrays], options: ArrayOptions, start: np.ndarray, sources: Sequence[str]) -> list[str]:
    """Lines on what was taken from the files; `sources` are the names of files or splits."""
    arrays = opened[0]
    columns = [_named(meaning, names) for meaning, names in arrays.columns.items()]
    made = [note for each in opened for note in each.notes]
    if sources:
        of = "splits" if "split" in arrays.columns else f"{len(opened)} files, each with episodes of its own"
        made.append(
            f"{of}: {', '.join(sources)}; to hold one out: --set \"Experiment.held_out_sources=['{sources[-1]}']\""
        )
    made.append(f"columns: {'; '.join(columns)}")
    if arrays.unused:
        told = ", ".join(arrays.unused[:8]) + (f" … ({len(arrays.unused)})" if len(arrays.unused) > 8 else "")
        made.append(f"columns that were left out: {told}")
    if options.choices == "observed":
        made.append("choices are those seen (--choices observed): the last one of a sub-action may be missing")
    if options.one_hot:
        made.append("actions are one-hot vectors in the file, and indices of choices here (--one-hot)")
    if start.any():
        first = start[0] if len(set(start.tolist())) == 1 else ", ".join(map(str, start.tolist()))
        made.append(f"actions count from {first} in the file, from 0 here")
    if any(each.values.float_actions for each in opened) and not options.one_hot:
        made.append("actions are stored as floats, all of them whole numbers, and are read as integers")
    if any(each.values.float_episodes for each in opened):
        made.append("names of episodes are stored as floats, all of them whole numbers, and are read as integers")
    if "allowed" in arrays.columns and "next_allowed" not in arrays.columns:
        made.append("after the last step of an episode that is kept whole, every choice counts as allowed")
    return made


def doubts(
    opened: Sequence[Arrays], surveys: Sequence[Survey], seen: SeenActions, spec: ActionSpec, options: ArrayOptions
) -> list[str]:
    """Lines on possible faults of the columns."""
    made = []
    for name, count in {name: sum(each.flags.get(name, 0) for each in surveys) for name in surveys[0].flags}.items():
        if count:
            rows = sum(each.rows for each in surveys)
            made.append(
                f"column {name} is true in {count:,} of {rows:,} rows and was left out; if it marks ends, give "
                f"--column terminals={name}, timeouts={name} or dones={name}"
            )
    for column in dict.fromkeys(column for each in opened for column in each.values.coarse.values()):
        made.append(
            f"{column} varies by less than single precision holds of values so large: what it tells is lost; subtract "
            "an origin first"
        )
    if not options.one_hot and seen.groups.sizes and set(spec.nvec) == {2}:
        made.append("actions look one-hot" + seen.groups.hint().replace(";", ":", 1))
    return made


def _named(meaning: str, names: Sequence[str]) -> str:
    if tuple(names) == (meaning,):
        return meaning
    return f"{meaning} from " + (", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]} ({len(names)})")
