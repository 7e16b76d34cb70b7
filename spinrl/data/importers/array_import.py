"""Import of logged data in files of columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from spinrl.cache import Progress
from spinrl.data.importers.arrays import Arrays, Columns
from spinrl.data.importers.choices import SeenActions, bins_of, decide_choices
from spinrl.data.importers.ends import Ends, decide_ends
from spinrl.data.importers.episodes import Episodes
from spinrl.data.importers.notes import changes, doubts
from spinrl.data.importers.notes import notes as notes_on
from spinrl.data.importers.options import ArrayOptions
from spinrl.data.importers.result import ImportResult
from spinrl.data.importers.survey import Survey, check_borders, survey
from spinrl.data.importers.tables import PACKED
from spinrl.data.importers.tally import Tally
from spinrl.data.outliers import suspicions
from spinrl.data.store.metadata import SourceRecord, StoreError
from spinrl.data.store.store import Episode, Store
from spinrl.data.store.writer import StoreWriter
from spinrl.specs import ActionSpec


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
    sources = _sources(files, surveys)
    with StoreWriter(
        path,
        task=task,
        bins=bins_of(spec),
        action_spec=spec,
        observation_size=first.observations.shape[1],
        tier=tier,
        sources=[SourceRecord(behavior=source) for source in sources or [tier]],
        expected=(total, 1),
        extras=_extras(opened[0], first, spec),
        action_start=start.tolist() if start.any() else (),
    ) as writer:
        episodes = _episodes(opened, [ends for ends, _ in decided], options, spec, start, sources, tally)
        _write(writer, episodes, total, progress)
        changed = [*changes(opened, options), *tally.notes()]
        writer.preparation += changed
    store = Store.open(path)
    notes = [*notes_on(opened, options, start, sources), *decided[0][1], *changed]
    doubted = doubts(opened, surveys, seen, spec, options)
    warnings = [*tally.warnings(), *doubted, *suspicions(store, opened[0].columns["observations"])]
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
    sources: Sequence[str],
    tally: Tally,
) -> Iterator[Episode]:
    for source, (arrays, rules) in enumerate(zip(opened, ends, strict=True)):
        of = arrays.file if arrays.order is None else f"{arrays.file}, sorted by {options.step_column}"
        yield from Episodes(of, arrays.transitions(), rules, spec, start, source=source, splits=sources, tally=tally)


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


def _sources(files: Sequence[Path], surveys: Sequence[Survey]) -> list[str]:
    """Names of the splits that a column gives, or of several files, such as train and validation; else none."""
    if splits := list(dict.fromkeys(name for each in surveys for name in each.splits)):
        return splits
    if len(files) == 1:
        return []
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
