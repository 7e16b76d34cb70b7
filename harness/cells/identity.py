"""What makes a cell the same cell, and a study the same study: built from the same fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from harness.experiment import Cell, Experiment
from spinrl.asm import FrozenASM
from spinrl.config import fingerprint, to_plain
from spinrl.data import Store
from spinrl.machine import ResolvedMachine


def asked_of(experiment: Experiment, cell: Cell) -> dict[str, Any]:
    """Plain data of everything that decides a cell's numbers, but for its dataset, its ASM and the machine.

    What only decides how often something is reported, drawn or saved, by how many processes, or where, is left out.
    """
    parts: dict[str, Any] = {
        "key": attrs.asdict(cell.key),
        "policy": to_plain(cell.policy),
        "algorithm": to_plain(cell.algorithm),
        "training": to_plain(attrs.evolve(experiment.training, report_every=1, checkpoint_minutes=1.0)),
        "evaluation": to_plain(attrs.evolve(experiment.evaluation, pictures=False)),
        "standardized": experiment.standardize_observations,
    }
    if simulator := experiment.simulators.get(cell.key.task):
        parts["simulator"] = to_plain(simulator)
    for start in (cell.warm_start, cell.critic_start):
        if start is not None:
            parts[start.kind] = to_plain(attrs.evolve(start, report_every=1))
    return parts


def cell_identity(
    experiment: Experiment, cell: Cell, store: Store, asm: FrozenASM | None, machine: ResolvedMachine
) -> str:
    """Fingerprint of everything that a cell's numbers depend on: only the very same cell may resume."""
    return fingerprint(
        {
            **asked_of(experiment, cell),
            "dataset": store.fingerprint,
            "asm": asm.fingerprint if asm else None,
            "machine": [machine.device, machine.precision, machine.compile, machine.threads],
        }
    )


def _held_out(experiment: Experiment) -> list[Any]:
    """What is held out; as older versions wrote it where they had no other way."""
    if experiment.held_out_sources:
        return [sorted(experiment.held_out_sources)]
    return [experiment.held_out, *([experiment.held_out_by] if experiment.held_out_by != "episodes" else [])]


def study_key(experiment: Experiment, cells: Sequence[Cell]) -> str:
    """Fingerprint of what is asked for; on which machines makes no other study."""
    asked = [
        {
            **asked_of(experiment, cell),
            "tier": to_plain(cell.tier),
            "data": [experiment.transitions, experiment.data_seed, *_held_out(experiment)],
            # An ASM that is read from a file is another one when the file is.
            "asm": cell.pretraining.fingerprint("", 0) if cell.policy.needs_asm else None,
        }
        for cell in cells
    ]
    by_label = sorted(asked, key=lambda each: str(each["key"]))
    return fingerprint({"preset": experiment.preset, "cells": by_label})
