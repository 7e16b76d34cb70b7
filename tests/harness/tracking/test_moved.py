"""A project folder that was moved or copied: its artifacts are those beside its database."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from harness.tracking.connection import TrackingError, ask, check_address, connect, store_uri
from harness.tracking.moved import follow_artifacts
from harness.tracking.operations import MlflowClient


def opened(project: Path) -> tuple[MlflowClient, str]:
    return connect(f"sqlite:///{project}/mlflow.db", "e", project, 10.0)


def write_run(project: Path, text: str) -> str:
    client, experiment = opened(project)
    run = client.create_run(experiment).info.run_id
    client.log_text(run, text, "said.txt")
    return run


def text_of(project: Path, run: str, folder: Path) -> str:
    folder.mkdir()
    return Path(opened(project)[0].download_artifacts(run, "said.txt", str(folder))).read_text(encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "мой проект #1 (50%)"
    folder.mkdir()
    return folder


def test_a_project_that_was_moved_has_its_artifacts_and_leaves_nothing_behind(
    project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    earlier = write_run(project, "earlier")
    moved = project.rename(tmp_path / "moved")
    assert text_of(moved, earlier, tmp_path / "a") == "earlier"
    assert f"mlflow.db was moved or copied: its artifacts are those in {moved}/mlruns, not in" in capfd.readouterr().err
    later = write_run(moved, "later")
    assert (moved / "mlruns" / later / "artifacts" / "said.txt").read_text() == "later"
    assert not project.exists() and capfd.readouterr().err == ""


def test_a_copy_and_the_original_keep_to_themselves(project: Path, tmp_path: Path) -> None:
    write_run(project, "shared")
    copied = shutil.copytree(project, tmp_path / "copied")
    places = {of: of / "mlruns" / write_run(of, of.name) / "artifacts" / "said.txt" for of in (copied, project)}
    assert all(place.read_text() == of.name for of, place in places.items())


def test_a_database_without_its_artifacts_says_where_they_belong(
    project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    earlier = write_run(project, "earlier")
    (tmp_path / "alone").mkdir()
    shutil.move(project / "mlflow.db", tmp_path / "alone")
    project.rename(tmp_path / "elsewhere")
    opened(tmp_path / "alone")
    assert f"which is gone; put them into {tmp_path}/alone/mlruns" in capfd.readouterr().err
    (tmp_path / "elsewhere" / "mlruns").rename(tmp_path / "alone" / "mlruns")
    assert text_of(tmp_path / "alone", earlier, tmp_path / "a") == "earlier"


def test_artifacts_that_are_kept_elsewhere_stay_there(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    for name in ("elsewhere/mlruns", "mlruns"):
        (tmp_path / name).mkdir(parents=True)
    places = [
        (tmp_path / "elsewhere" / "mlruns").as_uri(),
        "s3://bucket/mlruns",
        "mlflow-artifacts:/mlruns",
        "mlruns/0",
    ]
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE experiments (artifact_location)")
        connection.execute("CREATE TABLE runs (run_uuid, artifact_uri)")
        connection.executemany("INSERT INTO experiments VALUES (?)", [(place,) for place in places])
        connection.executemany("INSERT INTO runs VALUES ('r', ?)", [(f"{place}/r/artifacts",) for place in places])
    assert follow_artifacts(database) == []
    with sqlite3.connect(database) as connection:
        assert [place for (place,) in connection.execute("SELECT artifact_location FROM experiments")] == places


def test_no_database_of_mlflows_is_left_alone(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "empty.db").close()
    assert follow_artifacts(tmp_path / "empty.db") == []


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store_uri("sqlite:///~/exp/mlflow.db") == f"sqlite:///{tmp_path}/exp/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///~/mlflow.db")
    assert store_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("./mlruns", "sqlite:///mlflow.db"),
        ("file:/a/mlruns", "sqlite:////a/mlflow.db"),
        ("/a/mlruns", "sqlite:////a/mlflow.db"),
        ("exp/other.db", "sqlite:///exp/other.db"),
    ],
)
def test_a_store_in_a_folder_is_refused_with_what_to_type(
    given: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrackingError, match=f"{given} would be; give --tracking-uri {meant} .*MLFLOW_ALLOW_FILE_STORE"):
        store_uri(given)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert store_uri(given) == given


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError, match=r"file cannot be written.*give --tracking-uri"):
        connect(f"sqlite:///{tmp_path}/file/mlflow.db", "e", tmp_path, 10.0)
    check_address(f"sqlite:///{tmp_path}/not/there/mlflow.db")
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_a_store_of_another_mlflow_is_said_to_be_older_or_newer(tmp_path: Path) -> None:
    opened(tmp_path)
    for revision, said in (
        ("abcdef012345", "is of a newer MLflow than"),
        ("0a8213491aaa", "mlflow db upgrade sqlite:"),
    ):
        copy = tmp_path / revision
        copy.mkdir()
        shutil.copy(tmp_path / "mlflow.db", copy)
        with sqlite3.connect(copy / "mlflow.db") as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        with pytest.raises(TrackingError, match=said):
            ask(f"sqlite:///{copy}/mlflow.db", lambda client: client.search_experiments(), copy)
