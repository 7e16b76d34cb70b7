"""Episodes of a behaviour policy, each decided by its own number alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs
import numpy as np
from attrs.validators import ge, gt, in_, le

from spinrl.behaviors import Behavior
from spinrl.config.registry import Component, register
from spinrl.config.serialize import fingerprint
from spinrl.data.store.metadata import SourceRecord
from spinrl.data.store.store import Episode
from spinrl.seeding import child_seed, numpy_generator
from spinrl.specs import ActionSpec
from spinrl.tasks import EPISODE_STEPS

if TYPE_CHECKING:
    from spinrl.tasks import BatchedEnvironment  # MuJoCo is imported by those alone who simulate


@register
@attrs.frozen(kw_only=True)
class Source(Component):
    """Episodes of one behaviour policy.

    Attributes:
        behavior: shipped policy that acts; "random" draws every sub-action uniformly.
        share: weight of this source in the dataset's transitions, relative to the other sources.
        epsilon: share of sub-actions that are drawn at random instead, independently of each other.
        hold: control steps for which a random sub-action is held.
    """

    kind: ClassVar[str] = "source"

    behavior: Literal["expert", "medium", "random"] = attrs.field(validator=in_(("expert", "medium", "random")))
    share: float = attrs.field(default=1.0, validator=gt(0))
    epsilon: float = attrs.field(default=0.0, validator=[ge(0), le(1)])
    hold: int = attrs.field(default=1, validator=ge(1))


REPORT_EVERY = 50  # lock-steps between two reports of progress


@attrs.frozen(kw_only=True)
class Rollout:
    """Description of an endless sequence of episodes; a dataset takes as many from its start as it needs.

    Attributes:
        task: name of the task.
        bins: choices per sub-action.
        behavior: "expert", "medium" or "random".
        behavior_fingerprint: fingerprint of its weights.
        epsilon: share of random sub-actions.
        hold: control steps for which a random sub-action is held.
        seed: seed of all episodes.
    """

    task: str
    bins: int
    behavior: str
    behavior_fingerprint: str
    epsilon: float
    hold: int
    seed: int

    @classmethod
    def of(cls, source: Source, behavior: Behavior, seed: int) -> Rollout:
        """The sequence of episodes of `source` with the loaded behaviour policy."""
        return cls(
            task=behavior.task,
            bins=behavior.bins,
            behavior=behavior.level,
            behavior_fingerprint=behavior.fingerprint,
            epsilon=1.0 if behavior.level == "random" else source.epsilon,
            hold=source.hold,
            seed=seed,
        )

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all that the episodes depend on."""
        return fingerprint(attrs.asdict(self))

    def environment_seed(self, number: int) -> int:
        """Seed with which episode `number` is reset."""
        return child_seed(self.seed, "collection", number, "environment")

    def record(self) -> SourceRecord:
        """The entry in a store's metadata."""
        return SourceRecord(
            behavior=self.behavior,
            fingerprint=self.behavior_fingerprint,
            epsilon=self.epsilon,
            hold=self.hold,
            seed=self.seed,
        )


def roll_out(
    rollout: Rollout,
    behavior: Behavior,
    environment: BatchedEnvironment,
    numbers: Sequence[int],
    lengths: Sequence[int],
    report: Callable[[int], None] = lambda steps: None,
) -> list[Episode]:
    """Roll out episodes in lock-step. An episode does not depend on the others beside it.

    Args:
        rollout: description of the sequence of episodes.
        behavior: loaded behaviour policy.
        environment: environment with at least as many members as episodes.
        numbers: numbers of the episodes in the sequence.
        lengths: steps of each episode, in falling order; the last step of each is truncated.
        report: callback with the number of transitions made since its last call.
    """
    spec = environment.action_spec
    explore, choice = (np.stack(part) for part in zip(*(exploration(rollout, spec, k) for k in numbers), strict=True))
    width, longest = len(numbers), lengths[0]
    observations = np.empty((width, longest + 1, environment.task.observation_size), dtype=np.float32)
    actions = np.empty((width, longest, spec.num_sub_actions), dtype=np.int64)
    rewards = np.empty((width, longest))
    for index, number in enumerate(numbers):
        observations[index, 0] = environment.reset(index, rollout.environment_seed(number))
    unreported = 0
    for step in range(longest):
        active = sum(length > step for length in lengths)  # number of running episodes, which are the first ones
        action = choice[:active, step]
        if rollout.epsilon < 1:
            greedy = behavior.act(observations[:active, step])
            action = np.where(explore[:active, step], action, greedy)
        actions[:active, step] = action
        observations[:active, step + 1], rewards[:active, step] = environment.step(action, range(active))
        unreported += active
        if step % REPORT_EVERY == REPORT_EVERY - 1 or step == longest - 1:
            report(unreported)
            unreported = 0
    return [
        Episode(
            observations=observations[index, : length + 1],
            actions=actions[index, :length].astype(np.min_scalar_type(spec.max_choices - 1)),
            rewards=rewards[index, :length],
            terminated=np.zeros(length, dtype=bool),
            truncated=np.arange(length) == length - 1,
        )
        for index, length in enumerate(lengths)
    ]


def exploration(rollout: Rollout, spec: ActionSpec, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The random part of an episode's actions: where it replaces the greedy choice, and the replacement.

    Returns:
        (T, N) bool and (T, N) int64, for the T steps of a whole episode, even if fewer are used.
    """
    rng = numpy_generator(rollout.seed, "collection", number, "exploration")
    shape = (-(-EPISODE_STEPS // rollout.hold), spec.num_sub_actions)
    explore = rng.random(shape) < rollout.epsilon
    choice = rng.integers(0, spec.nvec, shape)
    return tuple(np.repeat(each, rollout.hold, axis=0)[:EPISODE_STEPS] for each in (explore, choice))  # type: ignore[return-value]
