"""The experiment as data: the grid of cells, what one cell does, and a smoke grid derived from it."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping
from typing import ClassVar, Literal, TypeVar

import attrs
from attrs.validators import ge, in_, lt, min_len

from harness.launchers import Launcher, Local
from harness.protocol import Evaluating
from harness.records import CellKey
from spinrl.algorithms import AlgorithmConfig, Imitation, MonteCarloCritics
from spinrl.asm import ASMSource, LinearProbe, Pretraining
from spinrl.budget import Training
from spinrl.config.registry import Component, register
from spinrl.data import DatasetPlan, HoldingOut, Recipe
from spinrl.machine import Machine, available_cores
from spinrl.policies import PolicyConfig
from spinrl.reference import ReferenceASM  # noqa: F401  # so that bindings find it
from spinrl.tasks import EPISODE_STEPS, TASKS, Simulator, get_task

_C = TypeVar("_C", bound=Component)


@attrs.frozen
class Cell:
    """One training of the grid: its key, and the components that the key's names stand for."""

    key: CellKey
    policy: PolicyConfig
    algorithm: AlgorithmConfig
    tier: Recipe
    pretraining: ASMSource  # source of the ASM, for a policy that needs one
    warm_start: Imitation | None = None
    critic_start: MonteCarloCritics | None = None


@register
@attrs.frozen(kw_only=True)
class Experiment(Component):
    """A grid of trainings and everything that they share.

    Attributes:
        name: name of the experiment in MLflow.
        preset: name of the scale of the sizes (laptop, paper); every result carries it.
        tasks: names of tasks, of the benchmark or of imported data.
        bins: numbers of choices per sub-action; 0 takes those of imported data, which may differ between sub-actions.
        tiers: names of recipes.
        policies: policies to compare, as a list; several of one class need names, as a mapping.
        algorithms: algorithms to train them with, as a list or mapping.
        seeds: seeds of the trainings, one training for each.
        recipes: recipe of each tier's dataset, by tier.
        transitions: size of datasets whose recipe sets none.
        standardize_observations: whether networks get observations in the dataset's standard units. The paper uses
            raw ones, from which a short training learns little.
        data_seed: seed of the datasets, which all cells of a tier share.
        held_out: share of each dataset that no training uses; estimates are made on it.
        held_out_by: unit of that share: whole episodes drawn at random, or the last rows of each episode, for data with
            one or a few long episodes.
        held_out_sources: names of the sources of the data that are held out whole, in place of that share: files or
            splits that were imported together, such as test.
        simulators: simulators of tasks outside the benchmark, by task; a task without one has estimates only.
        pretraining: pre-training of the ASM, or another source of it, for policies that need one.
        pretrainings: the same for single policies, by name; overrides `pretraining`.
        warm_starts: imitation of the data before training, by name of the policy; other policies have none.
        critic_start: supervised start of the critics before training; None starts them from random weights.
        critic_starts: the same for single policies, by name; overrides `critic_start`.
        probe: linear probe of the ASM, for `harness.probe`; no training depends on it.
        training: budget and batches of training.
        evaluation: times and settings of evaluation.
        machine: device, precision, compilation, threads.
        launcher: place where the cells run.
        collection_processes: processes that roll out behaviour policies. 0 takes one for each core of the machine
            (other cells of the dataset wait meanwhile), or on a cluster one for each core of the cell.
    """

    kind: ClassVar[str] = "experiment"

    name: str = "spinrl"
    preset: str = "paper"
    tasks: tuple[str, ...] = attrs.field(converter=tuple, validator=min_len(1))
    bins: tuple[int, ...] = attrs.field(default=(3,), converter=tuple, validator=min_len(1))
    tiers: tuple[str, ...] = attrs.field(converter=tuple, validator=min_len(1))
    policies: tuple[PolicyConfig, ...] | Mapping[str, PolicyConfig] = attrs.field(validator=min_len(1))
    algorithms: tuple[AlgorithmConfig, ...] | Mapping[str, AlgorithmConfig] = attrs.field(validator=min_len(1))
    seeds: tuple[int, ...] = attrs.field(default=(0,), converter=tuple, validator=min_len(1))
    recipes: Mapping[str, Recipe] = attrs.field()
    transitions: int = attrs.field(default=1_000_000, validator=ge(1))
    standardize_observations: bool = False
    data_seed: int = 0
    held_out: float = attrs.field(default=0.0, validator=[ge(0), lt(1)])
    held_out_by: Literal["episodes", "rows"] = attrs.field(default="episodes", validator=in_(("episodes", "rows")))
    held_out_sources: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    simulators: Mapping[str, Simulator] = attrs.field(factory=dict)
    pretraining: ASMSource = attrs.field(factory=Pretraining)
    pretrainings: Mapping[str, ASMSource] = attrs.field(factory=dict)
    warm_starts: Mapping[str, Imitation] = attrs.field(factory=dict)
    critic_start: MonteCarloCritics | None = None
    critic_starts: Mapping[str, MonteCarloCritics | None] = attrs.field(factory=dict)
    probe: LinearProbe = attrs.field(factory=LinearProbe)
    training: Training = attrs.field(factory=Training)
    evaluation: Evaluating = attrs.field(factory=Evaluating)
    machine: Machine = attrs.field(factory=Machine)
    launcher: Launcher = attrs.field(factory=Local)
    collection_processes: int = attrs.field(default=0, validator=ge(0))

    # Validators run once all fields are set.

    @tasks.validator
    def _check_tasks(self, _attribute: attrs.Attribute, value: tuple[str, ...]) -> None:
        for name in value:
            if name in TASKS:
                continue
            if self._benchmark_only:
                try:
                    get_task(name)
                except KeyError as error:
                    raise ValueError(f"{error.args[0]}; for your own data see gin/own_data.gin") from error
            if name not in self.simulators and not self.evaluation.estimators:
                raise ValueError(f"{name!r} has no simulator; give it one in simulators, or Evaluating.estimators")

    @bins.validator
    def _check_bins(self, _attribute: attrs.Attribute, value: tuple[int, ...]) -> None:
        for bins in value:
            if bins != 0 or self._benchmark_only:
                get_task("finger-spin").action_spec(bins)

    @simulators.validator
    def _check_simulators(self, _attribute: attrs.Attribute, value: Mapping[str, Simulator]) -> None:
        for name in value:
            if name not in self.tasks:
                raise ValueError(f"simulators: each key is a name of tasks ({', '.join(self.tasks)}), got {name!r}")

    @evaluation.validator
    def _check_evaluation(self, _attribute: attrs.Attribute, value: Evaluating) -> None:
        for name in self.tasks:
            if value.episode_steps > EPISODE_STEPS and name in TASKS and name not in self.simulators:
                raise ValueError(
                    f"evaluation: episodes of {name} end after {EPISODE_STEPS} steps; set Evaluating.episode_steps to "
                    f"at most that, got {value.episode_steps}"
                )

    @held_out.validator
    def _check_held_out(self, _attribute: attrs.Attribute, value: float) -> None:
        for estimator in self.evaluation.estimators:
            if estimator.needs_held_out and not (value or self.held_out_sources):
                raise ValueError(f"held_out has to be over 0 for {type(estimator).__name__}, got 0; set e.g. 0.1")

    @property
    def _benchmark_only(self) -> bool:
        """Whether only the benchmark's tasks have the datasets asked for."""
        return any(self.recipes[name].benchmark_only for name in self.tiers if name in self.recipes)

    @recipes.validator
    def _check_recipes(self, _attribute: attrs.Attribute, value: Mapping[str, Recipe]) -> None:
        for name in self.tiers:
            if name not in value:
                near = difflib.get_close_matches(name, value, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"no tier is called {name!r} (recipes: {', '.join(value)}){hint}")

    def __attrs_post_init__(self) -> None:
        for field in ("policies", "algorithms"):
            if not isinstance(components := getattr(self, field), Mapping):
                names = [_short_name(component) for component in components]
                if len(set(names)) < len(names):
                    raise ValueError(
                        f"{field} holds several components of one class; give each a name "
                        f"({{'first': @one/{type(components[0]).__name__}(), ...}}), got {names}"
                    )
        policies = _named(self.policies)
        for field in ("pretrainings", "warm_starts", "critic_starts"):
            if unknown := [name for name in getattr(self, field) if name not in policies]:
                raise ValueError(f"{field}: each key is a name of policies ({', '.join(policies)}), got {unknown[0]!r}")
        if self.training.patience and (unsimulated := [name for name in self.tasks if not self.simulated(name)]):
            raise ValueError(f"Training.patience needs a simulator, and {unsimulated[0]!r} has none; set it to None")
        shares = list(self.evaluation.marks(self.training.gradient_steps).values())
        for estimator in self.evaluation.estimators:
            if missing := [share for share in estimator.fractions or () if share not in shares]:
                raise ValueError(
                    f"{type(estimator).__name__}.fractions has to be among the shares at which policies are evaluated "
                    f"({', '.join(f'{share:g}' for share in shares)}), got {missing}; add them to Evaluating.fractions"
                )
        for field in ("tasks", "bins", "tiers", "seeds"):
            values = getattr(self, field)
            if len(set(values)) < len(values):
                raise ValueError(f"{field} has to hold each value once, got {list(values)}")

    @property
    def collectors(self) -> int:
        """Processes that roll out behaviours on this machine."""
        return self.collection_processes or available_cores()

    def simulated(self, task: str) -> bool:
        """Whether policies of a task are evaluated in a simulator."""
        return task in TASKS or task in self.simulators

    def dataset(self, cell: Cell) -> DatasetPlan:
        """The plan of a cell's dataset.

        Raises:
            BehaviorError, StoreError, ValueError: when it cannot be made.
        """
        key = cell.key
        plan = cell.tier.plan(key.tier, key.task, key.bins, self.transitions, self.data_seed)
        if not (self.held_out or self.held_out_sources):
            return plan
        return HoldingOut(plan, self.held_out, self.data_seed, self.held_out_by, self.held_out_sources)

    def cells(self) -> list[Cell]:
        """Every cell of the grid; cells that share data and ASM stand next to each other."""
        policies, algorithms = _named(self.policies), _named(self.algorithms)
        grid = itertools.product(self.tasks, self.bins, self.tiers, self.seeds, policies, algorithms)
        return [
            Cell(
                CellKey(
                    task=task,
                    bins=bins,
                    tier=tier,
                    policy=policy,
                    algorithm=algorithm,
                    seed=seed,
                ),
                policies[policy],
                algorithms[algorithm],
                self.recipes[tier],
                self.pretrainings.get(policy, self.pretraining).with_snapshots(self.evaluation.during_pretraining),
                self.warm_starts.get(policy),
                self.critic_starts.get(policy, self.critic_start),
            )
            for task, bins, tier, seed, policy, algorithm in grid
        ]

    def smoke(self) -> Experiment:
        """The same grid at sizes that run in seconds a cell: all stages run, but the results mean nothing."""

        return attrs.evolve(
            self,
            name=f"{self.name}-smoke",
            preset="smoke",
            recipes={name: recipe.smaller(400) for name, recipe in self.recipes.items()},
            pretraining=self.pretraining.smaller(),
            pretrainings={name: pretraining.smaller() for name, pretraining in self.pretrainings.items()},
            warm_starts={name: start.smaller() for name, start in self.warm_starts.items()},
            critic_start=self.critic_start and self.critic_start.smaller(),
            critic_starts={name: start and start.smaller() for name, start in self.critic_starts.items()},
            training=attrs.evolve(self.training, gradient_steps=20, batch_size=32, report_every=5),
            evaluation=attrs.evolve(
                self.evaluation,
                fractions=(0.5, 1.0),  # type: ignore[arg-type]  # mypy takes no generic converter
                every_steps=None,
                episodes=2,
                final_episodes=None,
                episode_steps=50,
                pictures=False,
                estimators=[each.smaller() for each in self.evaluation.estimators],  # type: ignore[misc]
            ),
        )


def _short_name(component: Component) -> str:
    return type(component).__name__.lower()


def _named(components: tuple[_C, ...] | Mapping[str, _C]) -> Mapping[str, _C]:
    """Components by name: their own in a mapping, else that of their class."""
    if isinstance(components, Mapping):
        return components
    return {_short_name(component): component for component in components}
