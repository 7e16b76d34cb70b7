"""A made-up clinic, ``spinrl/Clinic-v0``: the example of own data, and the simulator that checks what its log said."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import attrs
import gymnasium
import numpy as np
from gymnasium import spaces

from spinrl.tasks.choice_space import ChoiceSpace

MEASURED = ("visit", "age", "weight", "pressure", "glucose")
CHOICES = {"dose": 3, "drug": 2, "schedule": 5}
VISITS = 30  # of one patient, at most

_ACTIONS = np.stack(np.meshgrid(*map(np.arange, CHOICES.values()), indexing="ij"), -1).reshape(-1, len(CHOICES))
_CRISIS = 3.0  # a pressure or glucose that ends the treatment
_DRIFT, _RELIEF, _NOISE = 0.25, 0.9, 0.15  # of pressure and glucose in a visit


class ClinicEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One patient, who comes to up to thirty visits; each decides on dose, drug and schedule at once.

    Drug 0 lowers pressure and drug 1 glucose; whatever is not lowered rises. How much it is lowered depends on how near
    dose times schedule comes to what the patient needs of that drug: more of the first the heavier, and of the second
    the older they are. High doses are hard on the old, and frequent schedules on everyone. So no choice is good by
    itself. The reward of a visit is 1 for a patient at normal values and without side effects, and at least 0. The
    treatment ends after thirty visits, or with a crisis where pressure or glucose exceeds 3; both are real ends.

    Attributes:
        action_space: MultiDiscrete: dose (3), drug (2) and schedule (5).
        observation_space: Box (5,) of float32: share of the visits that are over, and age, weight, pressure and glucose
            in standard units.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012, as Gymnasium has it

    def __init__(self) -> None:
        self.action_space = ChoiceSpace(list(CHOICES.values()))
        high = np.array([1, 4, 4, 10, 10], dtype=np.float32)
        self.observation_space = spaces.Box(-high, high, dtype=np.float32)
        self._visit, self._body, self._values = 0, np.zeros(2), np.zeros(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Another patient comes for the first time."""
        super().reset(seed=seed)
        self._visit = 0
        self._body = self.np_random.normal(size=2).clip(-3, 3)  # age, weight
        self._values = self.np_random.normal(1.0, 0.5, 2).clip(0, 2)  # pressure, glucose
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Treat with (3,) choices, until the next visit."""
        values, side_effects = self._treated(np.asarray(action)[None])
        noise = self.np_random.normal(0, _NOISE, 2)
        self._values = (values[0] + noise).clip(-1, 9)
        self._visit += 1
        reward = float(_well(self._values, side_effects[0]))
        ended = self._visit == VISITS or bool((self._values > _CRISIS).any())
        return self._observe(), reward, ended, False, {}

    def best(self) -> np.ndarray:
        """(3,) the choices of the highest expected reward in this visit, as if pressure and glucose had no noise."""
        return _ACTIONS[_well(*self._treated(_ACTIONS)).argmax()]

    def _observe(self) -> np.ndarray:
        return np.array([self._visit / VISITS, *self._body, *self._values], dtype=np.float32)

    def _treated(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(A, 2) pressure and glucose after each action (A, 3), without noise, and (A,) side effects."""
        dose, drug, schedule = actions.T
        age, weight = self._body
        given = np.log((dose + 1) * (schedule + 1))
        needed = 1.35 + 0.45 * np.where(drug == 0, weight, age)
        fit = np.exp(-2 * (given - needed) ** 2)
        change = np.full((len(actions), 2), _DRIFT)
        change[np.arange(len(actions)), drug] -= (_RELIEF + _DRIFT) * fit
        return self._values + change, 0.08 * dose / (1 + np.exp(-2 * age)) + 0.02 * schedule


def _well(values: np.ndarray, side_effects: np.ndarray) -> np.ndarray:
    """(...) reward of pressure and glucose (..., 2) after a visit."""
    return (np.exp(-(values**2).sum(-1) / 2) - side_effects).clip(0, 1)


@attrs.frozen(eq=False, kw_only=True)
class ClinicLog:
    """What a clinic recorded: T visits, one patient's after another's.

    Attributes:
        observations: (T, 5) float32, as the environment's.
        actions: (T, 3) int64, what was given.
        rewards: (T,) float64.
        terminals: (T,) bool, True at a patient's last visit.
        propensities: (T, 3) float64, the probability with which each choice was made, independently of the others.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    propensities: np.ndarray

    def to_csv(self, file: str | Path) -> None:
        """Write a row for each visit; the columns are named in the first row."""
        chance = [f"{name}_propensity" for name in CHOICES]
        with Path(file).open("w", encoding="utf-8", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerow([*MEASURED, *CHOICES, *chance, "outcome", "last"])
            for measured, given, chances, reward, last in zip(
                self.observations, self.actions, self.propensities, self.rewards, self.terminals, strict=True
            ):
                writer.writerow([*measured.tolist(), *given.tolist(), *chances.tolist(), float(reward), int(last)])


def clinic_log(*, patients: int = 500, quality: float = 0.6, seed: int = 0) -> ClinicLog:
    """What a clinic would record that knows more or less what is best.

    Args:
        patients: whose episodes are recorded.
        quality: share of the choices that are `ClinicEnv.best`; the others are drawn at random. 0 is a behaviour that
            knows nothing, and 1 one that always makes the same choices of the same patient.
        seed: of the patients and of the choices.

    Raises:
        ValueError: for fewer than one patient, or a quality that is no share.
    """
    if patients < 1 or not 0 <= quality <= 1:
        raise ValueError(f"patients must be from 1 and quality from 0 to 1; found {patients} and {quality}")
    environment, rng = ClinicEnv(), np.random.default_rng(seed)
    counts = np.array(list(CHOICES.values()))
    visits: list[tuple[Any, ...]] = []
    for _ in range(patients):
        observation, _info = environment.reset(seed=int(rng.integers(2**31)))
        last = False
        while not last:
            best = environment.best()
            given = np.where(rng.random(len(counts)) < quality, best, rng.integers(0, counts))
            chance = quality * (given == best) + (1 - quality) / counts
            following, reward, last, _, _ = environment.step(given)
            visits.append((observation, given, reward, last, chance))
            observation = following
    observations, actions, rewards, terminals, propensities = map(np.array, zip(*visits, strict=True))
    return ClinicLog(
        observations=observations, actions=actions, rewards=rewards, terminals=terminals, propensities=propensities
    )
