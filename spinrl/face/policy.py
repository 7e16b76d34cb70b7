"""A trained policy: it acts, is judged, is saved and is exported."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from numpy.typing import ArrayLike

from spinrl import checkpoint
from spinrl.algorithms import Algorithm
from spinrl.asm import ASMEncoder
from spinrl.config import to_plain
from spinrl.errors import UserError
from spinrl.evaluation import ActionChoice, Estimate, EstimationData, Estimator, Film, FittedQ, HeldOutLikelihood
from spinrl.face.exporting import export
from spinrl.face.filming import filmed
from spinrl.face.inputs import actions, allowed_choices, observations, require_sizes
from spinrl.face.judging import Score, simulated
from spinrl.face.progress import Bars
from spinrl.policies import Policy, PolicyConfig, gumbel_noise
from spinrl.tasks import EPISODE_STEPS, TASKS

if TYPE_CHECKING:
    from spinrl.face.dataset import Dataset

FORMAT_VERSION = 1  # of a saved policy
FILE = "policy.pt"
KNOWN_OBSERVATIONS = 1000  # that are saved with a policy, to compare its exports on


class TrainedPolicy:
    """A policy over N discrete choices at once, as `spinrl.fit` trains it and `spinrl.load` reads it.

    Args:
        algorithm: trained, with the policy in it.
        policy: its configuration.
        encoder: sizes of the ASM that it was built on, or None.
        asm_fingerprint: of that ASM, or None.
        fitted_q: how `estimate` fits a value.
        seed: of the training.
        step: gradient steps done.
        task: name of the data's task.
        known: (R, S) observations of the data; of `train` where it is given.
        train: what it was trained on, while that is known.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        policy: PolicyConfig,
        encoder: ASMEncoder | None,
        asm_fingerprint: str | None,
        fitted_q: FittedQ,
        seed: int,
        step: int,
        task: str,
        train: Dataset | None = None,
        known: torch.Tensor | None = None,
    ) -> None:
        self._algorithm = algorithm.eval()
        self._module = algorithm.acting_policy().eval()
        self.config = policy
        self._encoder, self._asm_fingerprint, self._fitted_q = encoder, asm_fingerprint, fitted_q
        self.seed, self.step, self.task = seed, step, task
        self._train = train
        if train is not None:
            rows = torch.linspace(0, len(train) - 1, min(len(train), KNOWN_OBSERVATIONS)).long()
            known = train.store.data["observations", "observation"][train.store.data["transitions", "row"][rows]]
        assert known is not None
        self._known = known.clone()

    @property
    def module(self) -> Policy:
        """The TensorDict module: it reads `observation` (B, S), and writes `logits`, `action`, `sample_log_prob`."""
        return self._module

    @property
    def choices(self) -> tuple[int, ...]:
        """(N,) how many choices each sub-action has."""
        return self._module.action_spec.nvec

    @property
    def observation_size(self) -> int:
        """S."""
        return self._module.observation_size

    @torch.inference_mode()
    def act(
        self,
        observation: ArrayLike,
        *,
        sample: bool = False,
        allowed: ArrayLike | None = None,
        seed: int | None = None,
    ) -> np.ndarray:
        """Decide.

        Args:
            observation: (S,) or (B, S), as the data has them.
            sample: draw from the policy, in place of the most likely choice of each sub-action.
            allowed: (N, K) or (B, N, K) booleans, False for choices that must not be made; K is the largest number of
                choices of any sub-action.
            seed: of what is drawn; None draws anew each time.

        Returns:
            (N,) or (B, N) int64 choices from 0.

        Raises:
            UserError: for another size, numbers that are not finite, or a sub-action with no choice allowed.
        """
        rows, single = observations(observation, self.observation_size)
        rows = rows.to(self._device)
        spec = self._module.action_spec
        shape = (len(rows), spec.num_sub_actions, spec.max_choices)
        noise = None
        if sample:
            generator = torch.Generator()
            generator.seed() if seed is None else generator.manual_seed(seed)
            noise = gumbel_noise(shape, generator=generator).to(self._device)
        mask = None if allowed is None else allowed_choices(allowed, len(rows), spec).to(self._device)
        action = self._module.decide(rows, noise, mask)[0].cpu().numpy()
        return action[0] if single else action

    @torch.inference_mode()
    def log_prob(self, observation: ArrayLike, action: ArrayLike) -> np.ndarray:
        """Log-probability of joint actions, in nats.

        Args:
            observation: (S,) or (B, S).
            action: (N,) or (B, N) choices from 0.

        Returns:
            () or (B,) float32.

        Raises:
            UserError: for other sizes, and for actions outside the choices.
        """
        rows, single = observations(observation, self.observation_size)
        rows = rows.to(self._device)
        taken = actions(action, len(rows), self.choices).to(self._device)
        found = self._module.log_prob(rows, taken).float().cpu().numpy()
        return found[0] if single else found

    def evaluate(
        self,
        environment: Any = None,
        *,
        episodes: int = 10,
        action: ActionChoice = "sample",
        steps: int = EPISODE_STEPS,
        seed: int | None = None,
    ) -> Score:
        """Returns of episodes in a simulator: those of a cell's evaluation.

        Args:
            environment: a task of the benchmark, an id of Gymnasium, or an environment of Gymnasium; None for the
                benchmark's task that the data is of.
            episodes: how many.
            action: sample from the policy, or take each sub-action's most likely choice (mode).
            steps: of an episode, at most.
            seed: of the episodes; None for the training's.

        Raises:
            UserError: when there is no such environment, or its actions or observations are not the policy's.
        """
        return simulated(
            self._module,
            self._environment(environment),
            self.seed if seed is None else seed,
            episodes,
            action,
            steps,
        )

    def render(
        self,
        path: str | Path,
        environment: Any = None,
        *,
        action: ActionChoice = "sample",
        steps: int = EPISODE_STEPS,
        seed: int | None = None,
    ) -> Film:
        """Film the first episode of an evaluation.

        Args:
            path: of the video, ending in .mp4; a strip of eight pictures is written beside it, ending in .png.
            environment: as for `evaluate`; one of Gymnasium has to be made with ``render_mode="rgb_array"``.
            action: as for `evaluate`.
            steps: of the episode, at most.
            seed: of the evaluation; None for the training's.

        Raises:
            UserError: as `evaluate`, and when nothing draws or writes videos here; the message says what to install.
        """
        of, given = self.seed if seed is None else seed, self._environment(environment)
        return filmed(self._module, given, path, seed=of, action=action, steps=steps)

    def estimate(
        self,
        held_out: Dataset,
        *,
        train: Dataset | None = None,
        estimators: Sequence[Estimator] | None = None,
        action: ActionChoice = "sample",
        progress: bool = True,
    ) -> dict[str, Estimate]:
        """How good the policy is, from data alone.

        Args:
            held_out: episodes that it was not trained on.
            train: what it was trained on, to fit values on; known right after `spinrl.fit`.
            estimators: which estimates (default: the likelihood of the held-out actions and, where `train` is known,
                fitted Q evaluation as the preset has it).
            action: as for `evaluate`.
            progress: show a bar.

        Returns:
            Estimates by name of their metric; one that the data does not allow has the value None, and a `remark` that
            says why.

        Raises:
            UserError: when the data's sizes are not the policy's.
        """
        known = train or self._train
        for data in (held_out, *([known] if known else [])):
            require_sizes(data.choices, data.observation_size, self.choices, self.observation_size)
        if estimators is None:
            estimators = [HeldOutLikelihood(), *([self._fitted_q] if known else [])]
        elif known is None and any(not each.needs_held_out for each in estimators):
            raise UserError("these estimates are fitted on the training data; give it as train=")
        machine = attrs.evolve(self._algorithm.machine, device=self._device.type)  # type: ignore[arg-type]
        on = EstimationData(training=(known or held_out).store, held_out=held_out.store, machine=machine)
        found, bars = {}, Bars(progress)
        for each in estimators:
            told = bars.stage("estimating", each.unit)
            found[each.metric] = each.estimate(self._algorithm, on, seed=self.seed, action=action, progress=told)
        bars.close()
        return found

    def save(self, folder: str | Path) -> None:
        """Write the policy and its algorithm into a folder, which `spinrl.load` reads; what was there is replaced.

        Raises:
            UserError: when the disk does not take it.
        """
        state = {
            "format_version": FORMAT_VERSION,
            "spinrl": importlib.metadata.version("spinrl"),
            "policy": to_plain(self.config),
            "algorithm": to_plain(self._algorithm.config),
            "encoder": to_plain(self._encoder) if self._encoder else None,
            "asm_fingerprint": self._asm_fingerprint,
            "fitted_q": to_plain(self._fitted_q),
            "observation_size": self.observation_size,
            "nvec": list(self.choices),
            "seed": self.seed,
            "step": self.step,
            "task": self.task,
            "known": self._known,
            "state": self._algorithm.state_dict(),
        }
        checkpoint.save(state, Path(folder) / FILE)

    def export(self, folder: str | Path, *, formats: Sequence[str] = ("onnx",)) -> Path:
        """Write the policy for where spinrl is not installed, after comparing it with this one.

        Args:
            folder: which must not exist yet.
            formats: of onnx, pt2 and safetensors.

        Returns:
            The folder, with a ``run_<format>.py`` for each.

        Raises:
            UserError: when the folder exists, a package is missing, or a format differs from this policy.
        """
        about = {"task": self.task, "gradient_steps": self.step, "policy": to_plain(self.config)}
        return export(Path(folder), formats, self._module.cpu(), self.task, self._known, about)

    def _environment(self, given: Any) -> Any:
        if given is None and self.task not in TASKS:
            raise UserError(f"the data {self.task!r} is of no task of the benchmark; give an environment")
        return self.task if given is None else given

    @property
    def _device(self) -> torch.device:
        return next(self._module.parameters()).device

    def __repr__(self) -> str:
        return f"TrainedPolicy({self.config!r}, {self.step:,} gradient steps, choices {list(self.choices)})"
