"""Offline reinforcement learning algorithms: each is networks, optimizers and one `update`."""

from spinrl.algorithms.base import Algorithm, AlgorithmConfig
from spinrl.algorithms.iql import IQL, IQLAlgorithm

__all__ = ["IQL", "Algorithm", "AlgorithmConfig", "IQLAlgorithm"]
