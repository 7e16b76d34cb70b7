"""What a store says about itself: a readable `metadata.json`, and which arrays lie beside it."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from spinrl.cache import DamagedError
from spinrl.errors import UserError
from spinrl.specs import ActionSpec

FORMAT_VERSION = 1
METADATA_FILE = "metadata.json"
EXTRAS = ("allowed", "propensity", "propensities")  # arrays that a store may have
REMAKE = "delete the folder and make the store again"


class StoreError(UserError):
    """A store that cannot be used or written; one line that names the folder and what to do."""


class DamagedStoreError(StoreError, DamagedError):
    """A store that is not as it was written."""


@attrs.frozen(kw_only=True)
class SourceRecord:
    """Where a part of a store's episodes came from.

    Attributes:
        behavior: what acted, e.g. "expert".
        fingerprint: of its weights.
        epsilon: share of sub-actions that were drawn at random.
        hold: steps for which a random sub-action was held.
        seed: of the episodes.
        episodes, transitions: how many of them are in the store.
        return_mean, return_std: of the undiscounted returns of those episodes.
    """

    behavior: str
    fingerprint: str = ""
    epsilon: float = 0.0
    hold: int = 1
    seed: int | None = None
    episodes: int = 0
    transitions: int = 0
    return_mean: float = 0.0
    return_std: float = 0.0


@attrs.frozen(kw_only=True)
class FileRecord:
    """Size and checksum (CRC-32, in hexadecimal) of one file of a store."""

    bytes: int
    crc32: str


@attrs.frozen(kw_only=True)
class StoreMetadata:
    """Everything about a store but its arrays.

    Attributes:
        format_version: of the folder's layout.
        spinrl_version: what wrote it.
        created: when, in ISO 8601.
        task: name of the task.
        bins: choices of every sub-action, or None where they differ.
        nvec: choices of each sub-action.
        observation_size: S.
        tier: name of the recipe, e.g. "medium-expert".
        transitions: T.
        episodes: E.
        rows: R, stored observations: one per transition and one more per episode.
        sources: where the episodes came from.
        files: every other file of the folder, by its path in it.
        fingerprint: of the content; the same data has the same, whenever and wherever it was written.
        extras: optional arrays that the store has, of `EXTRAS`.
        action_start: what the log called the first choice of each sub-action, or nothing where that is 0 throughout;
            a stored action plus this is the action in the log's own numbers.
        preparation: how an import changed or left out rows and values, in words.
    """

    format_version: int = FORMAT_VERSION
    spinrl_version: str
    created: str
    task: str
    bins: int | None
    nvec: Sequence[int]
    observation_size: int
    tier: str
    transitions: int
    episodes: int
    rows: int
    sources: Sequence[SourceRecord]
    files: Mapping[str, FileRecord]
    fingerprint: str
    extras: Sequence[str] = ()
    action_start: Sequence[int] = ()
    preparation: Sequence[str] = ()

    def layout(self) -> dict[str, ArrayLayout]:
        """The arrays that the metadata promises, by TensorDict key ``group/name``."""
        spec = ActionSpec(self.nvec)
        sizes = self.observation_size, self.rows, self.transitions, self.episodes
        return array_layout(spec, *sizes, extras=self.extras)


@attrs.frozen
class ArrayLayout:
    """Type and shape of one array."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Its size on disk."""
        return self.dtype.itemsize * int(np.prod(self.shape))


def array_layout(
    spec: ActionSpec, observation_size: int, rows: int, transitions: int, episodes: int, extras: Sequence[str] = ()
) -> dict[str, ArrayLayout]:
    """Types and shapes of all arrays of a store of these sizes, by TensorDict key ``group/name``.

    ``transitions/row`` is where the observation of a transition lies; that of the next one is the row after it.
    Optional arrays: ``observations/allowed`` (R, N, K) says which choices could be taken at an observation,
    ``transitions/propensity`` (T,) or ``transitions/propensities`` (T, N) the behaviour's probability of what it took.

    Raises:
        ValueError: for an optional array that is none of `EXTRAS`.
    """
    if unknown := set(extras) - set(EXTRAS):
        raise ValueError(f"no store has arrays called {', '.join(sorted(unknown))}")
    action = np.uint8 if spec.max_choices <= 256 else np.uint16
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
        "observations/observation": (np.float32, (rows, observation_size)),
        "transitions/row": (np.int64, (transitions,)),
        "transitions/action": (action, (transitions, spec.num_sub_actions)),
        "transitions/reward": (np.float32, (transitions,)),
        "transitions/terminated": (np.bool_, (transitions,)),
        "transitions/truncated": (np.bool_, (transitions,)),
        "episodes/start": (np.int64, (episodes,)),
        "episodes/length": (np.int64, (episodes,)),
        "episodes/source": (np.int64, (episodes,)),
        "episodes/return": (np.float64, (episodes,)),
    }
    optional: dict[str, tuple[str, Any, tuple[int, ...]]] = {
        "allowed": ("observations", np.bool_, (rows, spec.num_sub_actions, spec.max_choices)),
        "propensity": ("transitions", np.float32, (transitions,)),
        "propensities": ("transitions", np.float32, (transitions, spec.num_sub_actions)),
    }
    for name in extras:
        group, dtype, shape = optional[name]
        shapes[f"{group}/{name}"] = dtype, shape
    return {key: ArrayLayout(np.dtype(dtype).newbyteorder("<"), shape) for key, (dtype, shape) in shapes.items()}


def store_bytes(spec: ActionSpec, observation_size: int, transitions: int, episodes: int) -> int:
    """Bytes on disk of a store's arrays."""
    layout = array_layout(spec, observation_size, transitions + episodes, transitions, episodes)
    return sum(array.num_bytes for array in layout.values())


def array_file(key: str) -> str:
    """The file of a TensorDict key, as ``TensorDict.memmap`` names it."""
    return f"{key}.memmap"


def write_metadata(folder: Path, metadata: StoreMetadata) -> None:
    """Write `metadata.json`, with a checksum of its own content."""
    content = attrs.asdict(metadata)
    for name in ("extras", "action_start", "preparation"):  # absent where empty, as in stores of earlier versions
        if not content[name]:
            del content[name]
    text = json.dumps(content | {"checksum": _checksum(content)}, indent=2)
    (folder / METADATA_FILE).write_text(text + "\n", encoding="utf-8")


def read_metadata(folder: Path) -> StoreMetadata:
    """Read and check `metadata.json`.

    Raises:
        StoreError: when there is none, or it is damaged, altered or of a newer format.
    """
    if not folder.is_dir():
        raise StoreError(f"store {folder} does not exist; collect or import it first")
    try:
        content = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
        version, checksum = content.pop("format_version"), content.pop("checksum", None)
    except FileNotFoundError:
        raise DamagedStoreError(f"{folder} has no {METADATA_FILE}, so it is not a store; name another folder") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DamagedStoreError(f"store {folder}: {METADATA_FILE} is not readable; {REMAKE}") from None
    if version != FORMAT_VERSION:
        raise StoreError(
            f"store {folder} has format version {version}, this spinrl reads {FORMAT_VERSION}; "
            f"upgrade spinrl, or {REMAKE}"
        )
    content = {"format_version": version, **content}
    if checksum != _checksum(content):
        raise DamagedStoreError(f"store {folder}: {METADATA_FILE} has been altered; {REMAKE}")
    try:
        sources = [SourceRecord(**source) for source in content.pop("sources")]
        files = {name: FileRecord(**record) for name, record in content.pop("files").items()}
        check_name("--task", content["task"], spaces=True)
        check_name("--tier", content["tier"], spaces=True)
        return StoreMetadata(sources=sources, files=files, **content)
    except (TypeError, KeyError, AttributeError) as error:
        raise DamagedStoreError(f"store {folder}: {METADATA_FILE} is not as expected ({error}); {REMAKE}") from None


def check_name(option: str, name: str, *, spaces: bool = False) -> None:
    """Check what files and folders are called after, be it given or told by a file of somebody else's.

    Args:
        option: that gives another one.
        name: what is checked.
        spaces: whether it may have them, as tiers of collected sources do.

    Raises:
        StoreError: when it is more than a plain name.
    """
    if not re.fullmatch(r"\w[\w .-]*" if spaces else r"\w[\w.-]*", name):
        raise StoreError(f"{option}: expected letters, digits, {'spaces, ' if spaces else ''}_ . and -, found {name!r}")


def _checksum(content: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True, separators=(',', ':')).encode()):08x}"
