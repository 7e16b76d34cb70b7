"""Masked pre-training of the ASM on a dataset, cached under the fingerprint of all that it depends on."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from typing import Literal, Self

import attrs
import torch
from attrs.validators import and_, deep_iterable, ge, gt, in_, le, lt, optional

from spinrl import checkpoint
from spinrl.asm.frozen import ASMError, Curve, FrozenASM, Snapshot
from spinrl.asm.masking import Masking, masked_prediction
from spinrl.asm.model import ASM, ASMEncoder
from spinrl.asm.source import ASMRequest, ASMSource, checkpoint_path
from spinrl.cache import OnDamage
from spinrl.captured import Captured, adam, load_optimizer
from spinrl.checkpoint import CheckpointError
from spinrl.config import fingerprint, to_plain
from spinrl.config.registry import register
from spinrl.data import ReplayLoader, standardize
from spinrl.data.standardizer import RULE
from spinrl.seeding import child_seed, random_state, restore_random_state, torch_generator
from spinrl.specs import ActionSpec
from spinrl.turns import hand_over


@register
@attrs.frozen(kw_only=True)
class Pretraining(ASMSource):
    """Masked pre-training of the action structure model; no reward is used (arXiv 2601.04441, stage 1).

    Exactly one of epochs and steps is set.

    Attributes:
        encoder: sizes of the ASM.
        masking: what has to be predicted.
        batch_size: samples per step, drawn with replacement.
        epochs: of ceil(dataset / batch_size) steps each.
        steps: gradient steps, whatever the size of the dataset.
        portion: share of these epochs or steps that is done, for comparing lengths at any scale.
        learning_rate: Adam's, at the start.
        schedule: constant, or cosine down to zero.
        max_gradient_norm: gradients are clipped to this norm.
        report_every: steps between two reported losses.
        checkpoint_minutes: minutes between two checkpoints, from which an interrupted pre-training goes on.
        snapshots: shares of the steps, between 0 and 1, after which the weights are kept beside the final ones.
    """

    encoder: ASMEncoder = attrs.field(factory=ASMEncoder)
    masking: Masking = attrs.field(factory=Masking)
    batch_size: int = attrs.field(default=1024, validator=ge(1))
    epochs: int | None = attrs.field(default=100, validator=optional(ge(1)))  # type: ignore[arg-type]
    steps: int | None = attrs.field(default=None, validator=optional(ge(1)))
    portion: float = attrs.field(default=1.0, validator=[gt(0), le(1)])
    learning_rate: float = attrs.field(default=4e-4, validator=gt(0))
    schedule: Literal["constant", "cosine"] = attrs.field(default="constant", validator=in_(("constant", "cosine")))
    max_gradient_norm: float = attrs.field(default=1.0, validator=gt(0))
    report_every: int = attrs.field(default=20, validator=ge(1))
    checkpoint_minutes: float = attrs.field(default=5.0, validator=gt(0))
    snapshots: tuple[float, ...] = attrs.field(default=(), converter=tuple, validator=deep_iterable(and_(gt(0), lt(1))))

    def __attrs_post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"exactly one of epochs and steps has to be set, got {self.epochs} and {self.steps}")

    def total_steps(self, transitions: int) -> int:
        steps = self.steps
        if steps is None:
            assert self.epochs is not None
            steps = self.epochs * math.ceil(transitions / self.batch_size)
        return max(1, round(self.portion * steps))

    def passes(self, transitions: int) -> float | None:
        return self.total_steps(transitions) * self.batch_size / transitions

    def fingerprint(self, dataset: str, seed: int, *, standardized: bool = False, precision: str = "fp32") -> str:
        plain = to_plain(attrs.evolve(self, report_every=1, checkpoint_minutes=1.0))
        if not self.snapshots:  # an ASM without them keeps the fingerprint that it had before there were any
            del plain["fields"]["snapshots"]
        return fingerprint(
            {
                "pretraining": plain,
                "dataset": dataset,
                "seed": seed,
                "standardized": RULE if standardized else None,
                "precision": precision,
            }
        )

    def check(self, observation_size: int, action_spec: ActionSpec, *, standardized: bool) -> None:
        pass  # any dataset will do

    def with_snapshots(self, shares: Sequence[float]) -> Self:
        kept = tuple(share for share in shares if share < 1)
        return attrs.evolve(self, snapshots=kept) if kept else self  # type: ignore[arg-type]

    def make(self, request: ASMRequest) -> FrozenASM:
        return _Pretrainer(self, request).run()

    def smaller(self) -> Self:
        encoder = attrs.evolve(self.encoder, d_model=16, num_heads=2, num_blocks=1, head_width=16)
        return attrs.evolve(self, encoder=encoder, batch_size=64, steps=5, epochs=None)


class _Pretrainer:
    """A pre-training under way, and what a checkpoint of it holds."""

    def __init__(self, config: Pretraining, request: ASMRequest) -> None:
        store, seed, machine = request.store, request.seed, request.machine
        self.config = config
        self.request = request
        self.store = store
        self.seed = seed
        self.machine = machine
        self.path = checkpoint_path(request.folder)
        self.total = config.total_steps(len(store))
        self.model: ASM = config.encoder.build(store.observation_size, store.action_spec, seed=seed).to(machine.device)
        self.optimizer = adam(self.model.parameters(), config.learning_rate, capture=machine.capture, scheduled=True)
        decay = (
            (lambda step: 0.5 * (1 + math.cos(math.pi * step / self.total))) if config.schedule == "cosine" else None
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, decay or (lambda step: 1.0))
        self.loader = ReplayLoader(store, config.batch_size, child_seed(seed, "asm"), machine.device)
        self.generator = torch_generator(seed, "asm", "masks", device=machine.device)
        self.step = 0
        self.seconds = 0.0
        self.curve: Curve = []
        self.snapshots: list[Snapshot] = []

    def run(self) -> FrozenASM:
        """Pre-train to the end, from the checkpoint of an interrupted run if there is one."""
        progress, on_resume, on_damage = self.request.progress, self.request.on_resume, self.request.on_damage
        torch.manual_seed(child_seed(self.seed, "asm", "dropout"))
        if self.path.exists():
            try:
                self._load(checkpoint.load(self.path))
            except CheckpointError as error:
                if on_damage is None:
                    raise
                on_damage(f"{error}; pre-training begins anew")
        if self.request.standardized:  # after loading: a checkpoint of an earlier version does not hold the units
            standardize(self.model, self.store)
        if on_resume is not None and self.curve:
            on_resume(self.curve)
        self.model.train()
        began = saved = time.monotonic()
        values: dict[str, float] = {}
        due = {max(1, round(share * self.total)): share for share in self.config.snapshots}
        update = Captured(
            self._update,
            on=self.machine.capture,
            generators=[self.loader.generator, self.generator],
            on_refusal=lambda reason: warnings.warn(f"pre-training is {reason}", stacklevel=2),
        )
        while self.step < self.total:
            loss, accuracy = update()
            self.scheduler.step()
            self.step += 1
            if self.step in due:
                seconds = self.seconds + time.monotonic() - began
                self.snapshots.append(Snapshot.of(self.model, due[self.step], seconds))
            if self.step % self.config.report_every == 0 or self.step == self.total:
                hand_over()
                values = {"train/loss_asm": float(loss), "train/accuracy_asm": float(accuracy)}
                if not math.isfinite(values["train/loss_asm"]):
                    raise ASMError(
                        f"loss_asm is {values['train/loss_asm']} at step {self.step} of pre-training on "
                        f"{self.store.path}; a smaller Pretraining.learning_rate may help"
                    )
                now = time.monotonic()
                self.seconds, began = self.seconds + now - began, now
                self.curve.append((self.step, values))
                if progress is not None:
                    progress(self.step, values)
                if now - saved > 60 * self.config.checkpoint_minutes:
                    self._save(on_damage)
                    saved = time.monotonic()
        card = {
            "dataset_fingerprint": self.store.fingerprint,
            "pretraining": to_plain(self.config),
            "seed": self.seed,
            "steps": self.step,
            "curve": self.curve,
            "machine": attrs.asdict(self.machine),
        }
        return FrozenASM.of(self.model, self.request.fingerprint, self.seconds, card, self.snapshots)

    def _update(self) -> tuple[torch.Tensor, torch.Tensor]:
        observation, action, allowed = self.loader.sample_actions()
        self.optimizer.zero_grad(set_to_none=True)
        with self.machine.autocast():
            loss, accuracy = masked_prediction(
                self.model, self.config.masking, observation, action, self.generator, allowed
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_gradient_norm)
        self.optimizer.step()
        return loss.detach(), accuracy

    def _save(self, on_damage: OnDamage | None) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loader": self.loader.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "snapshots": [attrs.asdict(each) for each in self.snapshots],
        } | random_state()
        try:
            checkpoint.save(state, self.path)
        except CheckpointError as error:  # the next one may find room on the disk again
            if on_damage is None:
                raise
            on_damage(f"{error}; pre-training goes on")

    def _load(self, state: dict) -> None:
        self.loader.load_state_dict(state["loader"])  # first, since it may refuse
        self.model.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.generator.set_state(state["generator"])
        restore_random_state(state)
        self.step, self.seconds, self.curve = state["step"], state["seconds"], state.get("curve", [])
        self.snapshots = [Snapshot(**each) for each in state.get("snapshots", [])]
        self.scheduler.last_epoch = self.step
