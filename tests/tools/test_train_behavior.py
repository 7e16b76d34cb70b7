"""The command on a training of seconds: what it ships, that it goes on, and what it refuses."""

import functools
import json
import shutil

import pytest

from spinrl import checkpoint
from tools import train_behavior
from tools.train_behavior import main

TINY = ["hidden=(16,)", "num_actors=1", "envs_per_actor=2", "warmup_steps=1000", "device='cpu'"]
TINY = [word for binding in TINY for word in ("--set", f"DecQN.{binding}")]


@pytest.mark.slow
def test_a_training_ships_and_tells_how_it_was_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_behavior, "choose", functools.partial(train_behavior.choose, episodes=2, shortlist=1))
    monkeypatch.setattr(train_behavior, "train", functools.partial(train_behavior.train, report_every=1.0))
    folder, ship = tmp_path / "training", tmp_path / "weights"
    command = ["--task", "finger-spin", *TINY, "--folder", str(folder), "--ship", str(ship)]
    assert main([*command, "--set", "DecQN.replay_capacity=2000", "--updates", "300"]) == 0
    printed = capsys.readouterr().out
    assert "min left" in printed and "expert:" in printed and (folder / "learning_curve.png").stat().st_size
    updates = checkpoint.load(folder / "learner.pt")["updates"]
    assert updates >= 300
    assert {path.name for path in ship.iterdir()} == {
        f"finger-spin-3bins-{level}.{ending}" for level in ("expert", "medium") for ending in ("json", "safetensors")
    }

    shutil.rmtree(ship)
    assert main([*command, "--ship-only", "--notes", "seconds alone"]) == 0
    assert checkpoint.load(folder / "learner.pt")["updates"] == updates  # nothing was trained for it
    card = json.loads((ship / "finger-spin-3bins-expert.json").read_text())
    assert card["made_by"].startswith("python -m tools.train_behavior --task finger-spin --bins 3 --set 'DecQN.hidden")
    assert card["notes"] == "seconds alone" and card["learning_curve"][-1]["updates"] == updates

    assert main([*command, "--set", "DecQN.replay_capacity=3000"]) == 1
    assert "name another --folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "finger-spinn"], "did you mean 'finger-spin'"),
        (["--task", "finger-spin", "--bins", "1"], "from 2 to 100"),
        (["--task", "finger-spin", "--set", "DecQN.epsilom=0.1"], "did you mean epsilon"),
        (["--task", "finger-spin", "--gin", "nowhere.gin"], "nowhere.gin"),
        (["--task", "finger-spin", "--start-from", "7"], "no expert behaviour is shipped for finger-spin with 7 bins"),
        (["--task", "cheetah-run", "--start-from", "3", "--set", "DecQN.hidden=(8,)"], "DecQN.hidden=(256, 256)"),
        (["--task", "finger-spin", "--ship-only"], "holds no snapshot"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(options, said, tmp_path, capsys):
    assert main([*options, "--folder", str(tmp_path / "none"), "--ship", str(tmp_path / "weights")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "weights").exists()
