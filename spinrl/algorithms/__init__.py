"""Offline reinforcement learning algorithms: each is networks, optimizers and one `update`."""

from spinrl.algorithms.awac import AWAC, AWACAlgorithm
from spinrl.algorithms.base import Algorithm, AlgorithmConfig
from spinrl.algorithms.bcq import BCQ, BCQAlgorithm
from spinrl.algorithms.iql import IQL, IQLAlgorithm

__all__ = ["AWAC", "BCQ", "IQL", "AWACAlgorithm", "Algorithm", "AlgorithmConfig", "BCQAlgorithm", "IQLAlgorithm"]
