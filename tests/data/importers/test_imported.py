"""Recipes for datasets from elsewhere: found by name or path, imported once, checked against the task."""

from __future__ import annotations

from pathlib import Path

import pytest

from spinrl.data import BuildOptions, HoldingOut, Imported, Published, StoreError, imported_folder
from spinrl.data.importers.published import DATA_DIR
from spinrl.specs import ActionSpec
from tests.data.importers.test_published import transitions, write
from tests.data.store_samples import random_episode, write_store

SPEC = ActionSpec((3, 2))
EPISODES = [random_episode(4, SPEC, 5, seed=n) for n in range(3)]


def test_an_imported_dataset_is_found_by_its_name(tmp_path: Path) -> None:
    write_store(imported_folder("clinic"), EPISODES, SPEC, 5, task="clinic", bins=None)
    plan = Imported().plan("logged", "clinic", 0, 10**6, 0)
    assert (plan.transitions, plan.observation_size, plan.action_spec) == (12, 5, SPEC)
    assert plan.unwritten == 0 and not plan.parts and plan.held_out() is None
    assert plan.store().path == imported_folder("clinic")


def test_an_imported_dataset_is_found_by_its_path(tmp_path: Path) -> None:
    write_store(tmp_path / "clinic" / "night", EPISODES, SPEC, 5, task="clinic", bins=None)
    recipe = Imported(store=f"{tmp_path}/{{task}}/{{tier}}")
    assert len(recipe.plan("night", "clinic", 0, 10**6, 0).store()) == 12
    with pytest.raises(StoreError, match=r"no imported dataset is called '.*/day'.*tools\.import_dataset"):
        recipe.plan("day", "clinic", 0, 10**6, 0)


def test_a_store_of_another_task_or_number_of_bins_is_refused() -> None:
    write_store(imported_folder("mine"), EPISODES, SPEC, 5, task="clinic", bins=None)
    with pytest.raises(StoreError, match="expected task 'traffic', found 'clinic'"):
        Imported(store="mine").plan("logged", "traffic", 0, 10**6, 0)
    with pytest.raises(StoreError, match="expected bins 3, found None"):
        Imported(store="mine").plan("logged", "clinic", 3, 10**6, 0)
    with pytest.raises(ValueError, match=r"store can hold \{task\}, \{bins\} and \{tier\}"):
        Imported(store="{seed}")


def test_held_out_episodes_are_not_trained_on() -> None:
    write_store(imported_folder("clinic"), EPISODES, SPEC, 5, task="clinic", bins=None)
    plan = HoldingOut(Imported().plan("logged", "clinic", 0, 10**6, 0), 0.3, 0)
    assert plan.cached() is None and plan.unwritten == 12
    training = plan.store()
    held_out = plan.held_out()
    assert held_out is not None and (len(training), len(held_out)) == (8, 4)
    cached = plan.cached()
    assert cached is not None and cached.path == training.path and plan.unwritten == 0


def test_a_published_file_is_imported_when_it_is_first_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, transitions())
    monkeypatch.setenv(DATA_DIR, str(tmp_path / "published"))
    plan = Published().plan("medium", "cheetah-run", 3, 10**6, 0)
    assert plan.cached() is None and plan.unwritten > 0 and plan.action_spec.nvec == (3,) * 6
    seen: list[tuple[int, int]] = []
    store = plan.store(BuildOptions(progress=lambda *each: seen.append(each)))
    assert len(store) == 30 and seen[-1][0] == seen[-1][1]
    again = Published(folder=str(tmp_path / "published")).plan("medium", "cheetah-run", 3, 10**6, 0)
    assert again.transitions == 30 and again.unwritten == 0 and again.store().path == store.path
    with pytest.raises(StoreError, match=r"there is no file .*3_bins/cheetah-run-expert"):
        Published().plan("expert", "cheetah-run", 3, 10**6, 0)
