"""What the command measures of datasets that it makes, on the real chain."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from spinrl.data import collect_episodes, rollouts
from tests.data.importers.test_published import transitions, write
from tools import benchmark_data, collect_dataset
from tools.benchmark_data import Row, main
from tools.measures import memory_in_use, playback


@pytest.mark.slow
def test_every_tier_is_made_measured_and_deleted(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SPINRL_HOME", str(tmp_path / "untouched"))
    figures, folder = tmp_path / "figures.json", tmp_path / "caches"
    folder.mkdir()
    command = ["--task", "cheetah-run", "fish-swim", "--bins", "3", "7", "--tier", "medium", "medium-expert"]
    sizes = ["--transitions", "2000", "--processes", "1", "--steps", "100"]
    assert main([*command, *sizes, "--folder", str(folder), "--json", str(figures)]) == 0
    rows = [Row(**row) for row in json.loads(figures.read_text())]
    cheetah = [row for row in rows if row.task == "cheetah-run"]
    assert [row.tier for row in cheetah] == ["medium", "medium-expert"]
    # The mixed tier is half medium, which was collected for the tier before it.
    assert [row.collected for row in cheetah] == [2000, 1000]
    for row in cheetah:
        assert row.transitions == 2000 and 0.1 < row.megabytes < 1 and row.open_milliseconds < 1000
        assert row.share == row.loop_per_second / row.bare_per_second > 0
        assert row.per_second == row.collected / row.collect_seconds
        assert row.seconds >= row.collect_seconds
    printed = " ".join(capsys.readouterr().out.split())
    assert "left out: no medium behaviour is shipped for cheetah-run with 7 bins" in printed
    assert list(folder.iterdir()) == [] and not (tmp_path / "untouched").exists()


def test_the_bare_speed_is_of_the_very_episodes_that_are_collected():
    options = collect_dataset.parser().parse_args(["--task", "fish-swim", "--tier", "random-medium-expert"])
    experiment, tier = collect_dataset.read_experiment(options)
    for rollout, _count in rollouts(tier, "fish-swim", 3, 2000, experiment.data_seed):
        for number, episode in enumerate(collect_episodes(rollout, 1050)):
            environment, controls = playback(rollout, number, episode.actions)
            np.testing.assert_array_equal([environment.step(values).reward for values in controls], episode.rewards)


def test_what_was_put_together_from_episodes_has_no_speed():
    sizes = dict(collect_seconds=0.0, seconds=1.0, megabytes=1.0, open_milliseconds=1.0, peak_mebibytes=1.0)
    speeds = dict(loop_per_second=None, bare_per_second=None)
    row = Row(task="t", bins=3, tier="expert", transitions=5, collected=0, **sizes, **speeds)
    assert row.per_second is None and row.share is None


def test_published_files_are_imported_measured_and_deleted(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SPINRL_HOME", str(tmp_path / "untouched"))
    figures, folder, file = tmp_path / "figures.json", tmp_path / "caches", write(tmp_path, transitions(50))
    folder.mkdir()
    assert main(["--published", str(file), "--folder", str(folder), "--json", str(figures)]) == 0
    (row,) = json.loads(figures.read_text())
    assert (row["file"], row["transitions"]) == (str(file), 50)
    assert row["file_megabytes"] == file.stat().st_size / 1e6 > row["megabytes"] > 0 < row["seconds"]
    assert "cheetah-run-medium" in capsys.readouterr().out
    assert list(folder.iterdir()) == [] and not (tmp_path / "untouched").exists()
    file.write_bytes(b"no pickle")
    assert main(["--published", str(file), "--folder", str(folder)]) == 1
    error = capsys.readouterr().err
    assert "is refused" in error and error.count("\n") == 1 and list(folder.iterdir()) == []


HOLDING = """
import time
from tools.measures import PeakMemory
with PeakMemory() as memory:
    held = bytearray(b"x" * (64 << 20))
    time.sleep(0.6)
    del held
print(memory.mebibytes)
"""


def test_the_peak_is_of_what_was_held_inside_the_block():
    # In a process of its own: what other tests leave behind is given back at any time, and children of theirs end.
    held = subprocess.run([sys.executable, "-c", HOLDING], capture_output=True, text=True, check=True)
    assert 60 < float(held.stdout) < 200


def test_wrong_words_end_the_command(capsys):
    with pytest.raises(SystemExit):
        main(["--task", "cheetah-runn"])
    assert "invalid choice: 'cheetah-runn'" in capsys.readouterr().err


def test_bins_that_no_task_has_are_refused_in_one_line(tmp_path, capsys):
    assert main(["--task", "cheetah-run", "--bins", "101", "--processes", "1", "--folder", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "from 2 to 100" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_measurement_says_so_and_shows_what_it_has(tmp_path, capsys, monkeypatch):
    def stopped(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark_data, "measure", stopped)
    assert main(["--folder", str(tmp_path)]) == 130
    assert "stopped" in capsys.readouterr().out


def test_memory_is_measured_where_the_system_tells_no_shared_pages(monkeypatch):
    monkeypatch.setattr("psutil.Process.memory_full_info", lambda _process: SimpleNamespace(uss=5))
    monkeypatch.setattr("psutil.Process.children", lambda _process, recursive: [])
    assert memory_in_use() == 5
