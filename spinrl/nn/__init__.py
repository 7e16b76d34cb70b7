"""The networks everything else is assembled from: the only attention block, MLPs, stacked heads, critics."""

from spinrl.nn.critics import CriticEnsemble, ValueNetwork
from spinrl.nn.dropout import Dropout
from spinrl.nn.encoder import SlotEncoder, StateEncoder
from spinrl.nn.folded import FoldedSlots
from spinrl.nn.heads import StackedHeads, forbid
from spinrl.nn.initialization import seeded_initialization, uniform_fan_in
from spinrl.nn.lstm import LSTMLayer
from spinrl.nn.mlp import MLP
from spinrl.nn.standardizer import Standardizer, standardizers
from spinrl.nn.transformer import TransformerBlock

__all__ = [
    "MLP",
    "CriticEnsemble",
    "Dropout",
    "FoldedSlots",
    "LSTMLayer",
    "SlotEncoder",
    "StackedHeads",
    "Standardizer",
    "StateEncoder",
    "TransformerBlock",
    "ValueNetwork",
    "forbid",
    "seeded_initialization",
    "standardizers",
    "uniform_fan_in",
]
