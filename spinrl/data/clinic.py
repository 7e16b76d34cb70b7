"""The recipe of the made-up clinic's datasets, as `spinrl.tasks.clinic` records them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import attrs
import numpy as np
from attrs.validators import ge

from spinrl.cache import DEFAULT_BUILD, BuildOptions, get_sound, home
from spinrl.config.registry import register
from spinrl.config.serialize import fingerprint
from spinrl.data.recipe import DatasetPlan, Recipe
from spinrl.data.store.metadata import SourceRecord
from spinrl.data.store.store import Episode, Store, opener
from spinrl.data.store.writer import StoreWriter
from spinrl.seeding import child_seed
from spinrl.specs import ActionSpec

_VISITS = 30  # of a patient, at most


def _check_qualities(_instance: Any, _attribute: attrs.Attribute, value: Sequence[float]) -> None:
    if not value or any(not 0 <= quality <= 1 for quality in value):
        raise ValueError(f"qualities must be one or more numbers from 0 to 1; found {list(value)}")


@register
@attrs.frozen(kw_only=True)
class ClinicRecords(Recipe):
    """What the clinic ``spinrl/Clinic-v0`` recorded, with the propensities of each sub-action.

    Attributes:
        patients: whose episodes are recorded, of up to thirty visits each.
        qualities: shares of best choices of the behaviours, among which the patients are divided.
    """

    patients: int = attrs.field(default=1000, validator=ge(1))
    qualities: tuple[float, ...] = attrs.field(default=(0.6,), converter=tuple, validator=_check_qualities)

    def plan(self, name: str, task: str, bins: int, transitions: int, seed: int) -> DatasetPlan:
        return ClinicPlan(self, name, task, seed)

    def smaller(self, transitions: int) -> Self:
        return attrs.evolve(self, patients=min(self.patients, max(len(self.qualities) * 10, transitions // _VISITS)))


class ClinicPlan(DatasetPlan):
    """The plan of a clinic's records; its number of transitions is the most that there can be, until they are there."""

    def __init__(self, recipe: ClinicRecords, tier: str, task: str, seed: int) -> None:
        self._recipe, self._tier, self._task, self._seed = recipe, tier, task, seed
        parts = {"version": 1, "patients": recipe.patients, "qualities": recipe.qualities, "seed": seed}
        self._entry = f"{task}-{tier}-{fingerprint(parts)}"
        self.action_spec, self.observation_size = ActionSpec((3, 2, 5)), 5
        store = self.cached()
        self.transitions = len(store) if store else _VISITS * recipe.patients

    def cached(self) -> Store | None:
        path = home() / "stores" / self._entry
        return Store.open(path) if path.exists() else None

    def store(self, options: BuildOptions = DEFAULT_BUILD) -> Store:
        return get_sound(
            "stores", self._entry, self._write, opener(), on_wait=options.on_wait, on_damage=options.on_damage
        )

    def _write(self, path: Path) -> None:
        from spinrl.tasks.clinic import clinic_log  # Gymnasium is imported by those alone who simulate

        recipe = self._recipe
        shares = [len(part) for part in np.array_split(np.arange(recipe.patients), len(recipe.qualities))]
        with StoreWriter(
            path,
            task=self._task,
            bins=None,
            action_spec=self.action_spec,
            observation_size=self.observation_size,
            tier=self._tier,
            sources=[SourceRecord(behavior=f"clinic of quality {quality:g}") for quality in recipe.qualities],
            extras=("propensities",),
        ) as writer:
            for source, (quality, patients) in enumerate(zip(recipe.qualities, shares, strict=True)):
                if not patients:
                    continue
                log = clinic_log(patients=patients, quality=quality, seed=child_seed(self._seed, "clinic", source))
                for rows in np.split(np.arange(len(log.rewards)), np.flatnonzero(log.terminals)[:-1] + 1):
                    observations = log.observations[rows]
                    writer.append(
                        Episode(
                            # Nobody looks at what comes after an end.
                            observations=np.concatenate([observations, observations[-1:]]),
                            actions=log.actions[rows],
                            rewards=log.rewards[rows],
                            terminated=log.terminals[rows],
                            truncated=np.zeros(len(rows), dtype=bool),
                            source=source,
                            propensity=log.propensities[rows],
                        )
                    )
