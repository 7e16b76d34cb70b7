"""The six tasks of the discretised DM Control benchmark (arXiv 2411.11088), as data."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import attrs

from spinrl.specs import ActionSpec

EPISODE_STEPS = 1000  # control steps; the time limit is the only end of an episode
MIN_BINS, MAX_BINS = 2, 100


@attrs.frozen(kw_only=True)
class Task:
    """One task of the suite, its sizes and the benchmark's returns that normalise its scores.

    Attributes:
        name: the benchmark's name, ``<domain>-<task>``.
        domain: dm_control suite domain.
        task: dm_control suite task.
        observation_size: S, of the suite's observation arrays flattened in their own order.
        num_sub_actions: N, actuators.
        reference_returns: (random, expert) return of the benchmark's data by number of bins; other numbers of bins use
            the 3-bin figures, see `reference_bins`.
    """

    name: str
    domain: str
    task: str
    observation_size: int
    num_sub_actions: int
    reference_returns: Mapping[int, tuple[float, float]]

    def action_spec(self, bins: int) -> ActionSpec:
        """The joint action with `bins` choices for every actuator.

        Raises:
            ValueError: when `bins` is outside 2 to 100.
        """
        if isinstance(bins, bool) or not isinstance(bins, int) or not MIN_BINS <= bins <= MAX_BINS:
            raise ValueError(f"bins must be a whole number from {MIN_BINS} to {MAX_BINS}, got {bins!r}")
        return ActionSpec((bins,) * self.num_sub_actions)

    def reference_bins(self, bins: int) -> int:
        """The number of bins whose benchmark returns normalise scores at `bins`."""
        return bins if bins in self.reference_returns else 3

    def random_return(self, bins: int) -> float:
        """The benchmark's return of the random policy."""
        return self.reference_returns[self.reference_bins(bins)][0]

    def expert_return(self, bins: int) -> float:
        """The benchmark's return of the expert data."""
        return self.reference_returns[self.reference_bins(bins)][1]


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="finger-spin",
            domain="finger",
            task="spin",
            observation_size=9,
            num_sub_actions=2,
            reference_returns={3: (4.36, 853.62)},
        ),
        Task(
            name="fish-swim",
            domain="fish",
            task="swim",
            observation_size=24,
            num_sub_actions=5,
            reference_returns={3: (72.32, 418.58)},
        ),
        Task(
            name="cheetah-run",
            domain="cheetah",
            task="run",
            observation_size=17,
            num_sub_actions=6,
            reference_returns={3: (5.39, 664.57)},
        ),
        Task(
            name="quadruped-walk",
            domain="quadruped",
            task="walk",
            observation_size=78,
            num_sub_actions=12,
            reference_returns={3: (121.31, 781.19)},
        ),
        Task(
            name="humanoid-stand",
            domain="humanoid",
            task="stand",
            observation_size=67,
            num_sub_actions=21,
            reference_returns={3: (4.54, 711.9)},
        ),
        Task(
            name="dog-trot",
            domain="dog",
            task="trot",
            observation_size=223,
            num_sub_actions=38,
            reference_returns={
                3: (7.32, 724.37),
                10: (6.48, 736.95),
                30: (6.39, 768.24),  # the other public table says 681.14
                50: (6.10, 752.58),
                75: (6.31, 803.05),
                100: (6.14, 756.86),
            },
        ),
    )
}


def get_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        KeyError: naming the nearest and all known tasks.
    """
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(str(name), TASKS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise KeyError(f"no task is called {name!r}; {hint}known tasks: {', '.join(TASKS)}")
