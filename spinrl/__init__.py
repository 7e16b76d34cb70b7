"""Offline reinforcement learning where one action is many discrete sub-actions at once.

From Python: `Dataset` has the data, `fit` trains a policy on it, `load` reads a saved one; components such as `SPIN`
and `IQL` configure them. Nothing of it is imported before it is used.

Importing the package lets ``gymnasium.make("spinrl/humanoid-stand-3bins-v0")`` find the benchmark's tasks.
"""

import getpass
import importlib
import os
from typing import TYPE_CHECKING, Any

from spinrl.errors import UserError
from spinrl.on_import import on_import

if TYPE_CHECKING:
    from spinrl.algorithms import AWAC, BCQ, IQL, Imitation, MonteCarloCritics
    from spinrl.asm import ASMEncoder, FrozenASM, Masking, Pretraining
    from spinrl.budget import Training
    from spinrl.evaluation import (
        ASMBehavior,
        Estimate,
        FittedQ,
        HeldOutLikelihood,
        ImitatedBehavior,
        LoggedPropensities,
        PerDecisionWIS,
        WeightedDoublyRobust,
    )
    from spinrl.face.dataset import Dataset
    from spinrl.face.fit import fit
    from spinrl.face.judging import Score
    from spinrl.face.policy import TrainedPolicy
    from spinrl.face.saved import load
    from spinrl.machine import Machine
    from spinrl.policies import SAINT, SPIN, Autoregressive, Factored

_PLACES = {
    "spinrl.algorithms": ("AWAC", "BCQ", "IQL", "Imitation", "MonteCarloCritics"),
    "spinrl.asm": ("ASMEncoder", "FrozenASM", "Masking", "Pretraining"),
    "spinrl.evaluation": (
        "ASMBehavior",
        "Estimate",
        "FittedQ",
        "HeldOutLikelihood",
        "ImitatedBehavior",
        "LoggedPropensities",
        "PerDecisionWIS",
        "WeightedDoublyRobust",
    ),
    "spinrl.face.dataset": ("Dataset",),
    "spinrl.face.fit": ("fit",),
    "spinrl.face.judging": ("Score",),
    "spinrl.face.policy": ("TrainedPolicy",),
    "spinrl.face.saved": ("load",),
    "spinrl.machine": ("Machine",),
    "spinrl.policies": ("SAINT", "SPIN", "Autoregressive", "Factored"),
    "spinrl.budget": ("Training",),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "AWAC",
    "BCQ",
    "IQL",
    "SAINT",
    "SPIN",
    "ASMBehavior",
    "ASMEncoder",
    "Autoregressive",
    "Dataset",
    "Estimate",
    "Factored",
    "FittedQ",
    "FrozenASM",
    "HeldOutLikelihood",
    "ImitatedBehavior",
    "Imitation",
    "LoggedPropensities",
    "Machine",
    "Masking",
    "MonteCarloCritics",
    "PerDecisionWIS",
    "Pretraining",
    "Score",
    "TrainedPolicy",
    "Training",
    "UserError",
    "WeightedDoublyRobust",
    "fit",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _name_user() -> None:
    """Give a user id without a name, as in many containers, one: torch asks for it when imported, and MLflow later.

    It goes into the environment, where `getpass` looks first and the processes of a run find it too.
    """
    try:
        getpass.getuser()
    except (OSError, KeyError, ImportError):  # what it raises differs between versions of Python
        os.environ["LOGNAME"] = f"uid-{os.getuid()}" if hasattr(os, "getuid") else "unknown"


def _register_environments() -> None:
    from spinrl.tasks.registration import register_environments

    register_environments()


def _register_choices() -> None:
    from spinrl.tasks.choice_space import register_with_torchrl

    register_with_torchrl()


_name_user()
on_import("gymnasium", _register_environments)
on_import("torchrl.envs.libs.gym", _register_choices)
