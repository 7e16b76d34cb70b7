"""A policy of one's own in one file: a linear classifier for each sub-action.

    python -m harness.run --import examples/my_policy/my_policy.py --gin gin/own_data.gin \\
        --gin examples/my_policy/my_policy.gin --set "Experiment.tasks=['clinic']"
"""

import attrs
import torch
from attrs.validators import ge
from torch import nn

from spinrl.config import register
from spinrl.nn import Standardizer, seeded_initialization
from spinrl.policies import IndependentPolicy, PolicyConfig


@register
@attrs.frozen(kw_only=True)
class Linear(PolicyConfig):
    """Logits that are linear in the observation.

    Attributes:
        scale: of the initial weights.
    """

    scale: float = attrs.field(default=0.1, validator=ge(0))

    def build(self, observation_size, action_spec, *, asm=None, seed):
        with seeded_initialization(seed, "policy"):
            return LinearPolicy(self, observation_size, action_spec)


class LinearPolicy(IndependentPolicy):
    def __init__(self, config, observation_size, action_spec):
        super().__init__(observation_size, action_spec)
        self.standardizer = Standardizer(observation_size)  # the dataset's units, where an experiment wants them
        shape = (action_spec.num_sub_actions, action_spec.max_choices)
        self.weight = nn.Parameter(config.scale * torch.randn(*shape, observation_size))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.register_buffer("valid", action_spec.valid(), persistent=False)

    def logits(self, observation, action=None):
        logits = torch.einsum("bs,nks->bnk", self.standardizer(observation), self.weight) + self.bias
        return logits.masked_fill(~self.valid, -torch.inf)
