"""Finished episodes of an unfinished collection, one file each, so that a killed collection can resume."""

from __future__ import annotations

import shutil
from pathlib import Path

import attrs
import numpy as np

from spinrl.data.store.metadata import StoreError
from spinrl.data.store.store import Episode
from spinrl.files import replacing


class KeptEpisodes:
    """Episodes in a folder, by number.

    Args:
        folder: folder of the files; created with the first episode.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, number: int, steps: int) -> Episode | None:
        """The first `steps` steps of an episode; None if it is missing, too short or damaged."""
        try:
            with np.load(self._file(number), allow_pickle=False) as arrays:  # checks the checksum of every array
                episode = Episode(**{name: arrays[name] for name in _FIELDS if name in arrays})
        except Exception:  # a damaged archive can raise any exception; the episode is then collected again
            return None
        return episode.first(steps) if len(episode) >= steps else None

    def save(self, number: int, episode: Episode) -> None:
        """Write an episode. A kill leaves the whole file or none; `read` detects a file that a power cut damaged.

        Raises:
            StoreError: when the disk is full or cannot be written.
        """
        file = self._file(number)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(file) as beside, beside.open("wb") as stream:
                given = {name: getattr(episode, name) for name in _FIELDS}
                np.savez(stream, **{name: value for name, value in given.items() if value is not None})
        except OSError as error:
            raise StoreError(
                f"episode {number} could not be kept in {self.folder}: {error.strerror}; make room there, or choose "
                "another place with SPINRL_HOME; the same command goes on from here"
            ) from error

    def __len__(self) -> int:
        return len(list(self.folder.glob("[0-9]*.npz")))

    def remove(self) -> None:
        """Delete all episodes."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.npz"


_FIELDS = [field.name for field in attrs.fields(Episode) if field.name != "source"]
