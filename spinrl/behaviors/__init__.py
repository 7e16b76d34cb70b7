"""Behaviour policies: how they are trained (DecQN), and those that ship with the package."""

from spinrl.behaviors.network import DecoupledQNetwork
from spinrl.behaviors.shipped import Behavior, BehaviorError, load_behavior, shipped, weights_name

__all__ = ["Behavior", "BehaviorError", "DecoupledQNetwork", "load_behavior", "shipped", "weights_name"]
