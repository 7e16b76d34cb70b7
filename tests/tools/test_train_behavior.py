"""The command on a training of seconds: what it ships, that it goes on, and what it refuses."""

import errno
import functools
import json
import multiprocessing
import shlex
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from harness.command_line import use_packaged_configs
from spinrl import checkpoint
from spinrl.behaviors import load_behavior, shipped
from spinrl.behaviors.train.decqn import DecQN
from spinrl.behaviors.train.ship import Candidate
from spinrl.config import to_plain
from tools import train_behavior
from tools.train_behavior import configuration, main, parser

TINY = ["hidden=(16,)", "num_actors=1", "envs_per_actor=2", "warmup_steps=1000", "device='cpu'"]
TINY = [word for binding in TINY for word in ("--set", f"DecQN.{binding}")]


@pytest.fixture
def hurried(monkeypatch):
    """Reports every second and judges little, of few episodes."""
    monkeypatch.setattr(train_behavior, "choose", functools.partial(train_behavior.choose, episodes=2, shortlist=1))
    monkeypatch.setattr(train_behavior, "train", functools.partial(train_behavior.train, report_every=1.0))


@pytest.mark.slow
def test_a_training_ships_and_tells_how_it_was_made(tmp_path, capsys, hurried):
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
    (phase,) = card["phases"]
    assert phase["from_updates"] == 0
    assert phase["command"].startswith("python -m tools.train_behavior --task finger-spin --bins 3 --set 'DecQN.hidden")
    assert "DecQN.replay_capacity=2000" in phase["command"]  # as trained, not as shipped
    assert card["configuration"]["fields"]["replay_capacity"] == 2000
    assert card["notes"] == "seconds alone" and card["learning_curve"][-1]["updates"] == updates

    assert main([*command, "--set", "DecQN.replay_capacity=3000"]) == 1
    assert "name another --folder" in capsys.readouterr().err


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Has the command find this expert, of that return, in a folder."""
    config = DecQN(task="finger-spin", hidden=(16,))
    path = tmp_path / "training" / "snapshot-00000010.pt"
    network = config.network().state_dict()
    checkpoint.save({"network": network, "updates": 10, "env_steps": 40, "seconds": 9.0, "greedy": 1.0}, path)

    def returning(value):
        expert = Candidate(path=path, updates=10, env_steps=40, seconds=9.0, returns=(value,))
        monkeypatch.setattr(train_behavior, "choose", lambda *_: {"expert": expert})
        return ["--task", "finger-spin", *TINY, "--folder", str(path.parent), "--ship-only", "--ship"]

    return returning


def test_a_better_expert_stays_unless_it_is_to_be_overwritten(trained, tmp_path, capsys):
    def shipped_return():
        return json.loads((tmp_path / "weights" / "finger-spin-3bins-expert.json").read_text())["return_mean"]

    weights = str(tmp_path / "weights")
    for better in (5.0, 7.5):
        assert main([*trained(better), weights]) == 0 and shipped_return() == better
    before = {path: path.read_bytes() for path in (tmp_path / "weights").iterdir()}
    assert main([*trained(7.4), weights]) == 2
    error = capsys.readouterr().err
    assert "an expert of 7.5, this one returns 7.4" in error and "--overwrite" in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in (tmp_path / "weights").iterdir()} == before
    assert main([*trained(7.4), weights, "--overwrite"]) == 0 and shipped_return() == 7.4


def test_a_shipment_that_fails_leaves_the_weights_that_belong_to_the_card(trained, tmp_path, monkeypatch, capsys):
    weights = tmp_path / "weights"
    assert main([*trained(5.0), str(weights)]) == 0
    before = {path: path.read_bytes() for path in weights.iterdir()}
    write_bytes = Path.write_bytes

    def full(path, data):
        if path.suffix == ".json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main([*trained(6.0), str(weights)]) == 2
    assert "is not shipped" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in weights.iterdir()} == before


def test_a_damaged_card_in_the_way_is_named(trained, tmp_path, capsys):
    weights = tmp_path / "weights"
    assert main([*trained(5.0), str(weights)]) == 0
    (weights / "finger-spin-3bins-expert.json").write_text('{"return_mean": 3.0, ')
    assert main([*trained(6.0), str(weights)]) == 2
    error = capsys.readouterr().err
    assert "finger-spin-3bins-expert.json is damaged" in error and error.count("\n") == 1


def test_trials_are_kept_in_the_card_by_whatever_training_replaces_it(trained, tmp_path):
    card = tmp_path / "weights" / "finger-spin-3bins-expert.json"
    small, large = ("--trial", "batch 32, 10k updates = 3.5"), ("--trial", "DecQN.batch_size=256=4")
    for value, given in ((5.0, small), (6.0, ()), (7.0, (*small, *large))):
        assert main([*trained(value), str(card.parent), *given]) == 0
    wanted = [{"what": "batch 32, 10k updates", "return": 3.5}, {"what": "DecQN.batch_size=256", "return": 4.0}]
    assert json.loads(card.read_text())["trials"] == wanted


def test_a_trial_needs_a_return(capsys):
    with pytest.raises(SystemExit):
        main(["--task", "finger-spin", "--trial", "batch 32"])
    assert "'batch 32' is not of the form WHAT=RETURN" in capsys.readouterr().err


def test_where_nothing_can_be_written_is_said_in_one_line(trained, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([*trained(5.0), str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert "finger-spin-3bins-expert is not shipped" in error and "file" in error and error.count("\n") == 1


@pytest.mark.parametrize("name", shipped())
def test_the_command_in_a_card_asks_for_its_configuration(name):
    task, bins, level = name.rsplit("-", 2)
    card = load_behavior(task, int(bins.removesuffix("bins")), level).card
    commands = [shlex.split(phase["command"]) for phase in card["phases"]]
    assert all(command[:3] == ["python", "-m", "tools.train_behavior"] for command in commands)
    use_packaged_configs()
    configurations = [configuration(parser().parse_args(command[3:])) for command in commands]  # all are valid
    asked, told = to_plain(configurations[-1])["fields"], card["configuration"]["fields"]
    on_any_machine = told.keys() - {"num_actors", "device", "compile"}
    assert {key: asked[key] for key in on_any_machine} == {key: told[key] for key in on_any_machine}


def train_in_haste(command):
    """Train as `command` says, in a process of its own that saves five times a second."""
    train_behavior.train = functools.partial(train_behavior.train, report_every=0.2, save_every=0.2)
    main(command)


@pytest.mark.slow
def test_a_training_has_its_folder_to_itself_and_goes_on_after_a_kill(tmp_path, capsys, hurried):
    folder = tmp_path / "training"
    command = ["--task", "finger-spin", *TINY, "--folder", str(folder), "--ship", str(tmp_path / "weights")]
    command += ["--set", "DecQN.replay_capacity=2000"]
    process = multiprocessing.get_context("spawn").Process(target=train_in_haste, args=(command,))
    process.start()
    try:
        deadline = time.monotonic() + 120
        while not ((folder / "learner.pt").exists() and list(folder.glob("greedy-*.jsonl"))):
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.05)
        assert main(command) == 1
        said = f"another training is at work in {folder}; stop it, or name another --folder\n"
        assert capsys.readouterr().err == said
    finally:
        process.kill()
        process.join()
    killed, far = checkpoint.load(folder / "learner.pt"), 1_000_000  # updates that no training of seconds gets to
    steps = int(np.fromfile(folder / "env_steps.bin", np.int64).sum())
    assert killed["updates"] > 0 and steps >= 1000

    checkpoint.save({**killed, "updates": far}, folder / "learner.pt")
    assert main([*command, "--updates", str(far + 1)]) == 0
    (report,) = (line.split() for line in capsys.readouterr().out.splitlines() if "min left" in line)
    assert int(report[0].replace(",", "")) > far
    assert int(report[2].replace(",", "")) >= steps
    assert checkpoint.load(folder / "learner.pt")["seconds"] > killed["seconds"]


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
        (["--task", "finger-spin", "--folder", __file__], "name another --folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(options, said, tmp_path, capsys):
    assert main(["--folder", str(tmp_path / "none"), *options, "--ship", str(tmp_path / "weights")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "weights").exists()
