"""Policies for where spinrl is not installed: one network from observation to actuator, in several file formats."""

from spinrl.export.check import Comparison, compare, require_agreement
from spinrl.export.deployed import DeployedPolicy, folded
from spinrl.export.formats import CARD, FORMATS, NEEDS, describe, load_runner, require_packages, write
from spinrl.export.latency import BATCHES, Latency, latency

__all__ = [
    "BATCHES",
    "CARD",
    "FORMATS",
    "NEEDS",
    "Comparison",
    "DeployedPolicy",
    "Latency",
    "compare",
    "describe",
    "folded",
    "latency",
    "load_runner",
    "require_agreement",
    "require_packages",
    "write",
]
