"""Writes stores: episodes are checked one by one, written beside the final folder, and renamed when complete."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs
import numpy as np
import torch
from tensordict import MemoryMappedTensor, TensorDict

from spinrl.config.serialize import fingerprint
from spinrl.data.store.array_file import ArrayFile
from spinrl.data.store.metadata import (
    FORMAT_VERSION,
    FileRecord,
    SourceRecord,
    StoreError,
    StoreMetadata,
    array_file,
    array_layout,
    check_name,
    store_bytes,
    write_metadata,
)
from spinrl.data.store.store import Episode
from spinrl.data.store.validate import check_episode
from spinrl.specs import ActionSpec

_FULL = (errno.ENOSPC, errno.EDQUOT)


class StoreWriter:
    """Writes one store. A context manager: it finishes the store on exit, and discards it on an exception.

    Arrays are written as plain files, since a write to a memory map on a full disk kills the process.

    Args:
        path: folder of the store, which must not exist yet.
        task: name of the task.
        bins: choices of every sub-action, or None if they differ.
        action_spec: N sub-actions and their choices.
        observation_size: S.
        tier: name of the recipe.
        sources: origins of the episodes; `Episode.source` is an index into it.
        expected: (transitions, episodes) to write, if known: then a lack of disk space is found at once.
        extras, action_start, preparation: as in `StoreMetadata`; `preparation` may grow until the store is finished.

    Raises:
        StoreError: when the folder exists, or the disk is or becomes full.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        task: str,
        bins: int | None,
        action_spec: ActionSpec,
        observation_size: int,
        tier: str,
        sources: Sequence[SourceRecord],
        expected: tuple[int, int] | None = None,
        extras: Sequence[str] = (),
        action_start: Sequence[int] = (),
        preparation: Sequence[str] = (),
    ) -> None:
        self.path = Path(path)
        check_name("--task", task, spaces=True)
        check_name("--tier", tier, spaces=True)
        self._task, self._bins, self._tier = task, bins, tier
        self._spec, self._observation_size = action_spec, observation_size
        self._sources = list(sources)
        self._extras, self._action_start, self.preparation = tuple(extras), list(action_start), list(preparation)
        self._needed = store_bytes(action_spec, observation_size, *expected) if expected else 0
        self._rows = self._transitions = 0
        self._episodes: list[tuple[int, int, int, float]] = []  # start, length, source, return
        self._layout = array_layout(action_spec, observation_size, 0, 0, 0, self._extras)
        if self.path.exists():
            raise StoreError(f"store {self.path} exists already; delete the folder or name another")
        self._folder = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._files: dict[str, ArrayFile] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path.parent).free
            if free < self._needed:
                raise OSError(errno.ENOSPC, "not enough space")
            shutil.rmtree(self._folder, ignore_errors=True)
            for key in self._layout:
                self._files[key] = ArrayFile(self._folder / array_file(key))
        except OSError as error:
            self.discard()
            raise self._store_error(error) from error

    def append(self, episode: Episode) -> None:
        """Add an episode.

        Raises:
            StoreError: for shapes that do not fit, observations or rewards that are not finite, and actions out of
                range, naming episode, step and value; and when the disk is full.
        """
        check_episode(
            episode,
            self._spec,
            self._observation_size,
            len(self._sources),
            where=f"store {self.path}, episode {len(self._episodes)}",
            extras=self._extras,
        )
        length = len(episode)
        columns: dict[str, Any] = {
            "observations/observation": episode.observations,
            "transitions/row": np.arange(self._rows, self._rows + length),
            "transitions/action": episode.actions,
            "transitions/reward": episode.rewards,
            "transitions/terminated": episode.terminated,
            "transitions/truncated": episode.truncated,
        }
        for name in self._extras:
            key = "observations/allowed" if name == "allowed" else f"transitions/{name}"
            columns[key] = episode.allowed if name == "allowed" else episode.propensity
        try:
            for key, values in columns.items():
                self._files[key].write(values.astype(self._layout[key].dtype))
        except OSError as error:
            raise self._store_error(error) from error
        # Of the rewards as they are stored, so that a copy of a store has its returns to the last bit.
        total = float(np.sum(episode.rewards.astype(np.float32), dtype=np.float64))
        self._episodes.append((self._transitions, length, episode.source, total))
        self._rows += length + 1
        self._transitions += length

    def finish(self) -> None:
        """Complete the store and rename it to its final folder.

        Raises:
            StoreError: when nothing was appended, the disk is full, or the folder exists by now.
        """
        if not self._episodes:
            raise StoreError(f"store {self.path} would be empty; append at least one episode")
        try:
            for column, key in enumerate(("start", "length", "source", "return")):
                values = np.array([row[column] for row in self._episodes])
                self._files[f"episodes/{key}"].write(values.astype(self._layout[f"episodes/{key}"].dtype))
            for file in self._files.values():
                file.close()
            metadata = self._metadata(self._describe())
            write_metadata(self._folder, metadata)
            os.rename(self._folder, self.path)
        except OSError as error:
            raise self._store_error(error) from error

    def discard(self) -> None:
        """Delete the unfinished store."""
        for file in self._files.values():
            file.abandon()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.discard()

    def _describe(self) -> dict[str, FileRecord]:
        """Let TensorDict write its own descriptions around the arrays, and record all files."""
        sizes = self._rows, self._transitions, len(self._episodes)
        layout = array_layout(self._spec, self._observation_size, *sizes, self._extras)
        groups: dict[str, dict[str, torch.Tensor]] = {}
        for key, array in layout.items():
            group, field = key.split("/")
            # An empty array's torch type: numpy's names for types are not torch's.
            dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
            file = self._folder / array_file(key)
            groups.setdefault(group, {})[field] = MemoryMappedTensor.from_filename(file, dtype, array.shape)
        data = {group: TensorDict(fields, [len(next(iter(fields.values())))]) for group, fields in groups.items()}
        TensorDict(data, []).memmap_(str(self._folder))
        records = {array_file(key): FileRecord(bytes=f.size, crc32=f"{f.crc32:08x}") for key, f in self._files.items()}
        for file in sorted(self._folder.rglob("*.json")):
            content = file.read_bytes()
            name = file.relative_to(self._folder).as_posix()
            records[name] = FileRecord(bytes=len(content), crc32=f"{zlib.crc32(content):08x}")
        return records

    def _metadata(self, files: dict[str, FileRecord]) -> StoreMetadata:
        content = {array_file(key): attrs.asdict(files[array_file(key)]) for key in self._layout}
        content_of: dict[str, Any] = {"task": self._task, "nvec": list(self._spec.nvec), "files": content}
        return StoreMetadata(
            spinrl_version=version("spinrl"),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            task=self._task,
            bins=self._bins,
            nvec=list(self._spec.nvec),
            observation_size=self._observation_size,
            tier=self._tier,
            transitions=self._transitions,
            episodes=len(self._episodes),
            rows=self._rows,
            sources=[self._counted(index, source) for index, source in enumerate(self._sources)],
            files=files,
            fingerprint=fingerprint({"format_version": FORMAT_VERSION, **content_of}),
            extras=self._extras,
            action_start=self._action_start,
            preparation=self.preparation,
        )

    def _counted(self, index: int, source: SourceRecord) -> SourceRecord:
        mine = [(length, total) for _, length, origin, total in self._episodes if origin == index]
        returns = [total for _, total in mine] or [0.0]
        return attrs.evolve(
            source,
            episodes=len(mine),
            transitions=sum(length for length, _ in mine),
            return_mean=float(np.mean(returns)),
            return_std=float(np.std(returns)),
        )

    def _store_error(self, error: OSError) -> StoreError:
        if error.errno not in _FULL:
            return StoreError(f"store {self.path} could not be written: {error}; check the folder and its disk")
        free = shutil.disk_usage(self.path.parent).free
        needed = f"{_megabytes(self._needed)} needed in all" if self._needed else "more is needed"
        return StoreError(
            f"store {self.path} could not be written: the disk of {self.path.parent} is full "
            f"({_megabytes(free)} free, {needed}); free some, or choose another place with SPINRL_HOME"
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
