import shutil
from io import StringIO
from pathlib import Path

import attrs
import pytest
from rich.console import Console
from synthetic import META, table

from harness.figures import figures, policy_styles, save
from harness.records import ReportMeta, from_frame, merge, read_csv, to_frame
from harness.report import console_report, main, markdown_report, write_report
from harness.statistics import summarize
from harness.tracking import Tracker


def console_text(*arguments: object, width: int = 80) -> str:
    text = StringIO()
    Console(file=text, width=width).print(console_report(*arguments))  # type: ignore[arg-type]
    return text.getvalue()


def test_the_console_report_fits_eighty_columns_and_says_everything() -> None:
    rows = table()
    text = console_text(rows, META)
    assert "…" not in text
    # Every row on one line: a wrapped cell would leave lines without a number's column.
    assert sum(line.lstrip().startswith("random-medium-expert ") for line in text.splitlines()) == 4 * 4 + 2
    assert sum(line.count("±") for line in text.splitlines()) == 4 * 4 * 6 + 1
    assert all(line.count("±") in (0, 1, 6) for line in text.splitlines())
    for word in (
        "random-medium-expert",
        "autoregressive",
        "100%",
        "time to target",
        "2 seeds of 4 episodes",
        "average",
    ):
        assert word in text
    full = rows[(rows["policy"] == "spin") & (rows["tier"] == "expert") & (rows["fraction"] == 1)]
    assert f"{full['return'].mean():.0f}±" in text


def test_the_markdown_report_has_the_numbers() -> None:
    rows = table(policies=("spin",), tiers=("expert",), seeds=1)
    text = markdown_report(rows, META)
    mean = rows.loc[rows["fraction"] == 1, "return"].mean()
    (line,) = [line for line in text.splitlines() if line.startswith("| spin | expert |") and "[" in line]
    assert line.split("|")[-2].strip().startswith(f"{mean:.1f} [")
    assert "1 seed of 4 episodes" in text
    # Without a factored row there is no target, which is not the same as never reaching it.
    assert "never" not in text and "| – | – |" in text


def test_presets_and_estimates_are_never_mixed() -> None:
    rows = table(policies=("spin",), tiers=("expert",), seeds=1)
    paper = to_frame(from_frame(rows), preset="paper")
    estimate = to_frame(from_frame(rows), preset="laptop", metric="fqe")
    text = markdown_report(merge([rows, paper, estimate]), META)
    for title in ("IQL, laptop preset: mean", "IQL, paper preset: mean", "IQL, laptop preset, fqe: mean"):
        assert title in text


def test_a_report_of_nothing_says_so() -> None:
    empty = to_frame([], preset="laptop")
    assert "no evaluation" in console_text(empty, META)
    assert "No evaluation" in markdown_report(empty, META)


def test_a_written_report_is_complete_and_repeats(tmp_path: Path) -> None:
    rows = table(policies=("factored", "spin"), tiers=("medium", "expert"))
    paths = write_report(rows, META, tmp_path)
    assert {path.suffix for path in paths} == {".png", ".svg", ".md", ".csv"}
    assert all(path.stat().st_size > 500 for path in paths)
    text = (tmp_path / "report.md").read_text()
    assert all(f"({path.name})" in text for path in paths if path.suffix == ".png")
    assert read_csv(tmp_path / "returns.csv").equals(rows)
    svg = (tmp_path / "curves_humanoid-stand_3bins_iql_laptop.svg").read_text()
    for word in ("factored", "spin", "expert", "random", "gradient steps", "Episode return", "pre-training"):
        assert word in svg


def test_figures_show_what_the_summary_says() -> None:
    summary = summarize(table(policies=("spin",), tiers=("expert",), seeds=1), META)
    (curve_name, curves), (table_name, heat) = figures(summary, META)
    assert curve_name.startswith("curves_") and table_name.startswith("table_")
    steps, seconds = curves.axes[:2]
    assert steps.lines[0].get_ydata().tolist() == summary["mean"].tolist()  # type: ignore[union-attr]
    assert seconds.lines[0].get_xdata()[0] == pytest.approx(60.6)  # type: ignore[index]
    assert steps.get_ylim()[0] == 0
    assert f"{summary['mean'].iloc[-1]:.0f} ± " in heat.axes[0].texts[-1].get_text()


def test_a_figure_copes_with_what_an_interrupted_run_leaves(tmp_path: Path) -> None:
    rows = table(policies=("factored", "spin"), tiers=("medium", "expert"), seeds=1)
    partial = rows[(rows["policy"] == "spin") | (rows["fraction"] < 0.02)]
    partial = partial[(partial["tier"] == "expert") | (partial["policy"] == "spin")]
    summary = summarize(partial, ReportMeta(experiment="x"))  # and no reference returns either
    stems = [stem for stem, figure in figures(summary, ReportMeta(experiment="x")) if save(figure, tmp_path, stem)]
    assert len(stems) == 2


def test_policies_look_different_and_always_the_same() -> None:
    styles = policy_styles(["spin", "mine", "other", "factored"])
    assert len(set(styles.values())) == 4
    assert styles["spin"] == policy_styles(["spin"])["spin"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with four invocations of one experiment, a policy each, and one stopped re-run."""
    directory = tmp_path_factory.mktemp("store")
    invocations = [(policy, table(policies=(policy,), seeds=1)) for policy in ("factored", "saint", "spin")]
    stopped = invocations[2][1]
    invocations.append(("spin again", stopped[stopped["fraction"] < 0.1].assign(**{"return": 0.0})))
    for name, rows in invocations:
        tracker = Tracker.open(
            f"sqlite:///{directory / 'mlflow.db'}", "spin-humanoid", directory=directory, period=0.05
        )
        parent = tracker.start_parent(name, params={}, tags={}, given_text="", resolved_text="")
        parent.results(rows, attrs.evolve(META, experiment="spin-humanoid"))
        parent.finish()
        assert tracker.close(30) is None
    return directory


def test_a_report_from_the_store_alone_merges_invocations(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(store)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["--experiment", "spin-humanoid"]) == 0
    text = (store / "report" / "report.md").read_text()
    assert "| tier | factored | saint | spin |" in text
    assert len(read_csv(store / "report" / "returns.csv")) == 3 * 4 * 6 * 4
    assert "normalized score by tier and policy" in capsys.readouterr().out


def test_a_wrong_experiment_is_one_line_with_the_nearest(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(store)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["--experiment", "spin-humanid", "--out", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "did you mean 'spin-humanoid'?" in error
    assert not (tmp_path / "none").exists()


def test_other_faults_are_one_line_too(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["--experiment", "spin-humanoid"]) == 2
    assert "there is no MLflow store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    broken = tmp_path / "broken"
    shutil.copytree(store, broken)
    (broken / "mlflow.db").write_bytes(b"no database")
    monkeypatch.chdir(broken)
    assert main(["--experiment", "spin-humanoid"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
