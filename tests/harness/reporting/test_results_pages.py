"""The pages about results say what is stored."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.report import main
from harness.reporting.docs import MARKERS, rendered_docs
from harness.reporting.returns import META_FILE, RETURNS_FILE, to_csv
from harness.reporting.stored import Study, StudyError, text
from tests.harness.synthetic import META, TASKS, table

ROOT = Path(__file__).resolve().parents[3]


def test_the_committed_pages_are_what_the_stored_returns_give() -> None:
    rendered = rendered_docs(ROOT / "results")
    assert [path.relative_to(ROOT).as_posix() for path in rendered] == ["docs/results.md", "README.md"]
    for path, expected in rendered.items():
        assert path.read_text() == expected, f"{path.name}: run python -m harness.report --docs results"
    page, readme = rendered.values()
    assert page.count("\n") < 150
    block = readme.partition(MARKERS[0])[2].partition(MARKERS[1])[0]
    assert sum(line.startswith("|") for line in block.splitlines()) <= 8


@pytest.fixture
def study(tmp_path: Path) -> Study:
    rows = table(("factored", "spin"), ("medium", "expert"), seeds=3, tasks=TASKS)
    (tmp_path / RETURNS_FILE).write_text(to_csv(rows))
    (tmp_path / META_FILE).write_text(META.to_json())
    return Study.read(tmp_path)


def test_the_numbers_of_a_study(study: Study) -> None:
    full = study.table[study.table["fraction"] == 1].groupby(["policy", "task", "tier"])["return"].mean()
    assert (study.seeds, study.episodes, study.steps) == ("3 seeds", 4, 2000)
    assert study.meta == META
    assert study.mean("spin") == pytest.approx(full["spin"].mean())
    found = study.interval("spin")
    assert found is not None and found.low < found.value < found.high and found.over == "seeds"
    best = full.unstack("policy").idxmax(axis=1)
    assert study.led("spin") == [f"{task} {tier}" for task in sorted(TASKS) for tier in ("medium", "expert")
                                 if best[task, tier] == "spin"]  # fmt: skip
    assert study.behind("factored")[0].startswith("cheetah-run medium (")
    less = study.difference("spin", "factored")
    assert less.value == pytest.approx((full["spin"] - full["factored"]).mean()) and less.low < less.value
    expert = study.only(tier="expert")
    assert expert.mean("spin") == pytest.approx(full["spin"][:, "expert"].mean())
    shares = study.summary.query("policy == 'spin' and fraction == 0.01")["share"]
    assert study.mean("spin", 0.01, "share") == pytest.approx(shares.mean())
    grid = study.grid("tier")
    assert grid["tier"].tolist() == ["medium", "expert", "average"] and grid["spin"].tolist()[2] == text(found)


def test_a_policy_that_lacks_a_dataset_has_no_mean(study: Study) -> None:
    lacking = study.table[(study.table["policy"] == "factored") | (study.table["task"] == TASKS[0])]
    summary = study.summary[(study.summary["policy"] == "factored") | (study.summary["task"] == TASKS[0])]
    some = Study("some", lacking, summary, META)
    assert np.isnan(some.mean("spin")) and some.interval("spin") is None
    assert some.grid("task")["spin"].tolist()[-1] == "–"


def test_a_folder_is_reported_without_mlflow(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--folder", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "3 seeds of 4 episodes" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "out" / RETURNS_FILE).read_text() == (tmp_path / RETURNS_FILE).read_text()
    assert Study.read(tmp_path / "out").meta == META


def test_what_cannot_be_read_or_rendered_is_one_line(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--folder", str(tmp_path / "none")]) == 2
    assert "has neither returns.csv nor probe.csv" in capsys.readouterr().err
    results = tmp_path / "checkout" / "results"
    (results / "mine").mkdir(parents=True)
    shutil.copy(tmp_path / RETURNS_FILE, results / "mine")
    (results / "results.md.j2").write_text("{{ studies['mine'].mean('spin') | whole }}")
    (results / "readme.md.j2").write_text("{{ studies['other'].mean('spin') }}")
    readme = results.parent / "README.md"
    readme.write_text("no markers")
    with pytest.raises(StudyError, match="no attribute 'other'"):
        rendered_docs(results)
    (results / "readme.md.j2").write_text("short")
    assert main(["--docs", str(results)]) == 2
    assert "put <!-- results --> and <!-- /results --> around them" in capsys.readouterr().err
    readme.write_text(f"before {MARKERS[0]} old {MARKERS[1]} after")
    (page, whole) = rendered_docs(results).values()
    assert page.splitlines()[-1] == f"{study.mean('spin'):,.0f}"
    assert whole.startswith("before ") and whole.endswith(" after") and "old" not in whole and "short" in whole
    with pytest.raises(SystemExit):
        main(["--folder", str(tmp_path), "--log"])
