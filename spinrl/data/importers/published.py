"""The published datasets of the discretised DM Control benchmark (arXiv 2411.11088): pickled lists of transitions.

The files are called ``<bins>_bins/<domain>-<task>-<tier>``. They are not trusted: a child process under a memory limit
reads them with `spinrl.data.importers.pickle_reader`, and its output is checked before it is written.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import attrs
import numpy as np

from spinrl.cache import Progress
from spinrl.data.importers import pickle_reader
from spinrl.data.store.metadata import SourceRecord, StoreError
from spinrl.data.store.store import Episode, Store
from spinrl.data.store.validate import not_finite
from spinrl.data.store.writer import StoreWriter
from spinrl.specs import ActionSpec
from spinrl.tasks import EPISODE_STEPS, MAX_BINS, MIN_BINS, TASKS

DATA_DIR = "DMC_DISCRETE_DATA_DIR"  # where users of the public loader keep the files
_START = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_path(sys.argv.pop(1), run_name='__main__')"
TIERS = ("random-medium-expert", "medium-expert", "expert", "medium", "random")


@attrs.frozen(kw_only=True)
class Name:
    """The parts of a published file's name, ``<bins>_bins/<task>-<tier>``."""

    task: str
    bins: int
    tier: str

    @property
    def path(self) -> str:
        """Path of the file within the folder of all published files."""
        return f"{self.bins}_bins/{self.task}-{self.tier}"

    @classmethod
    def of(cls, file: Path, *, task: str | None = None, bins: int | None = None, tier: str | None = None) -> Name:
        """Read the parts from a path; given ones replace them.

        Raises:
            StoreError: when a part is neither given nor in the path, or the number of bins is impossible.
        """
        folder = re.fullmatch(r"(\d+)_bins", file.absolute().parent.name)
        ending = next((each for each in TIERS if file.name.endswith(f"-{each}")), None)
        bins = bins or (int(folder.group(1)) if folder else None)
        task = task or (file.name.removesuffix(f"-{ending}") if ending else None)
        tier = tier or ending
        if bins is None or task is None or tier is None:
            missing = [f"--{what}" for what, value in (("bins", bins), ("task", task), ("tier", tier)) if value is None]
            raise StoreError(
                f"{file}: expected the name of a published file, <bins>_bins/<domain>-<task>-<tier> with a tier of "
                f"{', '.join(TIERS)}; give {' and '.join(missing)}"
            )
        if not MIN_BINS <= bins <= MAX_BINS:
            raise StoreError(f"{file}: expected {MIN_BINS} to {MAX_BINS} bins, got {bins}")
        return cls(task=task, bins=bins, tier=tier)


def find(name: str) -> Path:
    """The file called `name`: a path, or one within the folder that ``DMC_DISCRETE_DATA_DIR`` names.

    Raises:
        StoreError: when it is in neither; the message names the places.
    """
    folder = os.environ.get(DATA_DIR)
    places = [Path(name).expanduser(), *([Path(folder).expanduser() / name] if folder else [])]
    for place in places:
        if place.is_file():
            return place
    hint = "" if folder else f"; name the folder of the published files by the environment variable {DATA_DIR}"
    raise StoreError(f"there is no file {' or '.join(map(str, places))}{hint}")


def import_published(
    file: Path,
    path: Path,
    *,
    progress: Progress | None = None,
    task: str | None = None,
    bins: int | None = None,
    tier: str | None = None,
) -> Store:
    """Write a published file as a store. Memory does not grow with the file.

    An episode goes on while a transition's next observation is the following one's observation, for 1,000 steps at
    most. The benchmark's episodes end by their time limit alone; a transition marked as done is stored as terminated.

    Args:
        file: pickle file.
        path: folder of the store, which must not exist yet.
        progress: callback with (bytes read, bytes in all).
        task, bins, tier: replacements for the parts of the file's name.

    Raises:
        StoreError: when the file holds anything but transitions of this task and number of bins; the message is one
            line, and no partial files are left.
    """
    name = Name.of(file, task=task, bins=bins, tier=tier)
    with _Reader(file) as reader:
        blocks = _checked(reader.blocks(progress), name, file)
        first = next(blocks, None)
        if first is None:
            raise StoreError(f"{file} holds no transitions")
        spec = ActionSpec((name.bins,) * first.actions.shape[1])
        with StoreWriter(
            path,
            task=name.task,
            bins=name.bins,
            action_spec=spec,
            observation_size=first.observations.shape[1],
            tier=name.tier,
            sources=[SourceRecord(behavior=f"published {name.path}", fingerprint=_digest(file))],
        ) as writer:
            for episode in _episodes(first, blocks):
                writer.append(episode)
    return Store.open(path)


@attrs.frozen
class _Block:
    """n consecutive transitions, observations in the file's own precision."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    followings: np.ndarray
    dones: np.ndarray

    def __getitem__(self, rows: slice) -> _Block:
        return _Block(*(array[rows] for array in self._arrays()))

    def __add__(self, other: _Block) -> _Block:
        return _Block(*(np.concatenate(pair) for pair in zip(self._arrays(), other._arrays(), strict=True)))

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.observations, self.actions, self.rewards, self.followings, self.dones


class _Reader:
    """The child process, ended on exit; its output on standard error is too short to fill a pipe."""

    def __init__(self, file: Path) -> None:
        self._file = file
        # In isolated mode, so that no code of the user runs in it; it gets numpy's folder, which may be among the
        # user's packages. Thread pools would not fit into its memory.
        numpy_folder = str(Path(np.__file__).parents[1])
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, numpy_folder, pickle_reader.__file__, str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def _out(self) -> BinaryIO:
        assert self._process.stdout is not None
        return self._process.stdout  # type: ignore[return-value]

    def blocks(self, progress: Progress | None) -> Iterator[_Block]:
        """The blocks that the child reads, as they come."""
        size = self._file.stat().st_size
        try:
            for *arrays, position in pickle_reader.blocks(self._out):
                yield _Block(*arrays)
                if progress is not None:
                    progress(int(position), size)
        except ValueError:  # the child died within a block: report its exit code
            pass
        if code := self._process.wait():
            assert self._process.stderr is not None
            reason = self._process.stderr.read().decode(errors="replace").strip()
            if code != pickle_reader.REFUSED:
                last = reason.splitlines()[-1:] or ["no message"]
                reason = f"its reader died with exit code {code} ({last[0]})"
            raise StoreError(f"{self._file} is refused: {reason}")


def _checked(blocks: Iterator[_Block], name: Name, file: Path) -> Iterator[_Block]:
    """The same blocks; the first transition that a store cannot hold is refused by number."""
    start = 0
    for block in blocks:
        known = TASKS.get(name.task)
        sizes = block.observations.shape[1], block.actions.shape[1]
        if known and sizes != (known.observation_size, known.num_sub_actions):
            raise StoreError(
                f"{file} is refused: observations have {sizes[0]} and actions {sizes[1]} entries, those of {name.task} "
                f"have {known.observation_size} and {known.num_sub_actions}; --task names another task"
            )
        if 0 in sizes:
            raise StoreError(f"{file} is refused: its observations or actions are empty")
        outside = (block.actions < 0) | (block.actions >= name.bins)
        for what, values, wanted, bad in (
            ("observation", block.observations, "a finite number", not_finite(block.observations)),
            ("next observation", block.followings, "a finite number", not_finite(block.followings)),
            ("reward", block.rewards[:, None], "a finite number", not_finite(block.rewards[:, None])),
            ("action", block.actions, f"0 to {name.bins - 1}", outside),
        ):
            if bad.any():
                row, column = (int(index) for index in np.argwhere(bad)[0])
                where = f"the {what} of transition {start + row}, entry {column}"
                raise StoreError(f"{file} is refused: {where}: expected {wanted}, got {values[row, column]}")
        start += len(block.actions)
        yield block


def _episodes(pending: _Block, blocks: Iterator[_Block]) -> Iterator[Episode]:
    """Cut consecutive transitions into episodes; the last one is cut off where the file ends."""
    for block in blocks:
        pending = pending + block
        # The last transition's end is not known before the next block.
        start = 0
        for end in _ends(pending)[:-1]:
            yield _episode(pending[start:end])
            start = end
        pending = pending[start:]
    start = 0
    for end in _ends(pending):
        yield _episode(pending[start:end])
        start = end


def _ends(block: _Block) -> list[int]:
    """One past the last row of each episode; for the last episode, the end of the block."""
    over = np.ones(len(block.dones), dtype=bool)
    over[:-1] = block.dones[:-1] | (block.followings[:-1] != block.observations[1:]).any(axis=1)
    ends, start = [], 0
    for end in (np.flatnonzero(over) + 1).tolist():
        ends += [*range(start + EPISODE_STEPS, end, EPISODE_STEPS), end]
        start = end
    return ends


def _episode(block: _Block) -> Episode:
    length = len(block.actions)
    return Episode(
        observations=np.concatenate([block.observations, block.followings[-1:]]).astype(np.float32),
        actions=block.actions,
        rewards=block.rewards,
        terminated=block.dones,
        truncated=(np.arange(length) == length - 1) & ~block.dones,
    )


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]
