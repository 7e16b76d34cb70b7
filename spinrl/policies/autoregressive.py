"""The autoregressive policy: each sub-action given those before it."""

from __future__ import annotations

from typing import cast

import attrs
import torch
from attrs.validators import gt
from torch import nn
from torch.nn import functional

from spinrl.config.registry import register
from spinrl.nn import LSTMLayer, StackedHeads, Standardizer, forbid, seeded_initialization
from spinrl.nn.lstm import Memory
from spinrl.policies.base import Policy, PolicyConfig, PretrainedASM
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
        self.standardizer = Standardizer(observation_size)
        self.state_embedding = nn.Linear(observation_size, config.state_width)
        self.action_embedding = nn.Parameter(torch.randn(action_spec.max_choices + 1, config.action_width))  # (K+1, e)
        inputs = [config.state_width + config.action_width, *[config.lstm_width] * (config.lstm_layers - 1)]
        self.lstm = nn.ModuleList(LSTMLayer(d_in, config.lstm_width) for d_in in inputs)
        self.heads = StackedHeads(action_spec, config.lstm_width)

    def logits(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
        if action is None:
            return self.decide(observation, None)[1]
        start = torch.full_like(action[:, :1], self.action_spec.max_choices)
        previous = torch.cat([start, action[:, :-1]], dim=1).t()  # (N, B)
        of_state, of_action = self._first_gates(observation)
        first, *rest = self._layers()
        hidden = first(of_state + functional.embedding(previous, of_action))  # (N, B, h)
        for layer in rest:
            hidden = layer(layer.input_gates(hidden))
        return self.heads.slot_major(hidden).transpose(0, 1)

    def decide(
        self, observation: torch.Tensor, noise: torch.Tensor | None, allowed: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch, spec = observation.shape[0], self.action_spec
        of_state, of_action = self._first_gates(observation)
        layers = self._layers()
        memories: list[Memory | None] = [None] * len(layers)
        previous = torch.full((batch,), spec.max_choices, device=observation.device)
        actions, logits = [], []
        for sub_action in range(spec.num_sub_actions):
            memories[0] = memory = layers[0].step(of_state + of_action[previous], memories[0])
            for depth, layer in enumerate(layers[1:], start=1):
                memories[depth] = memory = layer.step(layer.input_gates(memory[0]), memories[depth])
            hidden = memory[0]  # (B, h)
            mine = None if allowed is None else allowed[:, sub_action]
            logits.append(forbid(self.heads.logits_of(sub_action, hidden), mine))
            scores = logits[-1] if noise is None else logits[-1] + noise[:, sub_action]
            previous = scores.argmax(-1)
            actions.append(previous)
        return torch.stack(actions, dim=1), torch.stack(logits, dim=1)

    def _first_gates(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first layer's input gates as a sum: of the state (B, 4h), and of each previous choice (K+1, 4h).

        The state is the same at every step, and there are K+1 different previous choices.
        """
        first = self._layers()[0]
        state = functional.relu(self.state_embedding(self.standardizer(observation)))  # (B, s)
        width = state.shape[-1]
        of_state = functional.linear(state, first.weight_ih[:, :width], first.bias)
        return of_state, functional.linear(self.action_embedding, first.weight_ih[:, width:])

    def _layers(self) -> list[LSTMLayer]:
        return cast(list[LSTMLayer], list(self.lstm))
