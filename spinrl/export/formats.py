"""Writes a deployed policy in each format; the files need neither pickle nor spinrl to be read."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import save as save_safetensors

from spinrl.algorithms.bcq import BestOfSamplesPolicy, FilteredPolicy
from spinrl.errors import UserError
from spinrl.export.deployed import DeployedPolicy, EntryPoint, FoldedPolicy
from spinrl.nn.standardizer import LIMIT
from spinrl.policies import AutoregressivePolicy, FactoredPolicy, Policy

RUNNERS = Path(__file__).with_name("runners")
WEIGHTS = "policy.safetensors"
ENTRY_POINTS = ("greedy", "sample")
_EXAMPLE_ROWS = 3  # torch.export takes sizes of 0 and 1 for constants


def write(deployed: DeployedPolicy, name: str, folder: Path) -> None:
    """Write the files of one format, and its runner, into an existing folder.

    Args:
        deployed: policy to write.
        name: format, a key of `FORMATS`.
        folder: existing folder to write to.

    Raises:
        UserError: when a package that the format needs is missing, or it cannot express the policy.
    """
    require_packages([name])
    try:
        FORMATS[name](deployed, folder)
    except UserError:
        raise
    except Exception as error:  # a user's policy can make torch raise any exception
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"format {name} cannot express {type(deployed.policy).__name__}: {reason[:300]}") from error
    for runner in (f"run_{name}.py", *(() if name == "onnx" else ("torch_policy.py",))):
        shutil.copyfile(RUNNERS / runner, folder / runner)


def require_packages(names: Sequence[str]) -> None:
    """Check that the packages of the formats are installed.

    Raises:
        UserError: when a package is missing.
    """
    for name in names:
        for module in NEEDS[name]:
            if importlib.util.find_spec(module) is None:
                raise UserError(f"format {name} needs {module}: pip install 'spinrl[export]'")


def network(policy: Policy) -> dict[str, Any]:
    """The structure of a policy that ``run_safetensors.py`` needs besides its weights.

    Raises:
        UserError: for a policy of an unknown class.
    """
    match policy:
        case FactoredPolicy():
            layers = [index for index, layer in enumerate(policy.trunk) if isinstance(layer, torch.nn.Linear)]
            return {"kind": "factored", "layers": layers}
        case FoldedPolicy():
            blocks = policy.slots.blocks
            return {"kind": "slots", "num_heads": policy.slots.num_heads, "num_blocks": len(blocks)}
        case AutoregressivePolicy():
            return {"kind": "autoregressive", "layers": len(policy.lstm)}
        case FilteredPolicy():
            return {"kind": "filtered", "threshold": policy.threshold, "policy": network(policy.policy)}
        case BestOfSamplesPolicy():
            return {"kind": "best_of_samples", "policy": network(policy.policy)}
    raise UserError(
        f"format safetensors knows spinrl's own policies, not {type(policy).__name__}; take --format pt2 or onnx"
    )


def describe(deployed: DeployedPolicy) -> dict[str, Any]:
    """The card's entry ``network``."""
    return {"limit": LIMIT, "policy": network(deployed.policy)}


def _examples(deployed: DeployedPolicy, entry: str) -> dict[str, torch.Tensor]:
    policy = deployed.policy
    spec = policy.action_spec
    shape = (_EXAMPLE_ROWS, spec.num_sub_actions, spec.max_choices)
    inputs = {
        "observation": torch.zeros(_EXAMPLE_ROWS, policy.observation_size),
        "allowed": torch.ones(shape, dtype=torch.bool),
    }
    return inputs if entry == "greedy" else {**inputs, "noise": torch.zeros(shape)}


def _program(deployed: DeployedPolicy, entry: str) -> torch.export.ExportedProgram:
    inputs = _examples(deployed, entry)
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(
            EntryPoint(deployed), tuple(inputs.values()), dynamic_shapes=tuple({0: batch} for _ in inputs)
        )


def _write_pt2(deployed: DeployedPolicy, folder: Path) -> None:
    for entry in ENTRY_POINTS:
        program = _program(deployed, entry)
        program._example_inputs = None  # they would be stored as a pickle
        torch.export.save(program, folder / f"{entry}.pt2")


def _write_onnx(deployed: DeployedPolicy, folder: Path) -> None:
    for entry in ENTRY_POINTS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of onnxscript's own code
            for chatty in ("onnxscript", "torch.onnx._internal.exporter"):
                logging.getLogger(chatty).setLevel(logging.ERROR)
            program = torch.onnx.export(
                _program(deployed, entry),
                dynamo=True,
                input_names=list(_examples(deployed, entry)),
                output_names=["action", "control", "logits"],
                verbose=False,
            )
        assert program is not None
        program.save(folder / f"{entry}.onnx")


def _write_safetensors(deployed: DeployedPolicy, folder: Path) -> None:
    network(deployed.policy)
    tensors = {**dict(deployed.named_parameters()), **dict(deployed.named_buffers())}
    content = save_safetensors({name: value.detach().contiguous().clone() for name, value in tensors.items()})
    (folder / WEIGHTS).write_bytes(content)


CARD = "card.json"  # what a folder's policy is, beside its files
FORMATS: dict[str, Callable[[DeployedPolicy, Path], None]] = {
    "pt2": _write_pt2,
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
}
NEEDS: dict[str, tuple[str, ...]] = {"pt2": (), "onnx": ("onnx", "onnxscript", "onnxruntime"), "safetensors": ()}


def load_runner(folder: Path, name: str) -> Any:
    """The `Policy` of the runner in a folder, as a user of the export loads it."""
    path, before = str(folder.resolve()), dict(sys.modules)
    importlib.invalidate_caches()  # the files may be younger than the import system's last look
    sys.path.insert(0, path)
    try:
        for module in (f"run_{name}", "torch_policy"):
            sys.modules.pop(module, None)
        loaded: ModuleType = importlib.import_module(f"run_{name}")
        return loaded.Policy(folder)
    finally:
        sys.path.remove(path)
        for module in (f"run_{name}", "torch_policy"):
            sys.modules.pop(module, None)
            if module in before:
                sys.modules[module] = before[module]
