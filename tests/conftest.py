"""What every test gets: one thread, a cache of its own, and no tracking server from the environment."""

import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "disable")

import pytest
import torch
from hypothesis import settings

# Shared machines stall: a slow example is not a wrong one.
settings.register_profile("spinrl", deadline=None, max_examples=40)
settings.load_profile("spinrl")


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("SPINRL_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    torch.set_num_threads(threads)
    if "mlflow" in sys.modules:  # registering a model sets it for the whole process
        sys.modules["mlflow"].set_tracking_uri(None)


@pytest.fixture(autouse=True)
def _uncompiled(request, monkeypatch):
    """Compiling takes longer than any training of a test, so machines compile only in tests that are marked."""
    if not request.node.get_closest_marker("compiled"):
        monkeypatch.setattr("spinrl.machine.compiler_available", lambda device: False)


@pytest.fixture
def in_seconds(tmp_path, monkeypatch):
    """Presets at sizes of seconds, in an empty folder."""
    sizes = "Training.gradient_steps = 40\nFittedQ.gradient_steps = 10\nFittedQ.start_steps = 10\n"
    sizes += "".join(f"{name}.steps = 10\n" for name in ("Pretraining", "MonteCarloCritics"))
    (tmp_path / "small.gin").write_text(f"{sizes}Machine.compile = False\nMachine.precision = 'fp32'\n")
    from spinrl.face.fit import PRESETS  # MuJoCo and its kind are imported by those tests alone that need them

    presets = {name: (*files, str(tmp_path / "small.gin")) for name, files in PRESETS.items()}
    monkeypatch.setattr("spinrl.face.fit.PRESETS", presets)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """The CPU, and a GPU where there is one."""
    return request.param


@pytest.fixture(scope="session")
def _smoke_home(tmp_path_factory):
    return tmp_path_factory.mktemp("smoke-home")


@pytest.fixture
def shared_cache(_smoke_home, monkeypatch):
    """A cache that the smoke runs share, so that each dataset is collected once."""
    monkeypatch.setenv("SPINRL_HOME", str(_smoke_home))
    return _smoke_home


@pytest.fixture(scope="session")
def _fresh_store(tmp_path_factory):
    """Makes an MLflow store by copying one, as long as the first has been made: its tables take more than a second."""
    create, template = (
        sys.modules["harness.tracking.connection"]._create_sqlite,
        tmp_path_factory.mktemp("mlflow") / "fresh.db",
    )

    def copy(path):
        create(template)
        if not path.exists():
            shutil.copy(template, path)

    return copy


@pytest.fixture(autouse=True)
def _stores_are_copies(request, monkeypatch):
    if "harness.tracking.connection" in sys.modules and not request.node.get_closest_marker("real_store"):
        monkeypatch.setattr("harness.tracking.connection._create_sqlite", request.getfixturevalue("_fresh_store"))


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are files without content, for tests of runs whose figures take longer than their training."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda _figure, path, **_: Path(path).touch())


def pytest_collection_modifyitems(items):
    """Tests marked gpu skip themselves without one."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
