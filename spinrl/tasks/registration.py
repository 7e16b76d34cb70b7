"""Our tasks in Gymnasium's registry, and their actions in TorchRL's.

Gymnasium 1 has no plugins any more (it reads no entry points): environments are registered when their package is
imported. ``import spinrl`` does so, before or after ``import gymnasium`` (`spinrl.on_import`), and imports neither
Gymnasium nor MuJoCo for it, nor TorchRL. Without it, ``gymnasium.make("spinrl:spinrl/humanoid-stand-3bins-v0")`` has
Gymnasium import it.
"""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import EnvSpec, registry

from spinrl.tasks.benchmark import EPISODE_STEPS, MAX_BINS, MIN_BINS, TASKS

NAMESPACE = "spinrl"
CLINIC = f"{NAMESPACE}/Clinic-v0"


def register_environments() -> None:
    """Register the clinic, ``spinrl/TASK-v0`` (with the keyword `bins`) and ``spinrl/TASK-Mbins-v0``, M 2 to 100."""
    registry[CLINIC] = EnvSpec(CLINIC, entry_point="spinrl.tasks.clinic:ClinicEnv")
    for task in TASKS:
        names: dict[str, dict[str, Any]] = {f"{task}-v0": {"task": task}}
        names |= {f"{task}-{bins}bins-v0": {"task": task, "bins": bins} for bins in range(MIN_BINS, MAX_BINS + 1)}
        for name, options in names.items():
            # Not by `gymnasium.register`, which looks through all that is registered for each of these six hundred.
            registry[f"{NAMESPACE}/{name}"] = EnvSpec(
                f"{NAMESPACE}/{name}",
                entry_point="spinrl.tasks.task_env:TaskEnv",
                max_episode_steps=EPISODE_STEPS,
                kwargs=options,
            )
