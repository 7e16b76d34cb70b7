"""The policy that made a log, by whose probabilities importance weights divide: as logged, or estimated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Self

import attrs
import numpy as np
import torch
from attrs.validators import in_

from spinrl.algorithms import IQL, Imitation
from spinrl.asm import ASMSource, Pretraining, pretrained_asm
from spinrl.config import fingerprint, to_plain
from spinrl.config.registry import Component, register
from spinrl.data import ReplayLoader, standardize
from spinrl.evaluation.estimators import ROWS, EstimationData, WithheldError, kept
from spinrl.nn import forbid
from spinrl.policies import Autoregressive, PolicyConfig
from spinrl.policies.base import Policy


class LoggedBehavior(Component, ABC):
    """Base of kind "logged_behavior"."""

    kind: ClassVar[str] = "logged_behavior"

    @abstractmethod
    def log_probs(self, data: EstimationData, transitions: torch.Tensor, seed: int, standardized: bool) -> np.ndarray:
        """Log-probabilities of what the log took, finite.

        Args:
            data: the log; `transitions` are of its judged episodes.
            transitions: (B,).
            seed: of what is learned for it.
            standardized: whether networks see observations in the dataset's standard units.

        Returns:
            (B, N) for each sub-action given those before it, or (B, 1) for the joint action.

        Raises:
            WithheldError: where they are not known.
        """

    def smaller(self) -> Self:
        """The same in no time, for a smoke run."""
        return self


@register
@attrs.frozen(kw_only=True)
class LoggedPropensities(LoggedBehavior):
    """The probabilities in the log itself: its column of propensities, of joint actions or of each sub-action."""

    def log_probs(self, data: EstimationData, transitions: torch.Tensor, seed: int, standardized: bool) -> np.ndarray:
        store = data.judged
        name = next((name for name in store.metadata.extras if name.startswith("propensit")), None)
        if name is None:
            raise WithheldError(
                "the log has no propensities: import them (--column propensities=…), or have the behaviour estimated "
                "(PerDecisionWIS.behavior=@ASMBehavior() or @ImitatedBehavior())"
            )
        given = store.data["transitions", name][transitions].double().numpy().reshape(len(transitions), -1)
        if not (given > 0).all():
            raise WithheldError("the log has a propensity of 0 for an action that it took; correct it and import again")
        return np.log(given)


@register
@attrs.frozen(kw_only=True)
class ASMBehavior(LoggedBehavior):
    """The behaviour as the dataset's ASM predicts it: one that a SPIN policy was trained on comes from the cache.

    By the chain rule, log b(a|s) = Σ_i log p(a_i | s, a_1 … a_i−1): sub-action i is predicted with those before it
    shown and the others masked, which is the exact joint likelihood of the model, and takes N passes. That asks for an
    ASM that was pre-trained with every share masked (`Masking.least` 0). One pre-trained with nearly all of them
    masked, as at laptop scale, knows the fully masked action alone: `order` "marginal" takes all sub-actions from that,
    as if they were independent given the observation, in one pass.

    Attributes:
        pretraining: where the ASM comes from.
        order: chain or marginal.
    """

    pretraining: ASMSource = attrs.field(factory=Pretraining)
    order: Literal["chain", "marginal"] = attrs.field(default="chain", validator=in_(("chain", "marginal")))

    def log_probs(self, data: EstimationData, transitions: torch.Tensor, seed: int, standardized: bool) -> np.ndarray:
        asm = pretrained_asm(
            self.pretraining, data.training, seed=seed, machine=data.machine, standardized=standardized
        )

        @torch.inference_mode()
        def predict() -> np.ndarray:
            parts = []
            for rows in transitions.split(ROWS):
                observation, taken = data.observe(data.judged, rows), data.taken(data.judged, rows)
                allowed = data.allowed(data.judged, rows)
                tokens = asm.model.mask_token.expand_as(taken).clone()
                found = torch.empty(taken.shape, device=taken.device)
                for i in range(taken.shape[1]):
                    if i == 0 or self.order == "chain":
                        logits = forbid(asm.model(observation, tokens), allowed).float().log_softmax(-1)  # (B, N, K)
                    found[:, i] = logits[:, i].gather(-1, taken[:, i, None]).squeeze(-1)
                    tokens[:, i] = taken[:, i]
                parts.append(found.cpu())
            return torch.cat(parts).double().numpy()

        return kept(("asm", asm.fingerprint, self.order, data.judged.fingerprint, len(transitions)), predict)

    def smaller(self) -> Self:
        return attrs.evolve(self, pretraining=self.pretraining.smaller())


@register
@attrs.frozen(kw_only=True)
class ImitatedBehavior(LoggedBehavior):
    """The behaviour as a policy that imitates the dataset, by likelihood alone.

    Attributes:
        policy: that imitates; one that needs no ASM.
        imitation: how long.
    """

    policy: PolicyConfig = attrs.field(factory=Autoregressive)
    imitation: Imitation = attrs.field(factory=Imitation)

    @policy.validator
    def _check_policy(self, _attribute: attrs.Attribute, value: PolicyConfig) -> None:
        if value.needs_asm:
            raise ValueError("policy has to be one without an ASM; ASMBehavior takes the ASM itself")

    def log_probs(self, data: EstimationData, transitions: torch.Tensor, seed: int, standardized: bool) -> np.ndarray:
        asked = fingerprint({"behavior": to_plain(self), "seed": seed, "standardized": standardized})

        def predict() -> np.ndarray:
            policy, parts = self._imitated(data, seed, standardized), []
            with torch.inference_mode():
                for rows in transitions.split(ROWS):
                    observation, taken = data.observe(data.judged, rows), data.taken(data.judged, rows)
                    found = policy.log_probs(observation, taken, data.allowed(data.judged, rows)).float()
                    parts.append(found.gather(-1, taken[..., None]).squeeze(-1).cpu())
            return torch.cat(parts).double().numpy()

        key = ("imitated", asked, data.training.fingerprint, data.judged.fingerprint, len(transitions))
        return kept(key, predict)

    def smaller(self) -> Self:
        return attrs.evolve(self, imitation=self.imitation.smaller())

    def _imitated(self, data: EstimationData, seed: int, standardized: bool) -> Policy:
        store = data.training
        policy = self.policy.build(store.observation_size, store.action_spec, seed=seed)
        # A start trains within an algorithm, whose critics nobody uses here.
        around = IQL(hidden=(8,), num_critics=1)  # type: ignore[arg-type]  # mypy takes no generic converter
        algorithm = around.build(policy, store.observation_size, store.action_spec, seed=seed, machine=data.machine)
        if standardized:
            standardize(algorithm, store)
        loader = ReplayLoader(store, self.imitation.batch_size, seed, device=data.device)
        random = torch.get_rng_state()
        try:
            self.imitation.make(
                algorithm,
                store,
                loader.buffer.__getitem__,
                seed=seed,
                policy={"config": to_plain(self.policy), "asm": None},
                standardized=standardized,
            )
        finally:
            torch.set_rng_state(random)
        return policy.eval()
