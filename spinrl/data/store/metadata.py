"""The description of a store: a readable `metadata.json`, and the arrays beside it."""

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
    """A store cannot be used or written; the message is one line with the folder and what to do."""


class DamagedStoreError(StoreError, DamagedError):
    """A store has changed since it was written."""


@attrs.frozen(kw_only=True)
class SourceRecord:
    """The origin of a part of a store's episodes.

    Attributes:
        behavior: name of the behaviour policy, e.g. "expert".
        fingerprint: fingerprint of its weights.
        epsilon: share of sub-actions that were drawn at random.
        hold: control steps for which a random sub-action was held.
        seed: seed of the episodes.
        episodes, transitions: their number in the store.
        return_mean, return_std: mean and deviation of the undiscounted returns of those episodes.
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
    """All of a store but its arrays.

    Attributes:
        format_version: version of the folder's layout.
        spinrl_version: version of spinrl that wrote it.
        created: time of writing, in ISO 8601.
        task: name of the task.
        bins: choices of every sub-action, or None if they differ.
        nvec: choices of each sub-action.
        observation_size: S.
        tier: name of the recipe, e.g. "medium-expert".
        transitions: T.
        episodes: E.
        rows: R, stored observations: one per transition and one more per episode.
        sources: origins of the episodes.
        files: every other file of the folder, by its path in it.
        fingerprint: hash of the content; equal data has equal fingerprints, whenever and wherever it was written.
        extras: names of the optional arrays that the store has, of `EXTRAS`.
        action_start: number of each sub-action's first choice in the log, empty if all are 0; a stored action plus
            this is the action in the log's numbers.
        preparation: lines on how an import changed or left out rows and values.
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

    ``transitions/row`` is the row of a transition's observation; the next observation is the row after it. Optional
    arrays: ``observations/allowed`` (R, N, K) holds the choices that are allowed at an observation,
    ``transitions/propensity`` (T,) or ``transitions/propensities`` (T, N) the behaviour's probability of its action.

    Raises:
        ValueError: for an optional array that is not in `EXTRAS`.
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
        StoreError: when it is missing, damaged, altered or of a newer format.
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
            f"store {folder} has format version {version}, and this version of spinrl reads {FORMAT_VERSION}; "
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
    """Check a name that becomes part of a path; it may come from an untrusted file.

    Args:
        option: option with which the user gives another name, for the message.
        name: name to check.
        spaces: whether the name may have spaces, as tiers of collected sources do.

    Raises:
        StoreError: when it is not a plain name.
    """
    if not re.fullmatch(r"\w[\w .-]*" if spaces else r"\w[\w.-]*", name):
        raise StoreError(f"{option}: expected letters, digits, {'spaces, ' if spaces else ''}_ . and -, found {name!r}")


def _checksum(content: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True, separators=(',', ':')).encode()):08x}"
