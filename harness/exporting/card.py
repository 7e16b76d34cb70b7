"""The card of an exported policy, and the observations on which an export is compared with it."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch

from harness.exporting.finished import FinishedCell
from spinrl.data import Store, StoreError, home
from spinrl.errors import UserError
from spinrl.evaluation import episode_seeds
from spinrl.export import DeployedPolicy, describe
from spinrl.policies import Policy
from spinrl.specs import ActionSpec
from spinrl.tasks import BatchedEnvironment, control_values

OBSERVATIONS = 1000
ANSWERS = {
    "observation of another size, of no numbers, or not finite": "ValueError from run_<format>.py; the bare model "
    "gives action -1 and control NaN in rows that are not finite",
    "a sub-action none of whose choices is allowed": "ValueError from run_<format>.py; the bare model gives action -1 "
    "and control NaN for it",
    "no allowed choices where trained_with_allowed is true": "every choice is allowed, also those that the data never "
    "allowed, of which the policy has learned nothing: pass allowed with each observation",
    "values far from the dataset": "standardised observations are cut off at 10 standard deviations, raw ones are not",
}


class ExportedPolicy(Policy):
    """A runner of an exported folder as a policy, so that it can be evaluated like one.

    Args:
        runner: runner object with the method `act`.
        observation_size, action_spec: sizes of the policy that was exported.
    """

    def __init__(self, runner: Any, observation_size: int, action_spec: ActionSpec) -> None:
        super().__init__(observation_size, action_spec)
        self.runner = runner

    def logits(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
        return self.decide(observation, None)[1]

    def decide(
        self, observation: torch.Tensor, noise: torch.Tensor | None, allowed: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = (None if part is None else part.numpy() for part in (noise, allowed))
        action, _, logits = self.runner.act(observation.numpy(), *inputs)
        return torch.as_tensor(action), torch.as_tensor(logits)


def dataset_of(cell: FinishedCell) -> Store | None:
    """The dataset that the cell was trained on, None if the cache does not hold it."""
    key = cell.key
    for path in sorted(path for kind in ("stores", "imported") for path in (home() / kind).glob("[!.]*")):
        try:
            store = Store.open(path, key.task, key.bins or None)
        except (StoreError, OSError):
            continue
        if store.fingerprint == cell.dataset_fingerprint:
            return store
    return None


def known_observations(
    cell: FinishedCell, dataset: Store | None, environment: BatchedEnvironment | None
) -> tuple[torch.Tensor, str]:
    """Raw observations (R, S) from the policy's training distribution, and their origin in words.

    They are from its dataset if the cache holds it, else from a simulated episode of the policy.

    Raises:
        UserError: when there is neither dataset nor simulator.
    """
    key = cell.key
    if dataset is not None:
        rows = torch.linspace(0, len(dataset) - 1, OBSERVATIONS).long()
        return dataset.data["observations", "observation"][rows].clone(), "observations of its dataset"
    if environment is None:
        raise UserError(
            f"the dataset of {key.label()} ({cell.dataset_fingerprint}) is not in {home()}, and its observations are "
            "what an export is checked on; import it again"
        )
    observation = environment.reset(0, episode_seeds(key.seed, 1)[0])
    seen = []
    for _ in range(OBSERVATIONS):
        seen.append(torch.from_numpy(observation))
        with torch.inference_mode():
            action = cell.policy.mode(seen[-1][None])
        observation = environment.step(action.numpy())[0][0]
    return torch.stack(seen), "observations of an episode of its own, as its dataset is not in the cache"


def data_licence(dataset: Store | None) -> str:
    """Licence of the data that a policy was trained on, as far as the dataset records it."""
    if dataset is None:
        return "as the dataset has it, which is not in the cache here"
    sources = dataset.metadata.sources
    if all(source.seed is not None for source in sources):  # imported data has none
        return "made by spinrl in the simulator of dm_control (Apache-2.0); nobody else's data"
    return f"as the imported data has it ({', '.join(source.behavior for source in sources)})"


def logged_values(cell: FinishedCell) -> np.ndarray:
    """(N, K) number of every choice in the imported log; such data has no actuators."""
    nvec = np.array(cell.policy.action_spec.nvec)
    first = np.array(cell.action_start or np.zeros_like(nvec))
    return control_values(first, first + nvec - 1, nvec.tolist())


def card_of(
    cell: FinishedCell,
    dataset: Store | None,
    controls: np.ndarray,
    environment: BatchedEnvironment | None,
    deployed: DeployedPolicy,
    formats: Sequence[str],
) -> dict[str, Any]:
    """The content of an exported folder's card: inputs, outputs, limits, provenance and licence.

    Args:
        cell: cell whose policy is exported.
        dataset: its dataset, None if the cache does not hold it.
        controls: (N, K) actuator value of every choice, or its number in the log.
        environment: benchmark simulator of the task, None if it has none.
        deployed: exported network.
        formats: formats that were written.
    """
    key, size = cell.key, cell.policy.observation_size
    nvec = cell.policy.action_spec.nvec
    return {
        "format_version": 1,
        **attrs.asdict(key),
        "observation_size": size,
        "observation_layout": environment.observation_layout if environment else {"observation": size},
        "nvec": list(nvec),
        "control_is": "value of the actuator" if environment else "number in the log",
        "control_values": [row[:choices].tolist() for row, choices in zip(controls, nvec, strict=True)],
        "inputs": {
            "observation": "float32 (B, S), raw",
            "allowed": "bool (B, N, K), False forbids a choice",
            "noise": "float32 (B, N, K), standard Gumbel; of the entry point sample alone",
        },
        "outputs": {
            "action": "int64 (B, N), choices from 0",
            "control": "float32 (B, N), what control_is says of the chosen action; control_values lists all",
            "logits": "float32 (B, N, K), -inf where a choice does not exist or is forbidden; of BCQ with independent "
            "sub-actions the values of the likely choices, and noise changes nothing",
        },
        "answers": ANSWERS,
        "gradient_steps": cell.gradient_steps,
        "metric": cell.final.metric,
        "returns": list(cell.final.returns),
        "evaluated_by": cell.action,
        "dataset_fingerprint": cell.dataset_fingerprint,
        "trained_with_allowed": None if dataset is None else dataset.allowed is not None,
        "data_licence": data_licence(dataset),
        "asm_fingerprint": cell.asm_fingerprint,
        "source": cell.source,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("spinrl", "torch", "dm-control", "mujoco")},
            **({"onnxruntime": importlib.metadata.version("onnxruntime")} if "onnx" in formats else {}),
        },
        **({"network": describe(deployed)} if "safetensors" in formats else {}),
    }
