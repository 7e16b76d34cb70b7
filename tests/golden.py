"""The recorded numbers of the method's public code, and our networks built at the same sizes and weights."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from tensordict import TensorDict

from spinrl import reference
from spinrl.asm import ASM, ASMEncoder
from spinrl.policies import SAINT, SPIN, Autoregressive, Factored, Policy
from spinrl.specs import ACTION, NEXT_OBSERVATION, NEXT_REWARD, NEXT_TERMINATED, OBSERVATION, ActionSpec

CASES = ("uniform_bins", "mixed_cardinalities")
POLICIES = ("factored", "autoregressive", "saint", "spin")
_POLICY_MAPS = {
    "factored": reference.factored,
    "autoregressive": reference.autoregressive,
    "saint": reference.transformer_policy,
    "spin": reference.transformer_policy,
}


@attrs.frozen
class FakeFrozenASM:
    """The ASM of a golden case as a policy sees it."""

    model: ASM
    fingerprint: str = "golden"


@attrs.frozen
class Golden:
    """One golden file: its sizes and its arrays by key."""

    meta: dict[str, Any]
    arrays: dict[str, torch.Tensor]

    @property
    def spec(self) -> ActionSpec:
        return ActionSpec(self.meta["cardinalities"])

    @property
    def observation_size(self) -> int:
        return self.meta["state_dim"]

    @property
    def encoder(self) -> ASMEncoder:
        sizes = {name: self.meta[name] for name in ("d_model", "num_heads", "num_blocks", "num_state_tokens")}
        return ASMEncoder(**sizes, dropout=self.meta["dropout"], head_width=self.meta["head_hidden"])

    def weights(self, prefix: str) -> dict[str, torch.Tensor]:
        """The arrays under `prefix`, without it."""
        return {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}

    def batch(self) -> TensorDict:
        batch = TensorDict(batch_size=[self.meta["batch"]])
        batch[OBSERVATION] = self.arrays["batch/state"]
        batch[ACTION] = self.arrays["batch/action"]
        batch[NEXT_OBSERVATION] = self.arrays["batch/next_state"]
        batch[NEXT_REWARD] = self.arrays["batch/reward"]
        batch[NEXT_TERMINATED] = self.arrays["batch/done"].bool()
        return batch

    def asm(self) -> ASM:
        model = self.encoder.build(self.observation_size, self.spec, seed=0)
        model.load_state_dict(reference.asm(self.weights("asm/weights/")))
        return model

    def policy(self, name: str) -> Policy:
        """A policy built from its configuration, with the reference's weights loaded strictly."""
        lstm = self.meta["ar"]
        config = {
            "factored": Factored(hidden=[self.meta["hidden"]] * 2, dropout=self.meta["dropout"]),
            "autoregressive": Autoregressive(
                state_width=lstm["state_embed"],
                action_width=lstm["action_embed"],
                lstm_width=lstm["lstm_hidden"],
                lstm_layers=lstm["lstm_layers"],
            ),
            "saint": SAINT(encoder=self.encoder),
            "spin": SPIN(),
        }[name]
        policy = config.build(self.observation_size, self.spec, asm=FakeFrozenASM(self.asm()), seed=0)
        extra = {key: value for key, value in policy.state_dict().items() if not isinstance(value, torch.Tensor)}
        policy.load_state_dict(self.mapped_policy(name, f"policy/{name}/weights/") | extra)
        return policy

    def mapped_policy(self, name: str, prefix: str) -> dict[str, torch.Tensor]:
        """A policy's recorded weights under our names."""
        return _POLICY_MAPS[name](self.weights(prefix))

    def ragged(self, padded: torch.Tensor) -> torch.Tensor:
        """(B, N, K) → (B, Σm_i), as the files store it."""
        return padded[:, self.spec.valid()]


def critic_ensemble(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A critic ensemble, of IQL and BCQ (stacked E×in×out) or of AWAC (modules `q1`, `q2` with out×in), as ours."""
    members = sorted({name.split(".")[0] for name in weights if name.startswith("q") and name[1].isdigit()})
    out: dict[str, torch.Tensor] = {}
    for layer, name in enumerate(("l1", "l2", "out" if members else "qs")):
        if members:
            out[f"weights.{layer}"] = torch.stack([weights[f"{member}.{name}.weight"].t() for member in members])
            out[f"biases.{layer}"] = torch.stack([weights[f"{member}.{name}.bias"][None] for member in members])
        else:
            out[f"weights.{layer}"] = weights[f"{name}.weight"]
            out[f"biases.{layer}"] = weights[f"{name}.bias"]
    return out


def value_network(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state value network: `l1`, `l2`, `l3`, with ReLU layers between them in ours."""
    return {
        f"network.{2 * layer}.{part}": weights[f"l{layer + 1}.{part}"]
        for layer in range(3)
        for part in ("weight", "bias")
    }


@functools.cache
def load(case: str) -> Golden:
    """The golden file `case`.npz; its arrays are shared, so clone before changing one."""
    with np.load(Path(__file__).parent / "golden" / f"{case}.npz") as file:
        arrays = {key: torch.from_numpy(np.array(file[key])) for key in file.files if key != "meta"}
        return Golden(meta=json.loads(str(file["meta"])), arrays=arrays)
