"""Import of logged data in files of columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np

from spinrl.cache import Progress
from spinrl.data.importers.arrays import Arrays, Columns
from spinrl.data.importers.choices import Choices, SeenActions, bins_of, decide_choices
from spinrl.data.importers.ends import Ends, Kind, decide_ends
from spinrl.data.importers.episodes import Episodes, Tally
from spinrl.data.importers.result import ImportResult
from spinrl.data.importers.survey import Survey, check_borders, survey
from spinrl.data.importers.tables import PACKED
from spinrl.data.importers.values import MISSING, Missing
from spinrl.data.outliers import suspicions
from spinrl.data.store.metadata import SourceRecord, StoreError
from spinrl.data.store.store import Episode, Store
from spinrl.data.store.writer import StoreWriter
from spinrl.specs import ActionSpec


def _several(value: int | Sequence[int]) -> Sequence[int]:
    return (value,) if isinstance(value, int) else tuple(value)


@attrs.frozen(kw_only=True)
class ArrayOptions:
    """Options for what files of columns do not say.

    Attributes:
        choices: number of choices of each sub-action, or one number for all; "observed" takes the largest value in
            the file as the last choice.
        one_hot: number of choices of each sub-action, for actions that are one-hot vectors; replaces `choices`.
        action_offset: number of each sub-action's first choice in the file, or one number for all.
        ends: kind of the ends of episodes that the file does not explain: terminal or timeout.
        episode_length: steps after which an episode ends at the latest.
        step_column: column that rises within an episode; rows are sorted by it.
        missing: treatment of missing numbers in observations: "mean" and "zero" fill them in, "drop" leaves the row
            out and cuts the episode there, None refuses the file.
        columns: column names by meaning (see `spinrl.data.importers.meanings.ALIASES`) in place of the usual names:
            a list, or text as `spinrl.data.importers.meanings.select` reads it; an empty one ignores that meaning.
    """

    choices: Choices = None
    one_hot: Sequence[int] = ()
    action_offset: Sequence[int] = attrs.field(default=(0,), converter=_several)
    ends: Kind | None = None
    episode_length: int | None = None
    step_column: str | None = None
    missing: Missing | None = None
    columns: Mapping[str, str | Sequence[str]] = attrs.field(factory=dict)

    def check(self) -> None:
        """Refuse contradictory options.

        Raises:
            StoreError: if options contradict each other; the message names them.
        """
        if self.one_hot and self.choices is not None:
            raise StoreError("--one-hot says how many choices there are; leave out --choices")
        if self.one_hot and any(self.action_offset):
            raise StoreError("choices of one-hot vectors count from 0; leave out --action-offset")
        if any(each < 1 for each in self.one_hot):
            raise StoreError(f"--one-hot: expected at least 1 choice each, got {min(self.one_hot)}")
        if any(abs(each) >= 2**31 for each in self.action_offset):
            raise StoreError(f"--action-offset: expected the number of the first choice, got {self.action_offset[0]}")
        if self.missing not in (None, *MISSING):
            raise StoreError(f"--missing: expected {', '.join(MISSING)}, got {self.missing}")


def import_arrays(
    files: Path | Sequence[Path],
    path: Path,
    options: ArrayOptions,
    *,
    task: str,
    tier: str = "logged",
    progress: Progress | None = None,
) -> ImportResult:
    """Write one or several files of columns, or folders of parts, as a store.

    HDF5, Parquet and CSV are read in pieces, no smaller than an episode, unless rows have to be sorted. Every file has
    episodes of its own and is a source of the store.

    Args:
        files: CSV, Parquet, Feather, HDF5 or npz files, or folders of parts.
        path: folder of the store, which must not exist yet.
        options: options for what the files do not say.
        task: name of the task.
        tier: tier name of the dataset.
        progress: callback with (transitions done, transitions in all).

    Raises:
        StoreError: when the files cannot be read, do not fit, or an option is missing; the message is one line, and no
            partial files are left.
    """
    options.check()
    files = [files] if isinstance(files, Path) else list(files)
    opened = _opened(files, options)
    decided = [decide_ends(each.file, each.columns, options.ends, options.episode_length) for each in opened]
    seen = SeenActions(options.choices)
    surveys = _surveys(opened, seen, options)
    spec, start = _sub_actions(files, opened[0], seen, options)
    if options.missing == "mean":
        _share_means(opened, surveys)
    first = next(opened[0].transitions())
    opened[0].values.filled = 0  # count only the reads below
    total, tally = sum(each.rows for each in surveys), Tally()
    with StoreWriter(
        path,
        task=task,
        bins=bins_of(spec),
        action_spec=spec,
        observation_size=first.observations.shape[1],
        tier=tier,
        sources=[SourceRecord(behavior=source) for source in (_sources(files) if len(files) > 1 else [tier])],
        expected=(total, 1),
        extras=_extras(opened[0], first, spec),
        action_start=start.tolist() if start.any() else (),
    ) as writer:
        episodes = _episodes(opened, [ends for ends, _ in decided], options, spec, start, tally)
        _write(writer, episodes, total, progress)
        changed = [*_changes(opened, options), *tally.notes()]
        writer.preparation += changed
    store = Store.open(path)
    notes = [*_notes(opened, options, start), *decided[0][1], *changed]
    doubts = _doubts(opened, surveys, seen, spec, options)
    warnings = [*tally.warnings(), *doubts, *suspicions(store, opened[0].columns["observations"])]
    return ImportResult(store, list(dict.fromkeys(notes)), list(dict.fromkeys(warnings)))


def _opened(files: Sequence[Path], options: ArrayOptions) -> list[Arrays]:
    """The files with the meanings of their columns, which are the same in all of them."""
    given = dict(options.columns)
    if options.step_column is not None:
        given["step"] = (options.step_column,)
    opened = [Arrays(file, given, options.missing, options.one_hot) for file in files]
    _check_alike(opened)
    return opened


def _surveys(opened: list[Arrays], seen: SeenActions, options: ArrayOptions) -> list[Survey]:
    """Look all files over, which orders their rows and fills `seen`."""
    sort, means = options.step_column is not None, options.missing == "mean"
    surveys = [survey(each, seen, sort=sort, means=means) for each in opened]
    check_borders(opened, surveys)
    return surveys


def _sub_actions(
    files: Sequence[Path], arrays: Arrays, seen: SeenActions, options: ArrayOptions
) -> tuple[ActionSpec, np.ndarray]:
    """The sub-actions of all files, and the number of each one's first choice there; `arrays` are the first file's."""
    what = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    names = () if options.one_hot else arrays.columns["actions"]
    return decide_choices(what, seen, list(options.one_hot) or options.choices, options.action_offset, names)


def _episodes(
    opened: Sequence[Arrays],
    ends: Sequence[Ends],
    options: ArrayOptions,
    spec: ActionSpec,
    start: np.ndarray,
    tally: Tally,
) -> Iterator[Episode]:
    for source, (arrays, rules) in enumerate(zip(opened, ends, strict=True)):
        of = arrays.file if arrays.order is None else f"{arrays.file}, sorted by {options.step_column}"
        yield from Episodes(of, arrays.transitions(), rules, spec, start, source=source, tally=tally)


def _write(writer: StoreWriter, episodes: Iterable[Episode], total: int, progress: Progress | None) -> None:
    done = 0
    for episode in episodes:
        writer.append(episode)
        done += len(episode)
        if progress is not None:
            progress(done, total)


def _check_alike(opened: Sequence[Arrays]) -> None:
    """Refuse files with different columns, whose episodes would be read differently."""
    for arrays in opened[1:]:
        if odd := set(arrays.columns) ^ set(opened[0].columns):
            raise StoreError(f"{opened[0].file} and {arrays.file} differ: only one of them has {sorted(odd)[0]}")
        for meaning in ("observations", "actions"):
            if arrays.columns[meaning] != opened[0].columns[meaning]:
                raise StoreError(
                    f"{opened[0].file} and {arrays.file} have {meaning} in different columns; name them with --column"
                )


def _share_means(opened: Sequence[Arrays], surveys: Sequence[Survey]) -> None:
    """Give each file the means over all files."""
    sums = [(each.total, each.count) for each in surveys if each.total is not None and each.count is not None]
    if len({len(total) for total, _ in sums}) != 1:
        raise StoreError(f"{opened[0].file}: observations have different numbers of entries")
    total, count = (np.sum(each, axis=0) for each in zip(*sums, strict=True))
    if (count == 0).any():
        entry = int(np.argmin(count))
        names = opened[0].columns["observations"]
        called = names[entry] if len(names) == len(count) else f"entry {entry} of the observations"
        raise StoreError(f"{opened[0].file}: {called} has no value in any row; leave it out")
    for arrays in opened:
        arrays.values.means = total / count


def _sources(files: Sequence[Path]) -> list[str]:
    """Names of the files in the store, such as train and validation."""
    stems = [Path(file.name.removesuffix(packed)).stem for file in files for packed in [_packed(file)]]
    return [stem if stems.count(stem) == 1 else str(file) for stem, file in zip(stems, files, strict=True)]


def _packed(file: Path) -> str:
    return next((each for each in PACKED if file.name.lower().endswith(each)), "")


def _extras(arrays: Arrays, first: Columns, spec: ActionSpec) -> list[str]:
    """Names of the store's optional arrays."""
    extras = ["allowed"] if "allowed" in arrays.columns else []
    if first.propensities is None:
        return extras
    width = first.propensities.shape[1]
    if width not in (1, spec.num_sub_actions):
        raise StoreError(f"{arrays.file}: expected 1 or {spec.num_sub_actions} propensities a row, found {width}")
    return [*extras, "propensity" if width == 1 else "propensities"]


def _changes(opened: Sequence[Arrays], options: ArrayOptions) -> list[str]:
    """Lines on rows and values of the files that were changed."""
    made = []
    if any(arrays.order is not None for arrays in opened):
        made.append(f"rows were not in the order of {options.step_column}, and are sorted by it within each episode")
    if filled := sum(arrays.values.filled for arrays in opened):
        by = "the mean of their column" if options.missing == "mean" else "0"
        made.append(f"{filled:,} numbers were missing, and are replaced by {by} (--missing {options.missing})")
    return made


def _notes(opened: Sequence[Arrays], options: ArrayOptions, start: np.ndarray) -> list[str]:
    arrays = opened[0]
    columns = [_named(meaning, names) for meaning, names in arrays.columns.items()]
    made = [note for each in opened for note in each.notes]
    if len(opened) > 1:
        made.append(f"{len(opened)} files, each with episodes of its own; the store names them as its sources")
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


def _doubts(
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
