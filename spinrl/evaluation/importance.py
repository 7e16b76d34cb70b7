"""Off-policy estimates by importance weights, as pure functions of arrays.

Shapes: E episodes, T steps of the longest one, N sub-actions, R bootstrap resamples. Arrays of steps are padded to
(E, T); `valid` says which steps are real. A finished episode stays in its last state: its weight no longer changes, and
it earns nothing. With episodes of one step the estimators are those of a contextual bandit: self-normalised importance
sampling, and its doubly robust form.
"""

from __future__ import annotations

import attrs
import numpy as np


@attrs.frozen(kw_only=True)
class Steps:
    """Logged episodes, padded to the longest.

    Attributes:
        reward: (E, T) float64; anything where `valid` is False.
        log_ratio: (E, T) float64, log π(a|s) − log b(a|s) of the logged joint action, −inf where the policy never takes
            it; see `bounded_log_ratio`.
        valid: (E, T) bool, True for the steps that were taken; each episode's come first.
    """

    reward: np.ndarray
    log_ratio: np.ndarray
    valid: np.ndarray

    def __attrs_post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in ("reward", "log_ratio", "valid")}
        if len(set(shapes.values())) > 1 or self.valid.ndim != 2:
            raise ValueError(f"reward, log_ratio and valid must be (E, T) alike, found {shapes}")
        if not self.valid[:, 0].all() or (self.valid[:, 1:] & ~self.valid[:, :-1]).any():
            raise ValueError("valid must begin with True in every episode and stay False from the first False on")

    @property
    def earned(self) -> np.ndarray:
        """(E, T) rewards, zero after the end."""
        return np.where(self.valid, self.reward, 0.0)

    @property
    def weight(self) -> np.ndarray:
        """(E, T) products of the ratios up to and including each step, relative to the largest of that step.

        Normalised estimates depend on the relations alone, and the products themselves leave float64's range. All are
        zero at a step that the policy reaches in no episode.
        """
        total = np.where(self.valid, self.log_ratio, 0.0).cumsum(1)
        largest = total.max(0, keepdims=True)
        return np.exp(total - np.where(np.isfinite(largest), largest, 0.0))


def bounded_log_ratio(log_policy: np.ndarray, log_behavior: np.ndarray, bound: float) -> tuple[np.ndarray, float]:
    """Log ratio of joint actions, with every sub-action's ratio kept within [1 / bound, bound].

    Args:
        log_policy: (..., N) log-probability of each logged sub-action under the policy; −inf where it is never taken.
        log_behavior: (..., N) the same under the behaviour, finite.
        bound: largest ratio of one sub-action, above 1.

    Returns:
        (...) sums over sub-actions, and the share of sub-actions whose ratio was bounded.

    Raises:
        ValueError: where the behaviour has a log-probability that is not finite: it took the action.
    """
    if not np.isfinite(log_behavior).all():
        raise ValueError("the behaviour's probability of a logged action must be above 0, found 0 or NaN")
    ratio = log_policy - log_behavior
    limit = np.log(bound)
    # No bound may bring an episode back that the policy would have left.
    never = np.isneginf(log_policy)
    bounded = (np.abs(ratio) > limit) & ~never
    kept = np.where(never, -np.inf, np.clip(ratio, -limit, limit))
    return kept.sum(-1), float(bounded.mean())


def effective_episodes(weight: np.ndarray, gamma: float) -> float:
    """Kish's effective sample size (Σw)² / Σw² of the episodes, averaged over steps with their discounts.

    Args:
        weight: (E, T) as `Steps.weight`.
        gamma: discount.
    """
    total, squares = weight.sum(0), (weight**2).sum(0)
    size = np.divide(total**2, squares, out=np.zeros_like(total), where=squares > 0)  # (T,)
    discount = gamma ** np.arange(weight.shape[1])
    return float(discount @ size / discount.sum())


def per_decision_wis(steps: Steps, gamma: float, counts: np.ndarray | None = None) -> np.ndarray:
    """Per-decision weighted importance sampling: Σ_t γ^t Σ_i w_it r_it / Σ_i w_it.

    Precup, Sutton and Singh 2000, "Eligibility Traces for Off-Policy Policy Evaluation", section 3.

    Args:
        steps: the episodes.
        gamma: discount.
        counts: (R, E) how often each episode counts in each resample; one row of ones by default.

    Returns:
        (R,) values; NaN where all weights of a step are zero.
    """
    counts = np.ones((1, len(steps.valid))) if counts is None else counts
    weight = steps.weight
    earned, total = counts @ (weight * steps.earned), counts @ weight  # (R, T)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (earned / total) @ gamma ** np.arange(earned.shape[1])


def weighted_doubly_robust(
    steps: Steps, q: np.ndarray, v: np.ndarray, gamma: float, counts: np.ndarray | None = None
) -> np.ndarray:
    """Weighted doubly robust: Σ_t γ^t Σ_i (w̃_it r_it − w̃_it q_it + w̃_i,t−1 v_it), w̃ normalised over episodes.

    Right when either the ratios or the values are. Thomas and Brunskill 2016, "Data-Efficient Off-Policy Policy
    Evaluation for Reinforcement Learning", section 4.

    Args:
        steps: the episodes.
        q: (E, T) value of the policy after the logged action; anything where a step is not valid.
        v: (E, T) value of the policy in the observation, Σ_a π(a|s) Q(s, a); likewise.
        gamma: discount.
        counts: (R, E) as in `per_decision_wis`.

    Returns:
        (R,) values; NaN where all weights of a step are zero.
    """
    counts = np.ones((1, len(steps.valid))) if counts is None else counts
    weight = steps.weight
    q, v = np.where(steps.valid, q, 0.0), np.where(steps.valid, v, 0.0)
    before = np.concatenate([np.ones((len(weight), 1)), weight[:, :-1]], 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        corrected = (counts @ (weight * (steps.earned - q))) / (counts @ weight)  # (R, T)
        model = (counts @ (before * v)) / (counts @ before)
        return (corrected + model) @ gamma ** np.arange(q.shape[1])


def resample_counts(episodes: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(R, E) how often each episode is drawn in each bootstrap resample of the episodes."""
    return rng.multinomial(episodes, np.full(episodes, 1 / episodes), size=resamples).astype(np.float64)


def percentile_interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """The central interval of bootstrap values (R,), those that are not finite left out; NaN where none is left."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)
