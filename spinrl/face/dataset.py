"""Datasets as a program has them: from arrays, from files, or of the benchmark."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import numpy as np
from numpy.typing import ArrayLike

from spinrl.cache import BuildOptions
from spinrl.config.presets import fill
from spinrl.config.registry import Component, register
from spinrl.data import Recipe, ReplayLoader, Store
from spinrl.data.holdout import split
from spinrl.data.importers.request import Request
from spinrl.errors import UserError
from spinrl.face.importing import Choices, array_of, imported, in_python, names, numbers, state_of
from spinrl.face.progress import Bars
from spinrl.machine import available_cores
from spinrl.tasks import TASKS

if TYPE_CHECKING:
    from torchrl.data import ReplayBuffer

TIERS = "gin/tiers.gin"


@register
@attrs.frozen(kw_only=True)
class BenchmarkTiers(Component):
    """The benchmark's recipes, as the packaged gin files have them.

    Attributes:
        recipes: how the dataset of each tier is made.
    """

    kind = "benchmark tiers"

    recipes: Mapping[str, Recipe]


class Dataset:
    """T transitions of recorded decisions, each of N discrete choices at once; kept in the cache, opened from there.

    Make one by `from_arrays`, `from_file` or `from_task`.

    Args:
        store: its arrays and description on disk.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    def from_arrays(
        cls,
        observations: ArrayLike,
        actions: ArrayLike,
        rewards: ArrayLike,
        *,
        choices: Choices | None = None,
        terminals: ArrayLike | None = None,
        timeouts: ArrayLike | None = None,
        next_observations: ArrayLike | None = None,
        allowed: ArrayLike | None = None,
        ends: Literal["terminal", "timeout"] | None = None,
        episode_length: int | None = None,
        missing: Literal["mean", "zero", "drop"] | None = None,
        name: str = "data",
    ) -> Dataset:
        """A dataset of arrays with a row for each of T steps, in order, one episode after another.

        Args:
            observations: (T, S) numbers.
            actions: (T, N) whole numbers from 0, the choice of each sub-action.
            rewards: (T,) numbers.
            choices: how many choices each sub-action has, or one number for all; "observed" takes the largest seen.
            terminals: (T,) booleans, True where the task ended the episode: no value lies beyond.
            timeouts: (T,) booleans, True where a time limit cut it.
            next_observations: (T, S) what was observed after each step, where it is known.
            allowed: (T, ΣM) booleans, which choices could be taken, those of the first sub-action first.
            ends: what an end is that the arrays do not explain (default: terminal, where `terminals` alone are given).
            episode_length: steps after which an episode ends at the latest.
            missing: what is done about observations that are NaN: fill in the column's mean or zero, or drop the row.
            name: of its task.

        Raises:
            UserError: when the arrays do not fit together or to the choices, in one line.
        """
        given = {
            "observations": observations,
            "actions": actions,
            "rewards": rewards,
            "terminals": terminals,
            "timeouts": timeouts,
            "next_observations": next_observations,
            "allowed": allowed,
        }
        arrays = {key: array_of(key, value) for key, value in given.items() if value is not None}
        for key, array in arrays.items():
            if len(array) != len(arrays["observations"]):
                raise UserError(
                    f"{key} must have a row for each of the {len(arrays['observations']):,} observations; "
                    f"found {len(array):,}"
                )
        if ends is None and terminals is not None and timeouts is None and next_observations is None:
            ends = "terminal"
        content = hashlib.sha256()
        for key, array in arrays.items():
            content.update(f"{key} {array.dtype} {array.shape}".encode())
            content.update(np.ascontiguousarray(array).data)

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "arrays.npz"

            def request() -> Request:
                np.savez(file, allow_pickle=False, **arrays)  # type: ignore[arg-type]
                return Request(
                    files=[str(file)],
                    name=name,
                    choices=numbers(choices),
                    ends=ends,
                    episode_length=episode_length,
                    missing=missing,
                )

            options = [name, numbers(choices), ends, episode_length, missing]
            with in_python(file, "arrays"):
                return cls(imported(name, [content.hexdigest(), options], request))

    @classmethod
    def from_file(
        cls,
        *files: str | Path,
        choices: Choices | None = None,
        one_hot: Sequence[int] | None = None,
        ends: Literal["terminal", "timeout"] | None = None,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        action_offset: int | Sequence[int] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> Dataset:
        """A dataset of a file, or of several with episodes of their own: whatever `tools.import_dataset` reads.

        Args:
            files: CSV, Parquet, Feather, npz or HDF5, ``minari:ID``, or a published ``<bins>_bins/<task>-<tier>``.
            choices: as for `from_arrays`.
            one_hot: in place of `choices`: actions are one-hot vectors, of so many choices each.
            ends: as for `from_arrays`.
            columns: names of columns by what they mean, where they are not called as usual, such as
                ``{"actions": ["dose", "drug"]}``.
            action_offset: what the first choice of each sub-action is called, or of all.
            name: of the dataset (default: after the file).
            options: episode_length, episode_column, step_column, missing, task, tier, bins: as the command's options.

        Raises:
            UserError: when a file cannot be read, or leaves open what only the caller knows, in one line.
        """
        known = {"episode_length", "episode_column", "step_column", "missing", "task", "tier", "bins"}
        if unknown := sorted(set(options) - known):
            raise UserError(f"from_file has no option {unknown[0]}; it has {', '.join(sorted(known))}")
        if not files:
            raise UserError("from_file needs the name of a file, such as 'visits.parquet'")

        def request() -> Request:
            return Request(
                files=[str(file) for file in files],
                name=name,
                choices=numbers(choices),
                one_hot=numbers(one_hot),
                action_offset=numbers(action_offset),
                ends=ends,
                column=[f"{meaning}={names(given)}" for meaning, given in (columns or {}).items()] or None,
                **options,
            )

        with in_python():
            made = request()
            identity = [attrs.asdict(made), [state_of(str(file)) for file in files]]
            return cls(imported(made.dataset_name(), identity, lambda: made))

    @classmethod
    def from_task(
        cls, task: str, tier: str, *, bins: int = 3, transitions: int = 100_000, seed: int = 0, progress: bool = True
    ) -> Dataset:
        """A dataset of the benchmark, collected in the simulator by the shipped behaviours where it is not cached.

        Args:
            task: such as ``humanoid-stand``.
            tier: medium, expert, medium-expert or random-medium-expert.
            bins: choices of each sub-action, for which the task's behaviours are shipped.
            transitions: T.
            seed: of the episodes.
            progress: show a bar meanwhile.

        Raises:
            UserError: when there is no such task, tier or behaviour.
        """
        recipes = fill(BenchmarkTiers, [TIERS], "Experiment", {}).recipes
        for what, value, known in (("task", task, TASKS), ("tier", tier, recipes)):
            if value not in known:
                raise UserError(f"{what} must be one of {', '.join(known)}; found {value!r}")
        bars = Bars(progress)
        try:
            plan = recipes[tier].plan(tier, task, bins, transitions, seed)
            return cls(
                plan.store(BuildOptions(processes=available_cores(), progress=bars.stage("collecting", "transitions")))
            )
        except ValueError as error:
            raise UserError(str(error)) from error
        finally:
            bars.close()

    def split(
        self,
        share: float | None = None,
        *,
        seed: int = 0,
        by: Literal["episodes", "rows"] = "episodes",
        sources: Sequence[str] = (),
    ) -> tuple[Dataset, Dataset]:
        """Two datasets: what to train on, and what is held out: a share, or the splits that the data came with.

        Args:
            share: of the episodes that is held out, in (0, 1).
            seed: of their choice.
            by: whole episodes; or the last rows of each, for data of one or a few long ones.
            sources: in place of a share: names of the files or splits that are held out whole, such as ["test"].

        Raises:
            UserError: when nothing can be held out.
        """
        if isinstance(sources, str):
            raise UserError(f"sources must be a list of names; found {sources!r}")
        if bool(sources) == (share is not None):
            raise UserError("split takes a share, such as 0.1, or sources, such as ['test']; give one of them")
        if share is not None and not 0 < share < 1:
            raise UserError(f"share must be a number above 0 and below 1; found {share!r}")
        options = BuildOptions(on_damage=warnings.warn)
        kept, held_out = split(self.store, share or 0, seed, options, by, sources)
        return Dataset(kept), Dataset(held_out)

    def replay_buffer(self, batch_size: int, *, seed: int = 0, device: str = "cpu") -> ReplayBuffer:
        """TorchRL's replay buffer over the transitions, from which a training's batches come; it cannot be extended.

        A batch has TorchRL's keys: `observation` (B, S), `action` (B, N) and, under `next`, `observation` and
        `reward`, `terminated`, `truncated` and `done` (B, 1). Of data with masks also `allowed` (B, N, K), as under
        `next`.

        Args:
            batch_size: B.
            seed: of the order; that of a training gives the training's batches.
            device: where batches are gathered.
        """
        return ReplayLoader(self.store, batch_size, seed, device=device, ends=True).buffer

    def __len__(self) -> int:
        return len(self.store)

    @property
    def choices(self) -> tuple[int, ...]:
        """(N,) how many choices each sub-action has."""
        return self.store.action_spec.nvec

    @property
    def observation_size(self) -> int:
        """S."""
        return self.store.observation_size

    @property
    def returns(self) -> np.ndarray:
        """(E,) float64 undiscounted return of each episode."""
        return self.store.returns

    def __repr__(self) -> str:
        return (
            f"Dataset({self.store.metadata.task!r}, {len(self):,} transitions in {len(self.returns):,} episodes, "
            f"observations of {self.observation_size}, choices {list(self.choices)})"
        )
