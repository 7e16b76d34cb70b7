"""Policies over combinatorial actions: factored, autoregressive, SAINT and SPIN, behind one interface."""

from spinrl.policies.autoregressive import Autoregressive, AutoregressivePolicy
from spinrl.policies.base import (
    FrozenInput,
    IndependentPolicy,
    Policy,
    PolicyConfig,
    PretrainedASM,
    gumbel_noise,
    gumbel_to_uniform,
    uniform_to_gumbel,
)
from spinrl.policies.factored import Factored, FactoredPolicy
from spinrl.policies.saint import SAINT, SAINTPolicy
from spinrl.policies.spin import SPIN, SPINPolicy

__all__ = [
    "SAINT",
    "SPIN",
    "Autoregressive",
    "AutoregressivePolicy",
    "Factored",
    "FactoredPolicy",
    "FrozenInput",
    "IndependentPolicy",
    "Policy",
    "PolicyConfig",
    "PretrainedASM",
    "SAINTPolicy",
    "SPINPolicy",
    "gumbel_noise",
    "gumbel_to_uniform",
    "uniform_to_gumbel",
]
