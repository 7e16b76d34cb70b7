"""Q of whole joint actions as a stack of networks, and the transitions that it is learned on."""

from __future__ import annotations

import copy
import itertools

import attrs
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from spinrl.data import Store
from spinrl.evaluation.acting import Acting
from spinrl.evaluation.estimators import ROWS, EstimationData
from spinrl.evaluation.importance import resample_counts
from spinrl.nn.initialization import uniform_fan_in
from spinrl.nn.standardizer import Standardizer
from spinrl.seeding import numpy_generator, torch_generator
from spinrl.specs import ActionSpec


class JointQ(nn.Module):
    """M networks Q(s, a), MLPs of the observation and of one input for each choice of each sub-action.

    Args:
        standardizer: of the observations, of which Q gets a copy: it sees them as the policy does.
        spec: the action's shape.
        hidden: widths of the hidden layers.
        members: M.

    Attributes:
        shift, scale: of the values; the networks' outputs are in these units.
    """

    offsets: torch.Tensor

    def __init__(self, standardizer: Standardizer, spec: ActionSpec, hidden: tuple[int, ...], members: int) -> None:
        super().__init__()
        self.standardizer = copy.deepcopy(standardizer)
        self.shift, self.scale = 0.0, 1.0
        counts = torch.tensor(spec.nvec)
        self._choices = sum(spec.nvec)
        self.register_buffer("offsets", counts.cumsum(0) - counts, persistent=False)  # (N,)
        pairs = list(itertools.pairwise([standardizer.observation_size + self._choices, *hidden, 1]))
        self.weights = nn.ParameterList(uniform_fan_in(members, i, o, fan_in=i) for i, o in pairs)
        self.biases = nn.ParameterList(uniform_fan_in(members, 1, o, fan_in=i) for i, o in pairs)

    def inputs(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """What the networks see: (B, S), (B, N) → (B, S + Σm_i)."""
        chosen = observation.new_zeros(len(observation), self._choices).scatter_(1, action + self.offsets, 1.0)
        return torch.cat([self.standardizer(observation), chosen], -1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, S + Σm_i) → (M, B)."""
        x = inputs.expand(len(self.weights[0]), *inputs.shape)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if layer < last:
                x = functional.relu(x)
        return self.shift + self.scale * x.squeeze(-1)


@attrs.frozen(eq=False, kw_only=True)
class Sample:
    """Transitions as Q sees them, on its device.

    Attributes:
        store: that they are of.
        transitions: (B,) which.
        inputs: (B, D) of what was taken.
        reward: (B,).
        going: (B,) 0 where the episode was terminated, else 1.
        returns: (B,) discounted returns-to-go; none where nobody asks.
        weight: (M, B) how often each member's bootstrap has their episode.
    """

    store: Store
    transitions: torch.Tensor
    inputs: torch.Tensor
    reward: torch.Tensor
    going: torch.Tensor
    returns: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of(
        cls,
        q: JointQ,
        data: EstimationData,
        store: Store,
        transitions: torch.Tensor,
        returns: torch.Tensor | None = None,
        weight: torch.Tensor | None = None,
    ) -> Sample:
        """Chosen transitions of a store."""
        with torch.no_grad():
            inputs = q.inputs(data.observe(store, transitions), data.taken(store, transitions))
        stored, nothing = store.data["transitions"], torch.empty(0)
        return cls(
            store=store,
            transitions=transitions,
            inputs=inputs,
            reward=stored["reward"][transitions].to(data.device),
            going=(~stored["terminated"][transitions]).float().to(data.device),
            returns=(nothing if returns is None else returns).to(data.device),
            weight=(nothing if weight is None else weight).to(data.device),
        )

    @classmethod
    def draw(cls, q: JointQ, data: EstimationData, returns: np.ndarray, most: int, members: int, seed: int) -> Sample:
        """At most so many of the training transitions, and a bootstrap of their episodes for each member."""
        store = data.training
        rows = torch.arange(len(store))
        if len(rows) > most:
            rows = torch.randperm(len(rows), generator=torch_generator(seed, "fitted-q", "rows"))[:most].sort().values
        counts = resample_counts(store.metadata.episodes, members, numpy_generator(seed, "fitted-q", "episodes"))
        episode = torch.searchsorted(store.data["episodes", "start"].contiguous(), rows, right=True) - 1
        weight = torch.from_numpy(counts).float()[:, episode]
        return cls.of(q, data, store, rows, torch.from_numpy(returns).float()[rows], weight)

    @torch.no_grad()
    def decided(self, q: JointQ, act: Acting, data: EstimationData) -> tuple[torch.Tensor, float]:
        """Q's inputs of the policy's decisions after them, (B, D), and the share with a choice not in them."""
        parts = []
        for rows in self.transitions.split(ROWS):
            observation = data.observe(self.store, rows, 1)
            parts.append(q.inputs(observation, act(observation, data.allowed(self.store, rows, 1))))
        after, choices = torch.cat(parts), q.standardizer.observation_size
        never = self.inputs[:, choices:].amax(0) == 0
        return after, float((after[:, choices:].bool() & never).any(1).float().mean())


@attrs.frozen(eq=False, kw_only=True)
class FittedValues:
    """Q of one policy.

    Attributes:
        q: the networks.
        act: the policy.
        seed: of the decisions that are drawn from it.
        gamma: discount.
        residual: root mean square of r + γ Q(s', π(s')) − Q(s, a) on held-out transitions, in units of `spread`.
        residual_bias: its mean.
        unseen: share of the policy's decisions with a choice that the data never has.
    """

    q: JointQ
    act: Acting
    seed: int
    gamma: float
    residual: float
    residual_bias: float
    unseen: float

    @property
    def spread(self) -> float:
        """Standard deviation of the returns in the data."""
        return self.q.scale

    @torch.no_grad()
    def expected(self, data: EstimationData, store: Store, transitions: torch.Tensor, actions: int) -> np.ndarray:
        """(M, B) values of the policy in the observations of transitions (B,), the mean of so many drawn actions.

        The draws are its own, so that they do not depend on who asked before.
        """
        parts, act = [], self.act.drawing(torch_generator(self.seed, "fitted-q", "values"))
        for rows in transitions.split(ROWS):
            observation, allowed = data.observe(store, rows), data.allowed(store, rows)
            drawn = [self.q(self.q.inputs(observation, act(observation, allowed))) for _ in range(actions)]
            parts.append(torch.stack(drawn).mean(0))
        return torch.cat(parts, 1).double().cpu().numpy()

    @torch.no_grad()
    def taken(self, data: EstimationData, store: Store, transitions: torch.Tensor) -> np.ndarray:
        """(M, B) values of the actions that transitions (B,) have."""
        parts = [
            self.q(self.q.inputs(data.observe(store, rows), data.taken(store, rows)))
            for rows in transitions.split(ROWS)
        ]
        return torch.cat(parts, 1).double().cpu().numpy()

    def horizon(self, store: Store, start: torch.Tensor, length: torch.Tensor) -> float:
        """Mean discounted number of steps of episodes (E,); those cut by time go on for ever."""
        steps = length.double().numpy()
        if self.gamma == 1:
            return float(steps.mean())
        ended = store.data["transitions", "terminated"][start + length - 1].numpy()
        return float((np.where(ended, 1 - self.gamma**steps, 1.0) / (1 - self.gamma)).mean())
