"""The linear probe: how much of an action one linear classifier per slot reads from an ASM's slot embeddings.

The paper (arXiv 2601.04441) publishes the numbers of its probe but not the inputs. Ours are these, and stay the same so
that results can be compared:

- Samples are (observation, action) pairs of a dataset. The classifiers are fitted on some of its episodes and tested on
  others, whole ones; ASM pre-training has seen both.
- ``others``: the ASM sees the observation and the action in which each sub-action in turn is its mask token. Slot i's
  embedding is that of the input in which sub-action i is masked, so that no slot ever sees its own answer.
- ``observation``: the ASM sees the observation alone, every sub-action being its mask token.
- Classifiers are multinomial logistic regressions on embeddings in standard units, one a slot.

What exact match would be if slots were right independently of each other is the product of their accuracies. (The
paper's 0.90^38 is a power of their mean, which is never less than that.)
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import attrs
import torch
from attrs.validators import ge, gt, lt
from torch.nn import functional

from spinrl.asm.frozen import FrozenASM
from spinrl.asm.model import ASM
from spinrl.config.registry import Component, register
from spinrl.data import Store, StoreStorage
from spinrl.errors import UserError
from spinrl.nn import StackedHeads, seeded_initialization
from spinrl.seeding import torch_generator
from spinrl.specs import ActionSpec

ProbeInput = Literal["others", "observation"]
PROBE_INPUTS: tuple[ProbeInput, ...] = ("others", "observation")
_INPUTS_AT_ONCE = 4096  # of the ASM; bounds the memory that its activations take
_SMALLEST = 1e-4  # standard deviation below which an entry of an embedding counts as constant


class ProbeError(UserError):
    """A dataset that cannot be probed; the message says why."""


@register
@attrs.frozen(kw_only=True)
class LinearProbe(Component):
    """One linear classifier per slot on frozen slot embeddings.

    Attributes:
        transitions: that are embedded, of training and held-out episodes together; all, where there are fewer.
        held_out: share of the episodes, and of the transitions, that the classifiers are tested on.
        steps: iterations of L-BFGS at most.
        learning_rate: first length that its line search tries.
        penalty: weight of the squared norm of the weights, without which those of separable classes grow for ever.
    """

    kind: ClassVar[str] = "probe"

    transitions: int = attrs.field(default=20_000, validator=ge(2))
    held_out: float = attrs.field(default=0.2, validator=[gt(0), lt(1)])
    steps: int = attrs.field(default=200, validator=ge(1))
    learning_rate: float = attrs.field(default=1.0, validator=gt(0))
    penalty: float = attrs.field(default=1e-4, validator=ge(0))


@attrs.frozen(kw_only=True)
class ProbeResult:
    """What the classifiers got right on held-out episodes, all as shares of 1.

    Attributes:
        slot_accuracies: of each slot.
        majority_accuracies: of each slot, by always answering its most frequent choice in the training episodes.
        exact_match: share of the actions all of whose N sub-actions are right.
        fitted: transitions that the classifiers were fitted on.
        tested: held-out transitions.
    """

    slot_accuracies: tuple[float, ...]
    majority_accuracies: tuple[float, ...]
    exact_match: float
    fitted: int
    tested: int

    @property
    def slot_accuracy(self) -> float:
        """Mean over slots."""
        return math.fsum(self.slot_accuracies) / len(self.slot_accuracies)

    @property
    def majority_accuracy(self) -> float:
        """Mean over slots."""
        return math.fsum(self.majority_accuracies) / len(self.majority_accuracies)

    @property
    def independence(self) -> float:
        """The exact match of slots that are right independently of each other: the product of their accuracies."""
        return math.prod(self.slot_accuracies)


def probe_asm(
    config: LinearProbe,
    asm: FrozenASM,
    store: Store,
    what: ProbeInput,
    *,
    seed: int,
) -> ProbeResult:
    """Probe an ASM.

    Args:
        config: how.
        asm: whose slot embeddings.
        store: the dataset.
        what: the ASM is shown.
        seed: of the choice of episodes and transitions, the same for every ASM that is probed with it.

    Raises:
        ProbeError: when the dataset has too few episodes.
    """
    storage = StoreStorage(store)
    device = asm.model.embedding.device
    (observation, action), (unseen_observation, unseen_action) = (
        tuple(part.to(device) for part in storage.actions(index)[:2])
        for index in split_transitions(config, store, seed)
    )
    return fit_and_test(
        config,
        store.action_spec,
        (embed(asm.model, observation, action, what), action),
        (embed(asm.model, unseen_observation, unseen_action, what), unseen_action),
        seed=seed,
    )


def split_transitions(config: LinearProbe, store: Store, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rising indices of the transitions to fit on and of those to test on, drawn from different episodes.

    Raises:
        ProbeError: when there are fewer than two episodes.
    """
    episodes = store.metadata.episodes
    if episodes < 2:
        raise ProbeError(f"a probe needs two episodes or more, one of them held out; the store {store.path} has one")
    held_out = min(max(round(config.held_out * episodes), 1), episodes - 1)
    order = torch.randperm(episodes, generator=torch_generator(seed, "probe", "episodes"))
    tested = min(max(round(config.held_out * config.transitions), 1), config.transitions - 1)
    generator = torch_generator(seed, "probe", "transitions")
    start, length = store.data["episodes", "start"], store.data["episodes", "length"]

    def draw(chosen: torch.Tensor, count: int) -> torch.Tensor:
        pool = torch.cat([torch.arange(int(length[each])) + start[each] for each in chosen])
        return pool[torch.randperm(len(pool), generator=generator)[:count]].sort().values

    return draw(order[held_out:], config.transitions - tested), draw(order[:held_out], tested)


@torch.inference_mode()
def embed(model: ASM, observation: torch.Tensor, action: torch.Tensor, what: ProbeInput) -> torch.Tensor:
    """Slot embeddings (N, C, d) of observations (C, S) and actions (C, N), in none of which a slot sees its own."""
    num_slots = action.shape[1]
    at_once = max(1, _INPUTS_AT_ONCE // (num_slots if what == "others" else 1))
    parts = zip(observation.split(at_once), action.split(at_once), strict=True)
    if what == "others":
        return torch.cat([_embed_in_turn(model, *part) for part in parts], 1)
    masked = model.mask_token
    return torch.cat([model.slot_embeddings(seen, masked.expand_as(of)).transpose(0, 1) for seen, of in parts], 1)


def _embed_in_turn(model: ASM, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """Slot i's embedding with sub-action i masked and the others visible: (C, S), (C, N) → (N, C, d)."""
    count, num_slots = action.shape
    own = torch.eye(num_slots, dtype=torch.bool, device=action.device)
    tokens = torch.where(own, model.mask_token, action[:, None])  # (C, N, N): in row i sub-action i is masked
    slots = torch.arange(num_slots, device=action.device)[:, None]
    rows = torch.arange(count, device=action.device) * num_slots + slots  # (N, C): slot i needs its own row alone
    repeated = observation.repeat_interleave(num_slots, 0)  # (C·N, S)
    return model.encoder(repeated, model.embedding, tokens.flatten(0, 1) + model.offsets, rows)


def fit_and_test(
    config: LinearProbe,
    spec: ActionSpec,
    seen: tuple[torch.Tensor, torch.Tensor],
    unseen: tuple[torch.Tensor, torch.Tensor],
    *,
    seed: int,
) -> ProbeResult:
    """Fit one linear classifier a slot, and test it.

    Args:
        config: how.
        spec: the action's shape.
        seen: embeddings (N, C, d) and actions (C, N) to fit on.
        unseen: the same, of other episodes, to test on.
        seed: of the first weights; the objective being convex, they hardly matter.
    """
    embeddings, action = seen
    mean = embeddings.mean(1, keepdim=True)
    scale = 1 / embeddings.std(1, correction=0, keepdim=True).clamp_min(_SMALLEST)
    # Another affine map before a linear classifier leaves it linear; in standard units it is found in far fewer steps.
    inputs = (embeddings - mean) * scale
    target = action.t().flatten()
    with seeded_initialization(seed, "probe"):
        heads = StackedHeads(spec, embeddings.shape[-1])
    heads.to(embeddings.device)
    optimizer = torch.optim.LBFGS(
        heads.parameters(), lr=config.learning_rate, max_iter=config.steps, line_search_fn="strong_wolfe"
    )

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        # Summed over slots, so that each one's classifier is what it would be alone.
        cross_entropy = functional.cross_entropy(heads.slot_major(inputs).flatten(0, 1), target, reduction="sum")
        loss = cross_entropy / len(action) + config.penalty * heads.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    unseen_embeddings, unseen_action = unseen
    with torch.no_grad():
        predicted = heads.slot_major((unseen_embeddings - mean) * scale).argmax(-1).t()  # (C, N)
    right = predicted == unseen_action
    majority = unseen_action == action.mode(0).values
    return ProbeResult(
        slot_accuracies=tuple(right.double().mean(0).tolist()),
        majority_accuracies=tuple(majority.double().mean(0).tolist()),
        exact_match=float(right.all(1).double().mean()),
        fitted=len(action),
        tested=len(unseen_action),
    )
