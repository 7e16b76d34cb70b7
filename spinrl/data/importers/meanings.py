"""The meaning of a file's columns, by their usual names or as the user gives it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from spinrl.data.importers.padded import PADDING
from spinrl.data.importers.tables import Table
from spinrl.data.store.metadata import StoreError

# Usual names of columns in Gymnasium, D4RL, Tianshou, RLlib, LeRobot, d3rlpy and robomimic.
ALIASES: dict[str, tuple[str, ...]] = {
    "observations": ("observations", "observation", "obs", "states", "state", "observation.state"),
    "actions": ("actions", "action", "act", "acts"),
    "rewards": ("rewards", "reward", "rew", "rews", "next.reward"),
    "next_observations": (
        *("next_observations", "next_observation", "next_obs", "next_states", "next_state", "obs_next", "new_obs"),
        "next.observation.state",
    ),
    "terminals": ("terminals", "terminal", "terminations", "terminated", "terminateds", "next.terminated"),
    "timeouts": ("timeouts", "timeout", "truncations", "truncated", "truncateds", "next.truncated"),
    "dones": ("dones", "done", "next.done"),
    "episode": ("episode", "episodes", "episode_id", "episode_ids", "episode_index", "eps_id"),
    "step": (
        *("step", "steps", "timestep", "timesteps", "time_step", "step_index", "step_id", "frame_index", "bloc", "t"),
        "timestamp",
    ),
    "split": ("split", "splits"),
    "allowed": ("allowed", "action_mask", "action_masks"),
    "next_allowed": ("next_allowed", "next_action_mask"),
    "propensities": ("propensities", "propensity"),
}
REQUIRED = ("observations", "actions", "rewards")
SEVERAL = ("observations", "actions", "next_observations", "allowed", "next_allowed", "propensities")
GIVEN = (*ALIASES, *PADDING)  # meanings that can be given
_INDEX = re.compile(r"(Unnamed: \d+|__index_level_\d+__|index)")  # row numbers that pandas adds
Names = Mapping[str, str | Sequence[str]]


def find_columns(table: Table, given: Names) -> dict[str, tuple[str, ...]]:
    """The columns of a file by meaning.

    Args:
        table: table of the file.
        given: column names by meaning in place of the usual names: a list, or text as `select` reads it; an empty one
            ignores that meaning.

    Returns:
        Column names by meaning, for every meaning that the file has; "step" has all columns with a usual name.

    Raises:
        StoreError: when a column is missing or ambiguous, or has two meanings.
    """
    usual: Mapping[str, tuple[str, ...]] = getattr(table, "usual", {})
    found: dict[str, tuple[str, ...]] = {}
    later: dict[str, str] = {}
    for meaning, aliases in ALIASES.items():
        choice = given.get(meaning)
        if choice is None:
            found[meaning] = usual.get(meaning) or _usual(table, meaning, aliases)
        elif isinstance(choice, str) and "*" in choice:
            later[meaning] = choice
        else:
            found[meaning] = tuple(select(table.names, choice)) if isinstance(choice, str) else tuple(choice)
    # A pattern takes no columns that have another meaning; the most specific pattern takes its columns first.
    for meaning, choice in sorted(later.items(), key=lambda item: -len(item[1])):
        taken = {name for names in found.values() for name in names}
        free = [name for name in table.names if name not in taken and not _INDEX.fullmatch(name)]
        found[meaning] = tuple(select(table.names, choice, free))
    for meaning in PADDING:
        if meaning in given:
            choice = given[meaning]
            found[meaning] = tuple(select(table.names, choice)) if isinstance(choice, str) else tuple(choice)
    _check(table, found)
    return {
        meaning: found[meaning] for meaning in GIVEN if found.get(meaning) or (meaning in PADDING and meaning in found)
    }


def _check(table: Table, found: Mapping[str, Sequence[str]]) -> None:
    has = ", ".join(table.names) or "none"
    has += f" ({table.beside})" if table.beside else ""
    for meaning, names in found.items():
        if missing := [name for name in names if name not in table.names]:
            raise StoreError(f"{table.file} has no column {missing[0]} for {meaning}; it has {has}")
        if twice := [name for name in names if list(names).count(name) > 1]:
            raise StoreError(f"{table.file}: column {twice[0]} is given twice for {meaning}")
        if meaning in REQUIRED and not names:
            raise StoreError(
                f"{table.file} has no column for {meaning}; it has {has}; name it with --column {meaning}=NAME"
            )
    for one, other in (("observations", "actions"), ("observations", "rewards"), ("actions", "rewards")):
        if both := set(found[one]) & set(found[other]):
            raise StoreError(f"{table.file}: column {both.pop()} is given for {one} and for {other}")


def _usual(table: Table, meaning: str, aliases: Sequence[str]) -> tuple[str, ...]:
    """The columns with a usual name: one, or ``observation_0`` and so on."""
    names = set(table.names)
    options: list[tuple[str, ...]] = [(alias,) for alias in aliases if alias in names]
    if meaning == "step":
        return tuple(name for option in options for name in option)
    if meaning in SEVERAL:
        for alias in aliases:
            numbered = {int(name[len(alias) + 1 :]) for name in names if re.fullmatch(rf"{re.escape(alias)}_\d+", name)}
            if numbered and max(numbered) <= len(names):
                first = min(numbered) if min(numbered) == 1 else 0
                options.append(tuple(f"{alias}_{number}" for number in range(first, max(numbered) + 1)))
    if len(options) > 1:
        told = " or ".join(columns[0] for columns in options)
        raise StoreError(f"{table.file}: {meaning} could be {told}; say which with --column {meaning}={options[0][0]}")
    return options[0] if options else ()


def select(names: Sequence[str], text: str, free: Sequence[str] | None = None) -> list[str]:
    """The columns that a comma-separated list names.

    An entry is a name; ``first..last`` for all columns of the file from one to the other; a pattern with ``*``; or one
    of these after ``-``, which removes columns from the entries before. A name with commas is recognised; double
    quotes make an entry a plain name.

    Args:
        names: names of all columns, in the order of the file.
        text: list of entries.
        free: columns that patterns may take; None for all.

    Raises:
        StoreError: for a pattern or a range that no column fits.
    """
    pieces = re.findall(r'"[^"]*"|[^,]+', text)
    chosen: list[str] = []
    at = 0
    while at < len(pieces):
        end = next((end for end in range(len(pieces), at, -1) if _joined(names, pieces[at:end]) is not None), None)
        if end is not None:
            chosen.append(_joined(names, pieces[at:end]) or "")
            at = end
            continue
        piece = pieces[at].strip()
        at += 1
        if piece.startswith("-"):
            out = _several(names, piece[1:], names)
            chosen = [name for name in chosen if name not in out]
        elif piece:
            chosen += [name for name in _several(names, piece, names if free is None else free) if name not in chosen]
    return chosen


def _joined(names: Sequence[str], pieces: Sequence[str]) -> str | None:
    """The column whose name, with its commas, these pieces form."""
    if len(pieces) == 1 and pieces[0].startswith('"'):
        return pieces[0].strip('"')
    together = ",".join(pieces)
    return next((name for name in (together, together.strip()) if name in names), None)


def _several(names: Sequence[str], piece: str, free: Sequence[str]) -> list[str]:
    if piece in names:
        return [piece]
    if "*" in piece:
        pattern = re.compile(".*".join(map(re.escape, piece.split("*"))))
        if not (fitting := [name for name in free if pattern.fullmatch(name)]):
            raise StoreError(f"no column fits {piece}; there are {', '.join(names)}")
        return fitting
    first, dots, last = piece.partition("..")
    if dots and first in names and last in names:
        start, end = names.index(first), names.index(last)
        if start > end:
            raise StoreError(f"column {first} comes after {last}; write {last}..{first}")
        return list(names[start : end + 1])
    return [piece]
