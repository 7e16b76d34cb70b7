"""Weights of the method's public reference code, under our parameter names.

`load_policy` and `load_asm` read a checkpoint file of the reference into a network of ours, and `ReferenceASM` gives
such an ASM to policies by a binding. Its files hold the weights under a key of their own, beside optimizers and
settings. The functions below them each take a state dict with the reference's names and return ours, ready for a
strict `load_state_dict`; what is missing raises a KeyError, what is left over a ValueError. The reference keeps one
small module for each sub-action where we keep one stacked tensor, padded to the largest number of choices.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import attrs
import numpy as np
import torch
from attrs.validators import ge, optional
from torch import nn
from torch.nn import functional

from spinrl import checkpoint
from spinrl.asm import ASM, ASMEncoder, ASMRequest, ASMSource, FrozenASM
from spinrl.config import fingerprint, to_plain
from spinrl.config.registry import register
from spinrl.policies import AutoregressivePolicy, FactoredPolicy, Policy, SAINTPolicy, SPINPolicy
from spinrl.specs import ActionSpec

Weights = Mapping[str, torch.Tensor]

# Where the public training scripts keep the weights: IQL and AWAC, BCQ, and ASM pre-training.
_PLACES = ("actor_state_dict", "imitation_state_dict", "model_state_dict")
# The settings beside them hold numbers of NumPy, pickled under the one name or the other by its version.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("bool", "int32", "int64", "float32", "float64")),
]

_BLOCK = {
    "ln_q": "norm_query",
    "ln_kv": "norm_key_value",
    "fc_q": "query",
    "fc_k": "key",
    "fc_v": "value",
    "out_proj": "out",
    "ffn_ln": "norm_ffn",
    "ffn.0": "ffn_in",
    "ffn.3": "ffn_out",
}


class _Reader:
    """Reads entries of a state dict and keeps track of unread ones."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._left = set(weights)

    def __call__(self, name: str) -> torch.Tensor:
        if name not in self._weights:
            raise KeyError(f"the reference checkpoint has no {name!r}")
        self._left.discard(name)
        return self._weights[name]

    def numbers(self, prefix: str, position: int) -> list[int]:
        """The numbers found after `prefix` in dotted names, in order: of layers, blocks or sub-actions."""
        return sorted({int(name.split(".")[position]) for name in self._weights if name.startswith(prefix)})

    def finish(self, into: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self._left:
            raise ValueError(
                f"the reference checkpoint holds what we have no place for: {', '.join(sorted(self._left))}"
            )
        return into


def load_policy(path: Path, policy: Policy) -> None:
    """Load the reference's checkpoint of the same kind of policy and the same sizes; no code in the file is run.

    Raises:
        CheckpointError: when the file is damaged or not a checkpoint, or is of another kind or other sizes.
    """
    mappings: dict[type[Policy], Callable[[Weights], dict[str, torch.Tensor]]] = {
        FactoredPolicy: partial(factored, policy=policy),
        AutoregressivePolicy: autoregressive,
        SAINTPolicy: transformer_policy,
        SPINPolicy: transformer_policy,
    }
    _load(path, policy, mappings[type(policy)])


def load_asm(path: Path, model: ASM) -> None:
    """As `load_policy`, for an ASM."""
    _load(path, model, asm)


def _load(path: Path, module: nn.Module, mapping: Callable[[Weights], dict[str, torch.Tensor]]) -> None:
    weights = checkpoint.load(path, _NUMBERS)
    if isinstance(weights, Mapping):
        weights = next((weights[place] for place in _PLACES if place in weights), weights)
    if not isinstance(weights, Mapping) or not all(isinstance(each, torch.Tensor) for each in weights.values()):
        raise checkpoint.CheckpointError(
            f"{path} is not a state dict: expected names and tensors and nothing else, "
            f"or these under {', '.join(_PLACES)}"
        )
    # What is no tensor (a SPIN policy's fingerprint) is not in a reference checkpoint, and stays as it is.
    own = {name: value for name, value in module.state_dict().items() if not isinstance(value, torch.Tensor)}
    try:
        module.load_state_dict(mapping(weights) | own)
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        reason = " ".join(str(error.args[0] if error.args else error).split())
        raise checkpoint.CheckpointError(
            f"{path} does not fit a {type(module).__name__} of the sizes that were asked for: {reason}"
        ) from error


def _absolute(path: str) -> str:
    """The absolute path, since cells may run in another folder than the command."""
    return str(Path(path).absolute()) if isinstance(path, str) else path  # else the registry says what is wrong


@register
@attrs.frozen(kw_only=True)
class ReferenceASM(ASMSource):
    """An ASM that the reference code pre-trained, in place of pre-training one here; no code in its file is run.

    The reference gives networks observations as they are, so Experiment.standardize_observations has to be False.

    Attributes:
        checkpoint: file of the reference's pre-training, in a folder that all machines of the run share.
        encoder: sizes of the ASM, which have to be those in the file.
        seconds: duration of the pre-training; None if unknown, which leaves no time to target.
    """

    checkpoint: str = attrs.field(converter=_absolute)
    encoder: ASMEncoder = attrs.field(factory=ASMEncoder)
    seconds: float | None = attrs.field(default=None, validator=optional(ge(0)))

    def total_steps(self, transitions: int) -> int:
        return 0

    def fingerprint(self, dataset: str, seed: int, *, standardized: bool = False, precision: str = "fp32") -> str:
        try:
            content = hashlib.sha256(Path(self.checkpoint).read_bytes()).hexdigest()
        except OSError as error:
            raise checkpoint.CheckpointError(f"{self.checkpoint} cannot be read: {error.strerror}") from error
        seconds = {} if self.seconds is None else {"seconds": self.seconds}
        return fingerprint({"reference": content, "encoder": to_plain(self.encoder), **seconds})

    def check(self, observation_size: int, action_spec: ActionSpec, *, standardized: bool) -> None:
        self._network(observation_size, action_spec, standardized)

    def make(self, request: ASMRequest) -> FrozenASM:
        store = request.store
        model = self._network(store.observation_size, store.action_spec, request.standardized)
        seconds = math.nan if self.seconds is None else self.seconds
        return FrozenASM.of(model, request.fingerprint, seconds, {"reference_checkpoint": Path(self.checkpoint).name})

    def _network(self, observation_size: int, action_spec: ActionSpec, standardized: bool) -> ASM:
        if standardized:
            raise ValueError("ReferenceASM needs Experiment.standardize_observations=False: it was trained on raw ones")
        model = self.encoder.build(observation_size, action_spec, seed=0)
        load_asm(Path(self.checkpoint), model)
        return model

    def smaller(self) -> Self:
        return self  # its sizes are the file's


def factored(weights: Weights, policy: Policy | None = None) -> dict[str, torch.Tensor]:
    """A factored policy: the MLP `shared`, and linear `heads`.

    Args:
        weights: weights of the reference.
        policy: policy that gets them; its dropout, which has no weights, may differ from the reference's. None for one
            with dropout.
    """
    read = _Reader(weights)
    out: dict[str, torch.Tensor] = {}
    theirs = read.numbers("shared.", 1)
    ours = theirs if policy is None else _linear_layers(policy.get_submodule("trunk"))
    if len(ours) != len(theirs):
        raise ValueError(f"it has {len(theirs)} hidden layers, not {len(ours)}")
    for here, there in zip(ours, theirs, strict=True):
        for part in ("weight", "bias"):
            out[f"trunk.{here}.{part}"] = read(f"shared.{there}.{part}")
    out |= _linear_heads(read)
    return read.finish(out)


def autoregressive(weights: Weights) -> dict[str, torch.Tensor]:
    """An autoregressive policy: state and action embeddings, the LSTM, and linear `heads`."""
    read = _Reader(weights)
    out = {
        "state_embedding.weight": read("state_embed.0.weight"),
        "state_embedding.bias": read("state_embed.0.bias"),
        "action_embedding": read("action_embed.weight"),
    }
    for layer in sorted({name.rsplit("_l", 1)[1] for name in weights if name.startswith("lstm.")}):
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            out[f"lstm.{layer}.{part}"] = read(f"lstm.{part}_l{layer}")
    out |= _linear_heads(read)
    return read.finish(out)


def transformer_policy(weights: Weights) -> dict[str, torch.Tensor]:
    """A SAINT or SPIN policy: slot queries, state encoder, blocks and heads."""
    read = _Reader(weights)
    out = {"slot_queries": read("slot_embeddings")}
    out |= _encoder(read, "state_encoder", "blocks")
    out |= _hidden_heads(read, "heads")
    return read.finish(out)


def asm(weights: Weights) -> dict[str, torch.Tensor]:
    """An ASM: a table of embeddings per sub-action, state encoder, blocks and prediction heads."""
    read = _Reader(weights)
    core = "core_transformer."
    tables = read.numbers(f"{core}sub_action_value_embeddings.", 2)
    out = {"embedding": torch.cat([read(f"{core}sub_action_value_embeddings.{i}.weight") for i in tables])}
    out |= _encoder(read, f"{core}state_encoder", f"{core}transformer_blocks")
    out |= _hidden_heads(read, "prediction_heads")
    return read.finish(out)


def _linear_layers(module: nn.Module) -> list[int]:
    """Positions of the linear layers in a sequence of layers."""
    return [place for place, layer in enumerate(module.children()) if isinstance(layer, nn.Linear)]


def _encoder(read: _Reader, state_encoder: str, blocks: str) -> dict[str, torch.Tensor]:
    out: dict[str, torch.Tensor] = {}
    for part in ("weight", "bias"):
        for layer in (0, 2):
            out[f"encoder.state_encoder.{layer}.{part}"] = read(f"{state_encoder}.{layer}.{part}")
        for block in read.numbers(f"{blocks}.", blocks.count(".") + 1):
            for theirs, ours in _BLOCK.items():
                out[f"encoder.blocks.{block}.{ours}.{part}"] = read(f"{blocks}.{block}.mab.{theirs}.{part}")
    return out


def _linear_heads(read: _Reader) -> dict[str, torch.Tensor]:
    indices = read.numbers("heads.", 1)
    return _padded_heads(
        [read(f"heads.{i}.weight") for i in indices],
        [read(f"heads.{i}.bias") for i in indices],
    )


def _hidden_heads(read: _Reader, prefix: str) -> dict[str, torch.Tensor]:
    indices = read.numbers(f"{prefix}.", 1)
    return {
        "heads.hidden_weight": torch.stack([read(f"{prefix}.{i}.0.weight").t() for i in indices]),
        "heads.hidden_bias": torch.stack([read(f"{prefix}.{i}.0.bias")[None] for i in indices]),
    } | _padded_heads(
        [read(f"{prefix}.{i}.3.weight") for i in indices],
        [read(f"{prefix}.{i}.3.bias") for i in indices],
    )


def _padded_heads(weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Per-head (m_i, d) and (m_i,) → (N, d, K) and (N, 1, K), zero where a sub-action has fewer choices."""
    most = max(len(bias) for bias in biases)
    return {
        "heads.weight": torch.stack([functional.pad(w.t(), (0, most - len(w))) for w in weights]),
        "heads.bias": torch.stack([functional.pad(b[None], (0, most - len(b))) for b in biases]),
    }
