"""A description of a dataset as tables, JSON, and one HTML page that needs nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import pandas as pd

from harness.reporting.html import render
from harness.reporting.sections import Section
from harness.reporting.tables import NamedTable, number
from spinrl.data import Store
from spinrl.data.description import Description

PAIRS = 10  # pairs of sub-actions shown, those with the highest mutual information
SHOWN = 5  # suspicions shown
RUNS = 4  # ranges of numbers in one cell
NOTES = (
    "Entropy and mutual information in bits. Effective choices: 2 to the power of the entropy, so many as would have "
    "it if each were taken equally often. Chance is what the same estimate makes of sub-actions that were shuffled "
    "one by one; in truth it is somewhat higher, since successive steps are alike. Others tell: mutual information "
    "beyond chance, mean over all other sub-actions.",
)


def checks(store: Store, description: Description) -> dict[str, str]:
    """Key facts of the dataset and possible problems with it, by name."""
    metadata, observations, actions = store.metadata, description.observations, description.actions
    effective = actions.effective_choices
    never = sum(map(len, actions.never_taken))
    nonfinite, rewards = int(observations.nonfinite.sum()), description.nonfinite_rewards
    return {
        "dataset": f"{metadata.task}, {metadata.tier} ({store.fingerprint})",
        "size": f"{len(store):,} transitions, {metadata.episodes:,} episodes, {store.num_bytes / 1e6:,.1f} MB",
        "ends": f"{description.episodes.terminated:,} episodes ended by the task, "
        f"{metadata.episodes - description.episodes.terminated:,} cut",
        "actions": f"{len(actions.nvec)} sub-actions of {_range(actions.nvec)} choices",
        "never taken": f"{never:,} of {sum(actions.nvec):,} choices",
        **_masks(description),
        "effective choices": f"{effective.min():.2f} to {effective.max():.2f} a sub-action",
        "mutual information": f"from {actions.sampled:,} transitions",
        "observations": f"{len(observations.low)} entries, "
        f"from {np.nanmin(observations.low):.4g} to {np.nanmax(observations.high):.4g}",
        "constant entries": _listed(observations.constant),
        "rewards": f"from {description.rewards[0]:.4g} to {description.rewards[1]:.4g}",
        "not finite": f"{nonfinite:,} observation values, {rewards:,} rewards",
        "duplicates": f"{description.duplicates:,} transitions ({description.duplicates / len(store):.2%})",
        **_import_facts(store, description),
    }


def _masks(description: Description) -> dict[str, str]:
    """How much the masks of allowed choices allow, as far as there are any."""
    actions = description.actions
    if actions.allowed is None:
        return {}
    never = sum(map(len, actions.never_allowed))
    told = f"; {never:,} of {sum(actions.nvec):,} never" if never else ""
    return {"allowed choices": f"{actions.allowed.min():.0%} to {actions.allowed.max():.0%} a sub-action{told}"}


def _import_facts(store: Store, description: Description) -> dict[str, str]:
    """Facts that an import recorded and suspicious values, as far as there are any."""
    metadata = store.metadata
    facts = {
        "actions in the log": "from " + ", ".join(map(str, metadata.action_start)) if metadata.action_start else "",
        "more arrays": ", ".join(metadata.extras),
        "prepared": "; ".join(metadata.preparation),
        "look at": "; ".join(description.suspicions[:SHOWN])
        + (f"; and {len(description.suspicions) - SHOWN} more" if len(description.suspicions) > SHOWN else ""),
    }
    return {name: fact for name, fact in facts.items() if fact}


def tables(description: Description) -> list[NamedTable]:
    """Tables of sources, of sub-actions, and of the pairs of sub-actions with the highest mutual information."""
    named = [("Sources", _sources(description)), ("Sub-actions", _sub_actions(description))]
    pairs = _pairs(description)
    return [*named, ("Strongest pairs of sub-actions", pairs)] if len(pairs) else named


def entry_table(description: Description) -> NamedTable:
    """Range, mean and deviation of every observation entry."""
    fields = ("low", "high", "mean", "std", "nonfinite")
    columns = {name: getattr(description.observations, name) for name in fields}
    rows = pd.DataFrame(columns).map(lambda value: f"{value:.4g}")
    return "Observation entries", rows.rename_axis("entry").reset_index()


def to_json(store: Store, description: Description) -> str:
    """Every number, NaN as null."""
    actions, observations = description.actions, description.observations
    content = {
        "task": store.metadata.task,
        "tier": store.metadata.tier,
        "fingerprint": store.fingerprint,
        "transitions": len(store),
        **attrs.asdict(description),
    }
    content["actions"] |= {
        "entropy": actions.entropy,
        "effective_choices": actions.effective_choices,
        "never_taken": actions.never_taken,
        "allowed": actions.allowed,
        "never_allowed": actions.never_allowed,
    }
    content["observations"] |= {"constant": observations.constant}
    return json.dumps(_plain(content), allow_nan=False) + "\n"


def html(store: Store, description: Description, images: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        store: dataset that is described.
        description: description of the dataset.
        images: SVG of each figure, by name.
    """
    return render(
        f"{store.metadata.task}, {store.metadata.tier}",
        checks(store, description),
        [
            Section("Figures", "", figures=list(images)),
            Section("Tables", "", [*tables(description), entry_table(description)]),
        ],
        images,
        notes=NOTES,
        text_columns=lambda rows: 1,
    )


def _sources(description: Description) -> pd.DataFrame:
    rows = []
    for label, returns in description.episodes.returns.items():
        lengths = description.episodes.lengths[label]
        if len(returns):
            rows.append(
                {
                    "source": label,
                    "episodes": f"{len(returns):,}",
                    "transitions": f"{lengths.sum():,}",
                    "return": f"{number(returns.mean())} ± {number(returns.std())}",
                    "lowest": number(returns.min()),
                    "highest": number(returns.max()),
                    "steps": _range(lengths),
                }
            )
    return pd.DataFrame(rows)


def _sub_actions(description: Description) -> pd.DataFrame:
    actions, excess = description.actions, description.actions.beyond_chance
    rows = []
    for i, choices in enumerate(actions.nvec):
        shares, others = actions.shares[i, :choices], np.delete(excess[i], i)
        rows.append(
            {
                "sub-action": str(i),
                "choices": str(choices),
                "never taken": _listed(actions.never_taken[i]),
                **({} if actions.allowed is None else {"allowed": f"{actions.allowed[i]:.1%}"}),
                "rarest": f"{shares.min():.2%}",
                "commonest": f"{shares.max():.2%}",
                "entropy": f"{actions.entropy[i]:.3f}",
                "of": f"{np.log2(choices):.3f}",
                "effective choices": f"{actions.effective_choices[i]:.2f}",
                "others tell": f"{others.mean():.4f}" if len(others) else "–",
            }
        )
    return pd.DataFrame(rows)


def _pairs(description: Description) -> pd.DataFrame:
    actions = description.actions
    first, second = np.triu_indices(len(actions.nvec), 1)
    bits, chance = actions.mutual_information[first, second], actions.chance[first, second]
    return pd.DataFrame(
        {
            "pair": f"{first[k]} and {second[k]}",
            "mutual information": f"{bits[k]:.5f}",
            "by chance": f"{chance[k]:.5f}",
        }
        for k in np.argsort(chance - bits, kind="stable")[:PAIRS]
    )


def _range(values: Any) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _listed(numbers: list[int]) -> str:
    """Rising numbers with runs contracted, e.g. ``0, 3–5``; of many runs only the first `RUNS`."""
    runs: list[list[int]] = []
    for each in numbers:
        if runs and runs[-1][-1] == each - 1:
            runs[-1][1:] = [each]
        else:
            runs.append([each])
    shown = ["–".join(map(str, run)) for run in runs[:RUNS]]
    return ", ".join(shown + ["…"] * (len(runs) > RUNS)) or "none"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and not np.isfinite(value) else value
