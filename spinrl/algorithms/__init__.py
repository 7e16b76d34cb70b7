"""Offline reinforcement learning algorithms: each is networks, optimizers and one `update`."""

from spinrl.algorithms.awac import AWAC, AWACAlgorithm
from spinrl.algorithms.base import Algorithm, AlgorithmConfig, DivergedError
from spinrl.algorithms.bcq import BCQ, BCQAlgorithm
from spinrl.algorithms.critic_start import MonteCarloCritics, returns_to_go
from spinrl.algorithms.imitation import Imitation
from spinrl.algorithms.iql import IQL, IQLAlgorithm
from spinrl.algorithms.rebuilding import rebuilt
from spinrl.algorithms.starts import Started, SupervisedStart

__all__ = [
    "AWAC",
    "BCQ",
    "IQL",
    "AWACAlgorithm",
    "Algorithm",
    "AlgorithmConfig",
    "BCQAlgorithm",
    "DivergedError",
    "IQLAlgorithm",
    "Imitation",
    "MonteCarloCritics",
    "Started",
    "SupervisedStart",
    "rebuilt",
    "returns_to_go",
]
