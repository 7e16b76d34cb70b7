import re
import shutil
import subprocess
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import attrs
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from harness import report
from harness.report import console_report, main, write_report
from harness.reporting.cells import bounded, half_width
from harness.reporting.comparison_figures import comparison_figures
from harness.reporting.comparisons import asymptotic_runs
from harness.reporting.figures import figures, policy_styles, save
from harness.reporting.markdown import markdown_page
from harness.reporting.returns import ReportMeta, from_frame, merge, read_csv, to_frame
from harness.reporting.sections import notes, sections
from harness.reporting.statistics import shown_fractions, summarize
from harness.reporting.tables import asm_length_tables
from harness.tracking.connection import connect
from harness.tracking.tracker import Tracker
from tests.harness.synthetic import FRACTIONS, META, TASKS, table

STYLES = policy_styles(["factored", "autoregressive", "saint", "spin", *(f"spin-asm-{n}%" for n in (5, 20, 100))])


def console_text(*arguments: object, width: int = 80) -> str:
    text = StringIO()
    Console(file=text, width=width).print(console_report(*arguments))  # type: ignore[arg-type]
    return text.getvalue()


def markdown(rows: pd.DataFrame, meta: ReportMeta) -> str:
    """The Markdown report, without figures."""
    return markdown_page(meta.experiment, sections(rows, summarize(rows, meta), meta, []), (), notes(rows))


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
    text = markdown(rows, META)
    mean = rows.loc[rows["fraction"] == 1, "return"].mean()
    (line,) = [line for line in text.splitlines() if line.startswith("| spin | expert |") and "[" in line]
    assert line.split("|")[-2].strip().startswith(f"{mean:.1f} [")
    assert "1 seed of 4 episodes" in text and line.count("] episodes |") == 6
    # Without a factored row there is no target, which is not the same as never reaching it.
    assert "never" not in text and "| – | – |" in text


def estimates(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    results = [(key, attrs.evolve(evaluation, metric=metric)) for key, evaluation in from_frame(rows)]
    return to_frame(results, preset="laptop")


def test_presets_are_never_mixed() -> None:
    rows = table(policies=("spin",), tiers=("expert",), seeds=1)
    paper = to_frame(from_frame(rows), preset="paper")
    text = markdown(merge([rows, paper]), META)
    for title in ("IQL, laptop preset: mean", "IQL, paper preset: mean"):
        assert title in text


def test_estimates_stand_apart_from_returns(tmp_path: Path) -> None:
    rows = table(policies=("factored", "spin"), tiers=("expert",), seeds=1)
    text = markdown(pd.concat([rows, estimates(rows, "fitted_q")]), META)
    returns, part = text.split("\n## Estimates\n")
    assert "Estimates from data alone, not returns of a simulator;" in part
    assert "IQL, laptop preset, estimated fitted q, 1 seed" in part and "fitted q" not in returns
    (order,) = [line for line in part.splitlines() if "estimated fitted q | 12 of 12 |" in line]
    assert "| 1.00 [1.00, 1.00] |" in order  # the very returns order the policies as they do
    write_report(pd.concat([rows, estimates(rows, "fitted_q")]), META, tmp_path)
    svg = (tmp_path / "estimates_humanoid-stand_3bins_iql_laptop_fitted_q.svg").read_text()
    assert "Estimated fitted q" in svg and "benchmark" not in svg


def test_estimates_alone_make_a_report() -> None:
    rows = estimates(table(policies=("spin",), tiers=("expert",), seeds=1), "log_likelihood")
    text = markdown(rows, META)
    assert "estimated log likelihood" in text and "Time to target" in text
    assert "## By tier" not in text and "## Learning curves" not in text
    assert "estimated log likelihood" in console_text(rows, META)


def test_a_report_of_nothing_says_so() -> None:
    empty = to_frame([], preset="laptop")
    assert "no evaluation" in console_text(empty, META)
    assert "No evaluation" in markdown(empty, META)


def test_a_written_report_is_complete_and_repeats(tmp_path: Path) -> None:
    rows = table(policies=("factored", "spin"), tiers=("medium", "expert"))
    paths = write_report(rows, META, tmp_path)
    assert {path.suffix for path in paths} == {".png", ".svg", ".html", ".md", ".csv", ".json"}
    assert all(path.stat().st_size > 150 for path in paths)
    text = (tmp_path / "report.md").read_text()
    assert all(f"({path.name})" in text for path in paths if path.suffix == ".png")
    assert read_csv(tmp_path / "returns.csv").equals(rows)
    svg = (tmp_path / "curves_humanoid-stand_3bins_iql_laptop.svg").read_text()
    for word in ("factored", "spin", "expert", "random", "gradient steps", "Episode return", "pre-training"):
        assert word in svg


def page(directory: Path, *arguments: object) -> str:
    """The page of a report, without its images and held to needing nothing else."""
    assert directory / "report.html" in write_report(*arguments, directory)  # type: ignore[arg-type]
    text = (directory / "report.html").read_text()
    images = re.findall(r'<img src="([^"]*)"', text)
    assert len(images) == len(list(directory.glob("*.svg")))
    assert all(image.startswith("data:image/svg+xml;base64,") for image in images)
    assert not re.search(r"<(script|link|iframe|object)", text) and "@import" not in text and "url(" not in text
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', text))
    return re.sub(r'"data:[^"]*"', '""', text)


def rows_of(text: str, title: str) -> list[list[str]]:
    """The cells of the table under the heading that holds `title`."""
    (part,) = [part for part in text.split("<h3>")[1:] if title in part.partition("</h3>")[0]]
    body = part.partition("</table>")[0]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in body.split("<tr>")[1:]]


def test_the_page_holds_the_numbers_beside_the_papers(tmp_path: Path) -> None:
    rows = table(seeds=3, tasks=TASKS, policies=("factored", "spin"), tiers=("medium", "expert"))
    text = page(tmp_path, rows, META)
    full = rows[(rows["fraction"] == 1) & (rows["tier"] == "expert")].groupby("policy")["return"].mean()
    head, *body = rows_of(text, "return by tier (ours over")
    assert head[:4] == ["tier", "factored", "spin", "factored (paper)"] and head[-1] == "spin (paper)"
    (expert,) = [row for row in body if row[0] == "expert"]
    assert expert[1:3] == [f"{full['factored']:.1f}", f"{full['spin']:.1f}"]
    assert expert[3:] == ["778.1", "770.3", "773.1", "778.7"]
    assert body[-1][:4] == ["average", "–", "–", "558.2"]  # of ours two tiers are missing
    _, *shares = rows_of(text, "best asymptotic return, 2 tiers")
    assert [row[0] for row in shares] == ["cheetah-run", "finger-spin", "humanoid-stand", "quadruped-walk", "average"]
    assert "best asymptotic return, expert tier alone" in text
    assert shares[1][1:5] == ["–", "–", "0.37%", "0.70%"]
    _, *aggregates = rows_of(text, "preset: asymptotic score")
    assert [row[:4] for row in aggregates][-1] == ["all tiers", "spin", "4", "12"]
    _, *improvement = rows_of(text, "probability that")
    assert improvement[1][0] == "spin" and re.fullmatch(r"[01]\.\d\d", improvement[1][1])  # three seeds: no interval
    _, *less = rows_of(text, "less that of factored")
    assert [row[0] for row in less] == ["cheetah-run"] * 2 + ["humanoid-stand"] * 2 + ["all"]
    assert re.fullmatch(r"\d+\.\d \[-?\d+, \d+\]", less[-1][-1])
    assert {row[1] for row in rows_of(text, "datasets on which the target was reached")[1:]} == {"2 of 2"}  # factored
    assert 'alt="profile_iql_laptop"' in text
    assert "Settings" not in text  # a table alone does not say how it was made
    # Best checkpoints have a part of their own, after everything else.
    assert text.count("score of the best checkpoint") == 3
    assert text.index("score of the best checkpoint") > text.index('id="s6"') > text.rindex("asymptotic score")


def test_cardinality_stands_beside_the_papers_for_dog_alone(tmp_path: Path) -> None:
    rows = table(("factored", "spin"), ("medium-expert",), tasks=("dog-trot",))
    many = rows.assign(bins=30, **{"return": rows["return"] + 100})
    text = page(tmp_path, merge([rows, many]), META)
    head, *body = rows_of(text, "return on dog-trot, by bins")
    mean = rows[(rows["fraction"] == 1) & (rows["policy"] == "spin")]["return"].mean()
    assert [row[0] for row in body] == ["3", "10", "30", "average"] and head[2] == "spin"
    assert [row[2] for row in body] == [f"{mean:.1f}", "–", f"{mean + 100:.1f}", "–"]  # one is missing
    assert [row[-1] for row in body] == ["647.0", "629.5", "703.9", "660.1"]
    _, *minutes = rows_of(text, "dog-trot: mean minutes to target")
    assert [row[0] for row in minutes] == ["3", "10", "30", "total"]
    assert [row[-1] for row in minutes] == ["–", "–", "–", "237.0"] and float(minutes[0][2]) > 0
    # Dog's minutes are not set beside those that the paper adds up over tasks.
    assert text.count("mean minutes to target") == 1 and "return by tier (ours" not in text


def test_the_papers_numbers_stand_beside_its_algorithm_only(tmp_path: Path) -> None:
    rows = table(("factored", "spin"), ("expert",)).assign(algorithm="bcq")
    assert "(paper)</th>" not in page(tmp_path, rows, META)


def test_names_in_a_page_are_escaped(tmp_path: Path) -> None:
    rows = table(("spin",), ("expert",), seeds=1).assign(policy="<script>x")
    assert "&lt;script&gt;x" in page(tmp_path, rows, ReportMeta(experiment="a & <b>"))


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_page_copes_with_an_interrupted_run(tmp_path: Path, seeds: int) -> None:
    rows = table(("factored", "spin"), ("medium", "expert"), seeds=seeds)
    partial = rows[(rows["policy"] == "spin") | (rows["fraction"] < 0.02)]
    text = page(tmp_path, partial, META)
    _, *aggregates = rows_of(text, "preset: asymptotic score")
    assert {row[1] for row in aggregates} == {"spin"}
    assert all(("[" in row[-1]) == (seeds > 1) for row in aggregates)
    assert ("profile_" in text) == (seeds > 1) and "probability that" not in text
    assert page(tmp_path / "none", rows[rows["fraction"] < 0.02], META).count("<h2") == 2  # curves, and each task
    assert "No evaluation" in page(tmp_path / "empty", rows[:0], META)


def test_the_curve_over_pretraining_shows_what_the_summary_says() -> None:
    policies = ("factored", *(f"spin-asm-{percent}%" for percent in (5, 20, 100)))
    rows = table(policies, ("medium-expert",), seeds=1)
    summary = summarize(rows, META)
    ((stem, figure),) = comparison_figures(summary, asymptotic_runs(rows, META), META, STYLES)
    assert stem == "asm_humanoid-stand_3bins_iql_laptop"
    (line, level) = figure.axes[0].lines
    assert line.get_xdata().tolist() == [5, 20, 100]  # type: ignore[union-attr]
    assert figure.axes[0].get_xlabel() == "ASM pre-training (% of its full length)"
    full = summary[summary["fraction"] == 1].set_index("policy")["mean"]
    assert line.get_ydata().tolist() == [full[policy] for policy in policies[1:]]  # type: ignore[union-attr]
    assert level.get_ydata()[0] == full["factored"]  # type: ignore[index]
    other = {("paper", "humanoid-stand", 3, "medium-expert"): 100.0}
    known = attrs.evolve(META, asm_epochs={("laptop", "humanoid-stand", 3, "medium-expert"): 40.0, **other})
    ((_, figure),) = comparison_figures(summary, asymptotic_runs(rows, known), known, STYLES)
    assert figure.axes[0].lines[0].get_xdata().tolist() == [2, 8, 40]  # type: ignore[union-attr]
    assert figure.axes[0].get_xlabel() == "epochs of ASM pre-training"
    (_, table_of_lengths) = next(asm_length_tables(summary, known))
    assert table_of_lengths["epochs"].tolist() == ["–", "2.0", "8.0", "40.0"]
    share = 100 * full["spin-asm-20%"] / full["factored"]
    assert table_of_lengths["of factored's"].tolist()[::2] == ["100.0%", f"{share:.1f}%"]
    summary.loc[summary["policy"] == "factored", "mean"] = 0.0  # as on finger-spin, which gives no share
    (_, of_nothing) = next(asm_length_tables(summary, known))
    assert of_nothing["of factored's"].tolist() == ["–"] * 4


def test_of_hundreds_of_evaluations_tables_show_the_protocols() -> None:
    marks = tuple(step / 200 for step in range(1, 201))  # the paper's: every 5,000 of a million steps
    rows = table(policies=("spin",), tiers=("expert",), seeds=1, fractions=marks)
    text = markdown(rows, META)
    assert "| policy | tier | 1% | 5% | 10% | 25% | 50% | 100% |" in text
    summary = summarize(rows, META)
    (_, curves), (_, heat) = figures(summary, META, STYLES)
    line = curves.axes[0].lines[0]
    assert len(line.get_xdata()) == 200  # type: ignore[arg-type]
    assert [marks[at] for at in line.get_markevery()] == list(FRACTIONS)  # type: ignore[union-attr]
    assert len(curves.axes[0].get_xticks()) == len(heat.axes[0].get_xticks()) == len(FRACTIONS)
    odd = pd.DataFrame({"fraction": [step / 5000 for step in (*range(300, 5000, 300), 5000)]})
    assert shown_fractions(odd) == [0.06, 0.12, 0.24, 0.48, 1.0]  # where none is the protocol's, those next to it


def test_figures_show_what_the_summary_says() -> None:
    summary = summarize(table(policies=("spin",), tiers=("expert",), seeds=1), META)
    (curve_name, curves), (table_name, heat) = figures(summary, META, STYLES)
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
    stems = [
        stem for stem, figure in figures(summary, ReportMeta(experiment="x"), STYLES) if save(figure, tmp_path, stem)
    ]
    assert len(stems) == 2


def test_what_a_report_says_of_costs_and_of_a_tier_that_has_only_begun(tmp_path: Path) -> None:
    rows = table(policies=("factored", "spin"), tiers=("medium",), seeds=1)
    costs = rows.assign(**{"return": -1.0 - rows["return"]})
    write_report(costs, ReportMeta(experiment="x"), tmp_path)
    assert "never" not in (tmp_path / "report.md").read_text()  # 95% of a cost would be less of it
    marks = tuple(step / 200 for step in range(1, 201))
    whole = table(policies=("spin",), tiers=("medium",), seeds=1, fractions=marks)
    begun = table(policies=("spin",), tiers=("expert",), seeds=1, fractions=marks[:1])
    write_report(pd.concat([whole, begun]), META, tmp_path)


def test_a_policy_has_one_colour_in_all_figures_of_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(policies=("spin-a", "spin-b"), tiers=("expert",), tasks=("humanoid-stand", "cheetah-run"))
    of_b = rows[(rows["policy"] == "spin-b") | (rows["task"] == "humanoid-stand")]
    drawn: list[tuple[str, ...]] = []

    def keep(figure: Figure, _directory: Path, stem: str) -> list[Path]:
        lines = [line for axes in figure.axes for line in axes.lines if str(line.get_label()).startswith("spin-b (")]
        drawn.extend((stem.partition("_")[0], str(line.get_color())) for line in lines)
        (tmp_path / f"{stem}.svg").write_text("<svg/>")
        return []

    monkeypatch.setattr(report, "save", keep)
    write_report(of_b, META, tmp_path)
    assert {kind for kind, _ in drawn} == {"profile", "curves"} and len({colour for _, colour in drawn}) == 1


def test_seeds_that_are_missing_are_counted() -> None:
    rows = table(policies=("factored", "spin"), tiers=("expert",), seeds=3)
    text = markdown(rows[(rows["policy"] == "factored") | (rows["seed"] == 0)], META)
    line, less = [line for line in text.splitlines() if line.startswith("| humanoid-stand | 3 | expert |")]
    assert line.count("seeds)") == 1 and "episodes (1 of 3 seeds)" in line.split("|")[5]
    assert "[" not in less  # the mean of one seed less that of three: an interval would mix seeds and episodes
    assert "ours over humanoid-stand, 3 bins, 1 to 3 seeds of 4 episodes" in text


@pytest.mark.parametrize(("scale", "shown"), [(100.0, "62.0±8"), (10.0, "6.2±0.8"), (1.0, "0.62±0.08")])
def test_small_returns_have_bounds_that_hold_their_mean(scale: float, shown: str) -> None:
    row = SimpleNamespace(mean=0.62 * scale, low=0.54 * scale, high=0.70 * scale, over="seeds")
    assert half_width(row) == shown.replace("62.0", "62")
    row.over = "episodes"
    assert half_width(row).endswith("e") and bounded(row).endswith("] episodes")
    row.over = "seeds"
    low, high = bounded(row).partition(" [")[2].rstrip("]").split(", ")
    assert float(low) < row.mean < float(high)


def test_a_policy_may_be_called_what_rich_takes_for_markup() -> None:
    rows = table(policies=("spin",), tiers=("expert",), seeds=1).assign(policy="spin[/fixed]")
    assert "spin[/fixed]" in console_text(rows, META)


def test_trainings_of_several_budgets_are_told_of() -> None:
    rows = table(policies=("factored", "spin"), tiers=("expert",), seeds=1)
    shorter = rows.assign(gradient_step=rows["gradient_step"].where(rows["policy"] == "spin", 50))
    assert "50 gradient steps: factored; 2,000 gradient steps: spin." in markdown(shorter, META)
    assert "same budget" not in markdown(rows, META)


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
        parent = tracker.start_parent(
            name,
            params={},
            tags={"git_commit": "0123abc", "version.torch": "2.13.0", "version.numpy": "2.4.6"},
            given_text=f"include 'policies/{name}.gin'",
            resolved_text="Training.batch_size = 256",
        )
        parent.publish(rows, attrs.evolve(META, experiment="spin-humanoid"))
        if name == "spin":
            for path in write_report(rows, META, directory / "handed-over"):
                parent.hand_over(path, "report")
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


def test_a_report_from_the_store_shows_how_it_was_made(
    store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(store)
    assert main(["--experiment", "spin-humanoid", "--tracking-uri", "sqlite:///mlflow.db", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text()
    settings = text[text.index('id="settings"') :]
    assert re.findall("<h3>(.*)</h3>", settings) == ["factored", "saint", "spin", "spin again"]
    for shown in ("0123abc", "numpy 2.4.6, torch 2.13.0", "policies/saint.gin", "Training.batch_size = 256"):
        assert shown in settings and shown in (tmp_path / "report.md").read_text()
    assert "mlflow." not in settings and "spinrl.role" not in settings


def test_a_page_handed_over_is_logged_with_the_rest(store: Path) -> None:
    client, experiment_id = connect(f"sqlite:///{store / 'mlflow.db'}", "spin-humanoid", store, 10)
    (run,) = client.search_runs([experiment_id], "attributes.run_name = 'spin'")
    logged = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "report")}
    assert {"report.html", "report.md", "returns.csv"} <= logged


def test_merged_pages_are_logged_to_the_latest_parent_where_asked(
    store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(store)
    where = ["--experiment", "spin-humanoid", "--tracking-uri", "sqlite:///mlflow.db", "--out", str(tmp_path)]
    assert main([*where, "--log"]) == 0
    assert "logged to run spin again" in capsys.readouterr().out
    client, experiment_id = connect(f"sqlite:///{store / 'mlflow.db'}", "spin-humanoid", store, 10)
    (run,) = client.search_runs([experiment_id], "attributes.run_name = 'spin again'")
    logged = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "merged_report")}
    assert logged == {path.name for path in tmp_path.iterdir()} and "report.html" in logged


def test_a_wrong_experiment_is_one_line_with_the_nearest(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(store)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["--experiment", "spin-humanid", "--out", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "did you mean 'spin-humanoid'?" in error
    assert not (tmp_path / "none").exists()


def test_a_deleted_experiment_comes_back_by_the_command_that_is_named(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    copy, command = tmp_path / "it's a copy", ["--experiment", "spin-humanoid", "--out", str(tmp_path / "report")]
    shutil.copytree(store, copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy / 'mlflow.db'}")
    client, experiment = connect(f"sqlite:///{copy / 'mlflow.db'}", "spin-humanoid", copy, 10)
    client.delete_experiment(experiment)
    assert main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "'spin-humanoid' is deleted" in error
    subprocess.run(re.search("MLFLOW_TRACKING_URI=.*", error)[0], shell=True, check=True, capture_output=True)
    assert main(command) == 0


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
