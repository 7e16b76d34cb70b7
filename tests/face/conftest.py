"""Data and a policy that all tests of this folder share."""

import pytest

import spinrl
from tests.face.samples import CHOICES, arrays, fit


@pytest.fixture(scope="package", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINRL_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="package")
def data():
    return spinrl.Dataset.from_arrays(**arrays(), choices=CHOICES)


@pytest.fixture(scope="package")
def parts(data):
    return data.split(0.1, seed=0)


@pytest.fixture(scope="package")
def factored(parts):
    return fit(parts[0])
