"""The autoregressive policy: each sub-action given those before it."""

from __future__ import annotations

import attrs
import torch
from attrs.validators import gt
from torch import nn
from torch.nn import functional

from spinrl.nn import StackedHeads, seeded_initialization
from spinrl.policies.base import Policy, PolicyConfig, PretrainedASM
from spinrl.registry import register
from spinrl.specs import ActionSpec


@register
@attrs.frozen(kw_only=True)
class Autoregressive(PolicyConfig):
    """Each sub-action given those before it, through an LSTM.

    Attributes:
        state_width: width of the embedded observation.
        action_width: width of an embedded sub-action.
        lstm_width: hidden width of the LSTM.
        lstm_layers: layers of the LSTM.
    """

    state_width: int = attrs.field(default=128, validator=gt(0))
    action_width: int = attrs.field(default=32, validator=gt(0))
    lstm_width: int = attrs.field(default=256, validator=gt(0))
    lstm_layers: int = attrs.field(default=2, validator=gt(0))

    def build(
        self, observation_size: int, action_spec: ActionSpec, *, asm: PretrainedASM | None = None, seed: int
    ) -> AutoregressivePolicy:
        with seeded_initialization(seed, "policy"):
            return AutoregressivePolicy(self, observation_size, action_spec)


class AutoregressivePolicy(Policy):
    """An LSTM over [embedded state, embedded previous sub-action], then one linear head per sub-action.

    All sub-actions share one embedding of K + 1 rows, the last of which is the start token. Training runs the LSTM
    over the whole given action at once; acting steps through it.
    """

    def __init__(self, config: Autoregressive, observation_size: int, action_spec: ActionSpec) -> None:
        super().__init__(observation_size, action_spec)
        self.state_embedding = nn.Linear(observation_size, config.state_width)
        self.action_embedding = nn.Parameter(torch.randn(action_spec.max_choices + 1, config.action_width))  # (K+1, e)
        self.lstm = nn.LSTM(config.state_width + config.action_width, config.lstm_width, config.lstm_layers)
        self.heads = StackedHeads(action_spec, config.lstm_width)

    def logits(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
        if action is None:
            return self.decide(observation, None)[1]
        state = functional.relu(self.state_embedding(observation))  # (B, s)
        start = torch.full_like(action[:, :1], self.action_spec.max_choices)
        previous = torch.cat([start, action[:, :-1]], dim=1).t()  # (N, B)
        inputs = torch.cat([state.expand(len(previous), -1, -1), self.action_embedding[previous]], dim=-1)
        hidden, _ = self.lstm(inputs)  # (N, B, h)
        return self.heads.slot_major(hidden).transpose(0, 1)

    def decide(self, observation: torch.Tensor, noise: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        batch, spec = observation.shape[0], self.action_spec
        state = functional.relu(self.state_embedding(observation))  # (B, s)
        zeros = state.new_zeros(self.lstm.num_layers, batch, self.lstm.hidden_size)
        memory = (zeros, zeros)
        previous = torch.full((batch,), spec.max_choices, device=observation.device)
        actions, logits = [], []
        for sub_action in range(spec.num_sub_actions):
            step = torch.cat([state, self.action_embedding[previous]], dim=-1)  # (B, s+e)
            hidden, memory = self.lstm(step[None], memory)
            logits.append(self.heads.one(sub_action, hidden[0]))
            scores = logits[-1] if noise is None else logits[-1] + noise[:, sub_action]
            previous = scores.argmax(-1)
            actions.append(previous)
        return torch.stack(actions, dim=1), torch.stack(logits, dim=1)
