"""Finished episodes of a source whose collection has not ended: one file each, so that a killed collection goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import attrs
import numpy as np

from spinrl.data.store.metadata import StoreError
from spinrl.data.store.store import Episode
from spinrl.files import replacing


class KeptEpisodes:
    """Episodes in a folder, by their number in the sequence.

    Args:
        folder: made with the first episode.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, number: int, steps: int) -> Episode | None:
        """The first `steps` steps of an episode, or None when it is not there, too short or damaged."""
        try:
            with np.load(self._file(number), allow_pickle=False) as arrays:  # checks the checksum of every array
                episode = Episode(**{name: arrays[name] for name in _FIELDS})
        except Exception:  # a damaged archive fails in any way there is; the episode is collected anew
            return None
        return episode.first(steps) if len(episode) >= steps else None

    def save(self, number: int, episode: Episode) -> None:
        """Keep an episode; a kill leaves the whole file or none. A power cut may damage it, which `read` finds out.

        Raises:
            StoreError: when the disk does not take it.
        """
        file = self._file(number)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(file) as beside, beside.open("wb") as stream:
                np.savez(stream, **{name: getattr(episode, name) for name in _FIELDS})
        except OSError as error:
            raise StoreError(
                f"episode {number} could not be kept in {self.folder}: {error.strerror}; make room there, or choose "
                "another place with SPINRL_HOME; the same command goes on from here"
            ) from error

    def __len__(self) -> int:
        return len(list(self.folder.glob("[0-9]*.npz")))

    def remove(self) -> None:
        """Delete them all: what they are for is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.npz"


_FIELDS = [field.name for field in attrs.fields(Episode) if field.name != "source"]
