"""A trained policy in files that act without spinrl."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spinrl.errors import UserError
from spinrl.export import (
    CARD,
    FORMATS,
    DeployedPolicy,
    compare,
    describe,
    load_runner,
    require_agreement,
    require_packages,
)
from spinrl.export import write as write_format
from spinrl.files import replacing
from spinrl.policies import Policy
from spinrl.specs import ActionSpec
from spinrl.tasks import TASKS, control_values, get_task


def export(
    out: Path, formats: Sequence[str], module: Policy, task: str, observations: torch.Tensor, about: dict[str, Any]
) -> Path:
    """Write a policy in several formats, each compared with it; `TrainedPolicy.export` says more.

    Args:
        out: the folder.
        formats: of `spinrl.export.FORMATS`.
        module: the policy, on the CPU.
        task: of its data, whose control values the choices stand for where it is the benchmark's.
        observations: (R, S) of its data, to compare on.
        about: what the card says besides.
    """
    if unknown := [each for each in formats if each not in FORMATS]:
        raise UserError(f"formats must be of {', '.join(FORMATS)}; found {unknown[0]!r}")
    if out.exists():
        raise UserError(f"{out} exists already; give another folder, or delete it")
    require_packages(formats)
    spec = module.action_spec
    table = _controls(task, spec)
    controls = torch.from_numpy(table)
    deployed = DeployedPolicy(module, controls)
    card = {
        "format_version": 1,
        **about,
        "observation_size": module.observation_size,
        "nvec": list(spec.nvec),
        "control_values": [row[:choices].tolist() for row, choices in zip(table, spec.nvec, strict=True)],
        "versions": {name: importlib.metadata.version(name) for name in ("spinrl", "torch")},
        **({"network": describe(deployed)} if "safetensors" in formats else {}),
    }
    with replacing(out) as beside:
        beside.mkdir(parents=True)
        (beside / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        (beside / "example.json").write_text(json.dumps(observations[:3].tolist()) + "\n", encoding="utf-8")
        for name in formats:
            write_format(deployed, name, beside)
            require_agreement(name, compare(load_runner(beside, name), module, controls, observations))
        shutil.rmtree(beside / "__pycache__", ignore_errors=True)
    return out


def _controls(task: str, spec: ActionSpec) -> np.ndarray:
    """(N, K) the control value of every choice; of data that is not the benchmark's, the choice itself."""
    nvec = np.array(spec.nvec)
    if task not in TASKS:
        return control_values(0 * nvec, nvec - 1, spec.nvec)
    from spinrl.tasks.dm_control_env import BatchedEnvironment  # MuJoCo is imported by those alone who simulate

    environment = BatchedEnvironment(get_task(task), spec.max_choices, 1)
    environment.close()
    return environment.controls
