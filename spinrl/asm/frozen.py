"""A pre-trained ASM as policies use it: frozen, and known by the fingerprint of what it came from."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from spinrl.asm.model import ASM, ASMEncoder
from spinrl.cache import DamagedError
from spinrl.config import ConfigError, from_plain, to_plain
from spinrl.errors import UserError
from spinrl.files import replacing
from spinrl.specs import ActionSpec

FORMAT_VERSION = 1
WEIGHTS, CARD = "asm.safetensors", "card.json"
Curve = list[tuple[int, dict[str, float]]]  # what a pre-training reported, by step


class ASMError(UserError):
    """An ASM that cannot be used; the message names its folder and what is wrong."""


class DamagedASMError(ASMError, DamagedError):
    """An ASM that is not as it was written."""


@attrs.frozen(eq=False)
class Snapshot:
    """The weights of an ASM after a share of its pre-training, and the seconds that this took."""

    share: float
    seconds: float
    weights: dict[str, torch.Tensor]

    @classmethod
    def of(cls, model: ASM, share: float, seconds: float) -> Snapshot:
        """Of a model in training."""
        weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        return cls(share, seconds, weights)


@attrs.frozen(eq=False)
class FrozenASM:
    """An ASM whose parameters take no gradient.

    Attributes:
        model: the network, in evaluation mode.
        fingerprint: of the data, configuration and seed that it came from.
        seconds: that its pre-training took, whether it was made now or found in the cache.
        card: everything else that is known of it.
        snapshots: of its pre-training, in order; none where they were not asked for.
    """

    model: ASM
    fingerprint: str
    seconds: float
    card: dict[str, Any]
    snapshots: tuple[Snapshot, ...] = attrs.field(default=(), converter=tuple)

    def at(self, share: float) -> FrozenASM | None:
        """The ASM after a share of its pre-training, this one for 1; None where no snapshot was kept."""
        if share == 1:
            return self
        for snapshot in self.snapshots:
            if snapshot.share == share:
                model = copy.deepcopy(self.model)
                model.load_state_dict(snapshot.weights)
                return FrozenASM.of(model, f"{self.fingerprint} at {share}", snapshot.seconds, {})
        return None

    @property
    def curve(self) -> Curve:
        """Metrics of its pre-training by step; none of an untrained one, or one of an earlier version."""
        return [(step, values) for step, values in self.card.get("curve", [])]

    @classmethod
    def of(
        cls, model: ASM, fingerprint: str, seconds: float, card: dict[str, Any], snapshots: Iterable[Snapshot] = ()
    ) -> FrozenASM:
        """Freeze a model."""
        return cls(model.eval().requires_grad_(False), fingerprint, seconds, card, snapshots)  # type: ignore[arg-type]

    @classmethod
    def untrained(
        cls, encoder: ASMEncoder, observation_size: int, action_spec: ActionSpec, *, seed: int = 0
    ) -> FrozenASM:
        """Random weights, those that pre-training starts from: for timing, and for probes of what pre-training adds."""
        return cls.of(encoder.build(observation_size, action_spec, seed=seed), "untrained", 0.0, {})

    def save(self, folder: Path) -> None:
        """Write weights and card beside `folder` and rename, so that a kill leaves nothing half-written.

        Raises:
            ASMError: when the disk does not take it; nothing is left behind then.
        """
        content = save_safetensors({name: value.cpu().contiguous() for name, value in self.model.state_dict().items()})
        card = {
            "format_version": FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            "seconds": self.seconds,
            "encoder": to_plain(self.model.config),
            "observation_size": self.model.observation_size,
            "nvec": list(self.model.action_spec.nvec),
            "weights_sha256": hashlib.sha256(content).hexdigest(),
            "snapshots": [{"share": each.share, "seconds": each.seconds} for each in self.snapshots],
            **self.card,
        }
        try:
            with replacing(folder) as beside:
                beside.mkdir(parents=True)
                (beside / WEIGHTS).write_bytes(content)
                for place, each in enumerate(self.snapshots):
                    (beside / _snapshot_file(place)).write_bytes(save_safetensors(each.weights))
                (beside / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ASMError(f"the ASM could not be written to {folder}: {error.strerror}") from error

    @classmethod
    def load(cls, folder: Path, *, fingerprint: str | None = None) -> FrozenASM:
        """Read what `save` wrote, strictly.

        Args:
            folder: an ASM's folder.
            fingerprint: that it must have.

        Raises:
            ASMError: when it is missing, damaged, of a newer format, of other sizes or of another fingerprint.
        """
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            content = (folder / WEIGHTS).read_bytes()
        except FileNotFoundError as error:
            raise DamagedASMError(f"no ASM at {folder}: {Path(error.filename).name} is missing") from error
        except (OSError, ValueError) as error:
            raise DamagedASMError(
                f"the ASM at {folder} is damaged: {CARD}: {error}; delete the folder to make it anew"
            ) from error
        try:
            version = card.pop("format_version")
            if version != FORMAT_VERSION:
                raise ASMError(
                    f"the ASM at {folder} has format {version}, this spinrl reads {FORMAT_VERSION}; update spinrl"
                )
            if hashlib.sha256(content).hexdigest() != card.pop("weights_sha256"):
                raise DamagedASMError(
                    f"the ASM at {folder} is damaged: {WEIGHTS} does not match its card; delete the folder"
                )
            found, seconds = card.pop("fingerprint"), float(card.pop("seconds"))
            if fingerprint is not None and found != fingerprint:
                raise DamagedASMError(f"the ASM at {folder} has fingerprint {found}, {fingerprint} is wanted")
            encoder = from_plain(card.pop("encoder"))
            if not isinstance(encoder, ASMEncoder):
                raise ASMError(f"the ASM at {folder} has a {type(encoder).__name__} for its encoder")
            model = encoder.build(int(card.pop("observation_size")), ActionSpec(card.pop("nvec")), seed=0)
            model.load_state_dict(load_safetensors(content))
            snapshots = [
                Snapshot(**known, weights=load_safetensors((folder / _snapshot_file(place)).read_bytes()))
                for place, known in enumerate(card.pop("snapshots", []))
            ]
        except (KeyError, TypeError, ValueError, OSError, ConfigError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise DamagedASMError(
                f"the ASM at {folder} does not fit its card: {reason}; delete the folder to make it anew"
            ) from error
        return cls.of(model, found, seconds, card, snapshots)


def _snapshot_file(place: int) -> str:
    return f"snapshot-{place}.safetensors"
