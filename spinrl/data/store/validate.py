"""Checks of episodes; errors name episode, step and value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spinrl.data.store.metadata import StoreError
from spinrl.data.store.store import Episode
from spinrl.specs import ActionSpec


def check_episode(
    episode: Episode,
    spec: ActionSpec,
    observation_size: int,
    num_sources: int,
    *,
    where: str,
    extras: Sequence[str] = (),
) -> None:
    """Check shapes, types and values of an episode.

    Args:
        episode: episode to check.
        spec: N sub-actions and their choices.
        observation_size: S.
        num_sources: number of sources of the store.
        where: name of store and episode, for messages.
        extras: names of the optional arrays that the store has.

    Raises:
        StoreError: for shapes that do not fit, actions that are not integers or out of range, observations or rewards
            that are not finite in float32, and masks that leave no choice or forbid the action, naming the step.
    """
    steps, sub_actions = len(episode), spec.num_sub_actions
    wanted = {
        "observations": (steps + 1, observation_size),
        "actions": (steps, sub_actions),
        "rewards": (steps,),
        "terminated": (steps,),
        "truncated": (steps,),
    }
    for name, shape in wanted.items():
        if steps == 0 or getattr(episode, name).shape != shape:
            sizes = " × ".join(map(str, shape)) if steps else "at least one step"
            raise StoreError(
                f"{where}: {name}: expected {sizes}, found {' × '.join(map(str, getattr(episode, name).shape))}"
            )
    if not 0 <= episode.source < num_sources:
        raise StoreError(f"{where}: source {episode.source} is not one of the {num_sources} that the store names")
    if not np.issubdtype(episode.actions.dtype, np.integer):
        raise StoreError(f"{where}: actions: expected integers, found {episode.actions.dtype}")
    _check_finite(episode.observations, where, "observation")
    _check_finite(episode.rewards, where, "reward")
    outside = (episode.actions < 0) | (episode.actions >= np.array(spec.nvec))
    if outside.any():
        step, sub_action = (int(at) for at in np.argwhere(outside)[0])
        value = episode.actions[step, sub_action]
        expected = f"0 to {spec.nvec[sub_action] - 1}"
        raise StoreError(f"{where}, step {step}: sub-action {sub_action}: expected {expected}, found {value}")
    if "allowed" in extras:
        _check_allowed(episode, spec, where)
    for name, size in (("propensity", ()), ("propensities", (sub_actions,))):
        if name in extras and (episode.propensity is None or episode.propensity.shape != (steps, *size)):
            raise StoreError(f"{where}: expected the {name} of every step of a store that has them")


def _check_allowed(episode: Episode, spec: ActionSpec, where: str) -> None:
    steps, allowed = len(episode), episode.allowed
    shape = steps + 1, spec.num_sub_actions, spec.max_choices
    if allowed is None or allowed.dtype != bool or allowed.shape != shape:
        raise StoreError(f"{where}: expected allowed choices as {' × '.join(map(str, shape))} booleans")
    some = (allowed & (np.arange(spec.max_choices) < np.array(spec.nvec)[:, None])).any(axis=2)
    if not some.all():
        step, sub_action = (int(at) for at in np.argwhere(~some)[0])
        raise StoreError(f"{where}, step {step}: the mask allows no choice of sub-action {sub_action}")
    taken = np.take_along_axis(allowed[:-1], episode.actions[..., None].astype(np.int64), axis=2)[..., 0]
    if not taken.all():
        step, sub_action = (int(at) for at in np.argwhere(~taken)[0])
        value = episode.actions[step, sub_action]
        raise StoreError(f"{where}, step {step}: choice {value} of sub-action {sub_action} is forbidden by its mask")


def not_finite(values: np.ndarray) -> np.ndarray:
    """Bool of the same shape: values that are NaN or infinite in float32."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        return ~np.isfinite(values.astype(np.float32))


def _check_finite(values: np.ndarray, where: str, name: str) -> None:
    bad = not_finite(values)
    if bad.any():
        at = tuple(int(index) for index in np.argwhere(bad)[0])
        entry = f"{name} entry {at[1]}" if len(at) > 1 else name
        raise StoreError(f"{where}, step {at[0]}: {entry}: expected a finite number, found {values[at]}")
