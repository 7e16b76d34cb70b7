"""Logged data in a file of arrays as a store."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from spinrl.cache import Progress
from spinrl.data.importers.arrays import Arrays
from spinrl.data.importers.choices import Choices, SeenActions, bins_of, decide_choices
from spinrl.data.importers.ends import Kind, decide_ends
from spinrl.data.importers.episodes import Episodes
from spinrl.data.importers.result import ImportResult
from spinrl.data.store.metadata import SourceRecord
from spinrl.data.store.store import Store
from spinrl.data.store.writer import StoreWriter


@attrs.frozen(kw_only=True)
class ArrayOptions:
    """What a file of arrays leaves open.

    Attributes:
        choices: of each sub-action, or one number for all; "observed" takes the largest value seen for the last one.
        action_offset: what the first choice is called in the file.
        ends: what an end of an episode is where the file does not say.
        episode_length: steps after which an episode ends at the latest.
        columns: names of columns by what they mean (see `spinrl.data.importers.arrays.ALIASES`), in place of the usual
            ones; none at all for what is not to be used.
    """

    choices: Choices = None
    action_offset: int = 0
    ends: Kind | None = None
    episode_length: int | None = None
    columns: Mapping[str, Sequence[str]] = attrs.field(factory=dict)


def import_arrays(
    file: Path,
    path: Path,
    options: ArrayOptions,
    *,
    task: str,
    tier: str = "logged",
    progress: Progress | None = None,
) -> ImportResult:
    """Write a file of arrays as a store. HDF5 and Parquet are read in pieces, no smaller than an episode.

    Args:
        file: npz, HDF5 or Parquet.
        path: the store's folder, which must not exist yet.
        options: what the file leaves open.
        task: name of the task.
        tier: name of what was logged.
        progress: called with (transitions done, in all).

    Raises:
        StoreError: in one line, for what cannot be read, does not fit or is not said; nothing is left behind.
    """
    arrays = Arrays(file, options.columns)
    ends, end_notes = decide_ends(file, arrays.columns, options.ends, options.episode_length)
    spec = decide_choices(file, SeenActions.of(arrays), options.choices, options.action_offset)
    total, blocks = arrays.transitions()
    first = next(blocks)
    episodes = Episodes(file, itertools.chain([first], blocks), ends, options.action_offset)
    with StoreWriter(
        path,
        task=task,
        bins=bins_of(spec),
        action_spec=spec,
        observation_size=first.observations.shape[1],
        tier=tier,
        sources=[SourceRecord(behavior=tier)],
        expected=(total, 1),
    ) as writer:
        done = 0
        for episode in episodes:
            writer.append(episode)
            done += len(episode)
            if progress is not None:
                progress(done, total)
    return ImportResult(Store.open(path), [*_action_notes(arrays, options), *end_notes, *episodes.notes()])


def _action_notes(arrays: Arrays, options: ArrayOptions) -> list[str]:
    columns = [_named(meaning, names) for meaning, names in arrays.columns.items()]
    made = [f"columns: {'; '.join(columns)}"]
    if options.choices == "observed":
        made.append("choices are those seen (--choices observed): the last one of a sub-action may be missing")
    if options.action_offset:
        made.append(f"actions count from {options.action_offset} in the file, from 0 here")
    for meaning, entry in arrays.coarse.items():
        made.append(
            f"{meaning}, entry {entry}, vary by less than single precision holds of values so large: what they tell is "
            "lost; subtract an origin first"
        )
    if arrays.float_actions:
        made.append("actions are stored as floats, all of them whole numbers, and are read as integers")
    return made


def _named(meaning: str, names: Sequence[str]) -> str:
    if tuple(names) == (meaning,):
        return meaning
    return f"{meaning} from " + (", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]} ({len(names)})")
