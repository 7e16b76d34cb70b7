"""The command on small stores: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import attrs
import numpy as np
import pytest

from spinrl.data import Episode, SourceRecord, Store, StoreWriter
from spinrl.specs import ActionSpec
from tests.data.store_samples import random_episode, write_store
from tools.describe_dataset import main

SPEC = ActionSpec((3, 12, 2))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    rng = np.random.default_rng(0)
    actions = rng.integers(0, SPEC.nvec, (300, 3))
    actions[:, 1] = actions[:, 0] + 4 * actions[:, 2]  # 0–2 and 4–6
    observations = rng.normal(size=(301, 4)).astype(np.float32)
    observations[:, 3] = 7
    last = np.arange(300) == 299
    episode = Episode(
        observations=observations, actions=actions, rewards=np.ones(300), terminated=last, truncated=last & ~last
    )
    path = tmp_path / "stores" / "robot"
    with StoreWriter(
        path, task="my-robot", bins=None, action_spec=SPEC, observation_size=4, tier="logged",
        sources=[SourceRecord(behavior="human"), SourceRecord(behavior="nobody")],
    ) as writer:  # fmt: skip
        for _ in range(2):
            writer.append(episode)
    return Store.open(path)


def test_a_store_is_described_in_words_and_files(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "made" / "here"
    assert main([str(store.path), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "my-robot, logged" in said and "3 sub-actions of 2 to 12 choices" in said
    assert "600 transitions, 2 episodes" in said and "2 episodes ended by the task, 0 cut" in said
    assert "300 transitions (50.00%)" in said  # the second episode is the first
    assert "constant entries 3 " in said and "6 of 17 choices" in said and "3, 7–11" in said
    assert "300.0 ± 0.0" in said and "nobody" not in said
    assert "0 and 1" in said and "0 observation values, 0 rewards" in said
    names = {"dataset.html", "description.json", "overview.png", "overview.svg", "observations.png", "observations.svg"}
    assert {path.name for path in out.iterdir()} == names


def test_the_numbers_are_plain_json_and_the_page_stands_alone(store: Store, tmp_path: Path) -> None:
    assert main([str(store.path), "--out", str(tmp_path / "out"), "--sample", "100"]) == 0
    text = (tmp_path / "out" / "description.json").read_text()
    assert "NaN" not in text
    numbers = json.loads(text)
    assert numbers["fingerprint"] == store.fingerprint and numbers["duplicates"] == 300
    assert numbers["actions"]["sampled"] == 100 and sum(numbers["actions"]["counts"][0]) == 600
    assert numbers["actions"]["never_taken"] == [[], [3, 7, 8, 9, 10, 11], []]
    assert numbers["observations"]["constant"] == [3] and numbers["episodes"]["returns"]["human"] == [300, 300]
    page = (tmp_path / "out" / "dataset.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 2
    assert all(link.startswith(("data:", "#")) for link in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "Observation entries" in page and "3, 7–11" in page


def test_an_imported_dataset_goes_by_its_name(store: Store, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(store.path, Path(os.environ["SPINRL_HOME"]) / "imported" / "bot")
    assert main(["bot"]) == 0
    assert "my-robot" in capsys.readouterr().out


def test_masks_are_described_by_the_share_that_they_allow(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    allowed = np.ones((5, 3, 12), dtype=bool) & (np.arange(12) < np.array(SPEC.nvec)[:, None])
    allowed[1:, 1, 6:] = allowed[:, 2, 1] = False
    episode = attrs.evolve(random_episode(4, SPEC, 2), actions=np.zeros((4, 3), dtype=int), allowed=allowed)
    write_store(tmp_path / "masked", [episode], SPEC, 2, bins=None)
    assert main([str(tmp_path / "masked"), "--out", str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "50% to 100% a sub-action; 1 of 17 never" in said and "62.5%" in said
    numbers = json.loads((tmp_path / "out" / "description.json").read_text())["actions"]
    assert numbers["allowed"] == [1, 0.625, 0.5] and numbers["never_allowed"] == [[], [], [1]]
    assert "62.5%" in (tmp_path / "out" / "dataset.html").read_text()


def test_what_cannot_be_described_is_one_line(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert main([str(store.path), "--out", str(tmp_path / "file")]) == 2
    assert main(["no-such-store"]) == 2
    assert main([str(tmp_path)]) == 2
    action = store.path / "transitions" / "action.memmap"
    action.write_bytes(bytes(action.stat().st_size))
    assert main([str(store.path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert (
        "no imported dataset is called 'no-such-store'" in lines[1]
        and "not a store" in lines[2]
        and "altered" in lines[3]
    )


def test_a_sample_is_at_least_one(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["x", "--sample", "0"])
    assert ended.value.code == 2 and "from 1" in capsys.readouterr().err
