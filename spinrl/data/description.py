"""A dataset in numbers: returns, coverage of choices, dependence of sub-actions, and possible faults."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from spinrl.data.outliers import Outlier, outliers, suspicions
from spinrl.data.store.metadata import SourceRecord
from spinrl.data.store.store import Store
from spinrl.seeding import numpy_generator

SAMPLE = 200_000  # most transitions from which mutual information is estimated
_ROWS = 65_536  # observations read at once


@attrs.frozen(eq=False, kw_only=True)
class EpisodeStatistics:
    """The episodes of each source, by its label.

    Attributes:
        returns: (E_k,) float64, undiscounted.
        lengths: (E_k,) int64, in steps.
        terminated: episodes that the task ended; all others were cut.
    """

    returns: dict[str, np.ndarray]
    lengths: dict[str, np.ndarray]
    terminated: int


@attrs.frozen(eq=False, kw_only=True)
class ActionStatistics:
    """Frequencies of choices, and mutual information between the sub-actions of a transition.

    Attributes:
        nvec: choices of each of the N sub-actions.
        transitions: T, the number of transitions behind `counts`.
        sampled: number of transitions from which mutual information was estimated.
        counts: (nvec[i],) int64 for each sub-action, frequency of each choice.
        mutual_information: (N, N) bits, entropy on the diagonal. Estimates from few transitions are too high.
        chance: (N, N) bits, the same estimate with each sub-action shuffled independently. It is somewhat too low,
            since successive steps are alike.
        times_allowed: (nvec[i],) int64 for each sub-action, number of transitions that allow each choice; None for data
            without masks.
    """

    nvec: tuple[int, ...]
    transitions: int
    sampled: int
    counts: Sequence[np.ndarray]
    mutual_information: np.ndarray
    chance: np.ndarray
    times_allowed: Sequence[np.ndarray] | None = None

    @property
    def shares(self) -> np.ndarray:
        """(N, K) share of each choice, NaN where a sub-action has fewer."""
        shares = np.full((len(self.nvec), max(self.nvec)), np.nan)
        for row, counts in zip(shares, self.counts, strict=True):
            row[: len(counts)] = counts / self.transitions
        return shares

    @property
    def entropy(self) -> np.ndarray:
        """(N,) bits; at most log2(nvec)."""
        return np.array([entropy(counts) for counts in self.counts])

    @property
    def effective_choices(self) -> np.ndarray:
        """(N,) exponential of the entropy: the number of equally frequent choices with that entropy, 1 to nvec."""
        return 2.0**self.entropy

    @property
    def beyond_chance(self) -> np.ndarray:
        """(N, N) bits by which mutual information is above chance, at least 0; NaN on the diagonal."""
        excess = np.maximum(self.mutual_information - self.chance, 0)
        np.fill_diagonal(excess, np.nan)
        return excess

    @property
    def never_taken(self) -> list[list[int]]:
        """For each sub-action the choices that no transition has."""
        return [np.flatnonzero(counts == 0).tolist() for counts in self.counts]

    @property
    def allowed(self) -> np.ndarray | None:
        """(N,) mean share of a sub-action's choices that are allowed; None for data without masks."""
        if self.times_allowed is None:
            return None
        return np.array([times.mean() / self.transitions for times in self.times_allowed])

    @property
    def never_allowed(self) -> list[list[int]]:
        """For each sub-action the choices that no transition allows."""
        return [np.flatnonzero(times == 0).tolist() for times in self.times_allowed or ()]


@attrs.frozen(eq=False, kw_only=True)
class ObservationStatistics:
    """Ranges of the S observation entries over all rows, finite values only; NaN for an entry without any.

    Attributes:
        low, high, mean, std: (S,) float64.
        nonfinite: (S,) int64, number of values that are NaN or infinite.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    nonfinite: np.ndarray

    @property
    def constant(self) -> list[int]:
        """Entries that have one value throughout."""
        return np.flatnonzero(self.low == self.high).tolist()


def episode_statistics(store: Store) -> EpisodeStatistics:
    """Returns and lengths of a store's episodes by source."""
    episodes = store.data["episodes"]
    source, length = episodes["source"].numpy(), episodes["length"].numpy()
    last = episodes["start"].numpy() + length - 1
    mine = {label: source == index for index, label in enumerate(source_labels(store.metadata.sources))}
    return EpisodeStatistics(
        returns={label: store.returns[which] for label, which in mine.items()},
        lengths={label: length[which] for label, which in mine.items()},
        terminated=int(store.data["transitions", "terminated"].numpy()[last].sum()),
    )


def source_labels(sources: Sequence[SourceRecord]) -> list[str]:
    """A name for each source, e.g. ``expert, 5% random``; equal names get their position."""
    labels = []
    for source in sources:
        noise = f", {100 * source.epsilon:g}% random" if 0 < source.epsilon < 1 else ""
        labels.append(source.behavior + noise + (f", held {source.hold}" if source.hold > 1 else ""))
    return [f"{label} ({k})" if labels.count(label) > 1 else label for k, label in enumerate(labels, 1)]


def action_statistics(store: Store, sample: int = SAMPLE) -> ActionStatistics:
    """Coverage, entropy and mutual information of a store's actions.

    Args:
        store: store of T transitions.
        sample: most transitions, drawn at random, from which mutual information is estimated.
    """
    nvec, actions = store.action_spec.nvec, store.data["transitions", "action"].numpy()  # (T, N)
    rng = numpy_generator(0, "description")
    drawn = actions
    if len(actions) > sample:
        drawn = actions[np.sort(rng.choice(len(actions), sample, replace=False))]
    return ActionStatistics(
        nvec=nvec,
        transitions=len(actions),
        sampled=len(drawn),
        counts=[np.bincount(actions[:, i], minlength=choices) for i, choices in enumerate(nvec)],
        mutual_information=mutual_information(drawn, nvec),
        chance=mutual_information(rng.permuted(drawn, axis=0), nvec),
        times_allowed=_times_allowed(store),
    )


def _times_allowed(store: Store) -> list[np.ndarray] | None:
    """How many transitions allow each choice of each sub-action; masks after the last steps do not count."""
    if store.allowed is None:
        return None
    masks, rows = store.allowed.numpy(), store.data["transitions", "row"].numpy()
    times = np.zeros(masks.shape[1:], dtype=np.int64)  # (N, K)
    for at in range(0, len(rows), _ROWS):
        times += np.count_nonzero(masks[rows[at : at + _ROWS]], axis=0)
    return [each[:choices] for each, choices in zip(times, store.action_spec.nvec, strict=True)]


def entropy(counts: np.ndarray) -> float:
    """Entropy in bits of the distribution given by counts."""
    shares = counts[counts > 0] / counts.sum()
    return max(0.0, -float(np.sum(shares * np.log2(shares))))


def mutual_information(actions: np.ndarray, nvec: Sequence[int]) -> np.ndarray:
    """Mutual information between all pairs of sub-actions, from counts, without a small-sample correction.

    Args:
        actions: (T, N) integers.
        nvec: choices of each sub-action.

    Returns:
        (N, N) float64 bits, entropy on the diagonal.
    """
    columns = np.ascontiguousarray(actions.T, dtype=np.int64)  # (N, T)
    bits = np.diag([entropy(np.bincount(column)) for column in columns])
    for i in range(len(nvec)):
        for j in range(i):
            joint = entropy(_counts(columns[i] * nvec[j] + columns[j], nvec[i] * nvec[j]))
            bits[i, j] = bits[j, i] = max(0.0, bits[i, i] + bits[j, j] - joint)
    return bits


def _counts(codes: np.ndarray, size: int) -> np.ndarray:
    """Frequency of each code below `size`, as a full table unless that is much larger than the data."""
    return np.bincount(codes) if size <= 4 * len(codes) else np.unique(codes, return_counts=True)[1]


def observation_statistics(store: Store) -> ObservationStatistics:
    """Ranges of a store's observation entries, in one pass over all of them."""
    observation = store.data["observations", "observation"].numpy()  # (R, S)
    size = observation.shape[1]
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    count, total, squares = (np.zeros(size) for _ in range(3))
    offset = np.where(np.isfinite(observation[0]), observation[0], 0).astype(np.float64)  # keeps squares small
    for at in range(0, len(observation), _ROWS):
        rows = observation[at : at + _ROWS].astype(np.float64)
        finite = np.isfinite(rows)
        low = np.minimum(low, rows.min(axis=0, where=finite, initial=np.inf))
        high = np.maximum(high, rows.max(axis=0, where=finite, initial=-np.inf))
        rows = np.where(finite, rows - offset, 0)
        count, total, squares = count + finite.sum(axis=0), total + rows.sum(axis=0), squares + (rows**2).sum(axis=0)
    some = count > 0
    mean = np.divide(total, count, where=some, out=np.full(size, np.nan))
    variance = np.divide(squares, count, where=some, out=np.full(size, np.nan)) - mean**2
    return ObservationStatistics(
        low=np.where(some, low, np.nan),
        high=np.where(some, high, np.nan),
        mean=mean + offset,
        std=np.sqrt(np.maximum(variance, 0)),
        nonfinite=(len(observation) - count).astype(np.int64),
    )


def duplicate_transitions(store: Store) -> int:
    """Number of transitions that equal an earlier one in observation, action, reward and next observation."""
    transitions, observation = store.data["transitions"], store.data["observations", "observation"].numpy()
    actions, rewards, first = (transitions[key].numpy() for key in ("action", "reward", "row"))
    hashes = np.fromiter(
        # 64-bit hashes: among ten million transitions the chance of a wrong match is one in 300,000.
        (
            hash(observation[row : row + 2].tobytes() + action.tobytes() + reward.tobytes())
            for row, action, reward in zip(first.tolist(), actions, rewards, strict=True)
        ),
        dtype=np.int64,
        count=len(store),
    )
    return len(hashes) - len(np.unique(hashes))


@attrs.frozen(eq=False, kw_only=True)
class Description:
    """The whole description of a store.

    Attributes:
        episodes, actions, observations: statistics of each.
        duplicates: number of transitions that equal an earlier one.
        rewards: (lowest, highest) finite reward.
        nonfinite_rewards: number of rewards that are NaN or infinite.
        suspicions: possible faults in the values, one line each.
        outliers: observation values far outside all others of their entry.
    """

    episodes: EpisodeStatistics
    actions: ActionStatistics
    observations: ObservationStatistics
    duplicates: int
    rewards: tuple[float, float]
    nonfinite_rewards: int
    suspicions: Sequence[str]
    outliers: Sequence[Outlier]

    @classmethod
    def of(cls, store: Store, sample: int = SAMPLE) -> Description:
        """Describe a store; `sample` as for `action_statistics`."""
        reward = store.data["transitions", "reward"].numpy()
        finite = reward[np.isfinite(reward)]
        return cls(
            episodes=episode_statistics(store),
            actions=action_statistics(store, sample),
            observations=observation_statistics(store),
            duplicates=duplicate_transitions(store),
            rewards=(float(finite.min()), float(finite.max())) if len(finite) else (np.nan, np.nan),
            nonfinite_rewards=len(reward) - len(finite),
            suspicions=suspicions(store),
            outliers=outliers(store.data["observations", "observation"].numpy()),
        )
