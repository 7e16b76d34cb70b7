"""Scaling is measured on real cells, every one of which is run anew."""

import pytest

from tools import scaling


def test_one_job_after_another_runs_every_cell_each_time(shared_cache, undrawn, monkeypatch, capsys):
    ran = []
    ended = scaling.RunObserver.cell_ended

    def cell_ended(observer, outcome):
        ran.append(outcome.cell.key.seed)
        ended(observer, outcome)

    monkeypatch.setattr(scaling.RunObserver, "cell_ended", cell_ended)
    assert scaling.main(["--jobs", "1", "1", "--cells", "2", "--smoke"]) == 0
    assert ran == [0, 1, 0, 1]
    header, first, second = capsys.readouterr().out.strip().splitlines()
    assert header.split()[0] == "jobs" and first.split()[-1] == second.split()[-1] == "0"


@pytest.mark.parametrize(("given", "said"), [("Experiment.sedes=[1]", "sedes"), ("IQL.gamma='x'", "gamma")])
def test_a_wrong_binding_is_named(given, said, capsys):
    assert scaling.main(["--set", given]) == 2
    assert said in capsys.readouterr().err
