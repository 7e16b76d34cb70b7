"""What is wrong is told in one line, which says what was expected and what was found."""

import numpy as np
import pytest

import spinrl
from spinrl import checkpoint
from tests.face.samples import CHOICES, arrays, fit

ROWS = arrays()["observations"]


def made(**changed):
    """A dataset of the arrays, some of them changed."""
    return spinrl.Dataset.from_arrays(**{**arrays(), "choices": CHOICES, **changed})


def with_nan(name):
    values = arrays()[name].astype(np.float32)
    values[7] = np.nan
    return {name: values}


def of_another_version(policy, folder):
    """What loading a policy says that another spinrl saved."""
    policy.save(folder)
    file = folder / "policy.pt"
    checkpoint.save({**checkpoint.load(file), "format_version": 99}, file)
    return spinrl.load(folder)


DATA = {
    "actions outside the choices": (
        lambda: made(choices=[3, 2, 4]),
        "expected 0 to 3 for sub-action 2, found 4 in row",
    ),
    "actions that are not whole": (lambda: made(actions=arrays()["actions"] + 0.5), "expected a whole number"),
    "lengths that differ": (
        lambda: made(rewards=np.zeros(299)),
        "rewards must have a row for each of the 300 observations; found 299",
    ),
    "observations without a value": (lambda: made(**with_nan("observations")), r"has no value \(nan\) in row 7.*mean"),
    "rewards without a value": (lambda: made(**with_nan("rewards")), r"rewards.*nan.*row 7"),
    "choices missing": (lambda: made(choices=None), r"how many choices.*give choices=\[3,2,5\], or more"),
    "rows that do not follow one another": (
        lambda: made(next_observations=ROWS),
        "give step_column='NAME', or episode_length=1, which keeps each by itself",
    ),
}
# Of a policy, the data that it is trained on, and a folder.
USE = {
    "an environment with other spaces": (
        lambda policy, train, folder: policy.evaluate("humanoid-stand"),
        "gives 67 observation entries; the policy was trained on",
    ),
    "no environment": (lambda policy, train, folder: policy.evaluate(), "give an environment"),
    "nothing to film": (lambda policy, train, folder: policy.render("x.mp4"), "give an environment"),
    "another size of observation": (
        lambda policy, train, folder: policy.act(ROWS[0, :3]),
        "observation must be 4 numbers, or rows of them; found 3",
    ),
    "an observation without a value": (
        lambda policy, train, folder: policy.act(np.full(4, np.nan)),
        "observation must be finite numbers",
    ),
    "no choice allowed": (
        lambda policy, train, folder: policy.act(ROWS[0], allowed=np.zeros((3, 5), bool)),
        "at least one choice",
    ),
    "a log-probability outside the choices": (
        lambda policy, train, folder: policy.log_prob(ROWS[0], [3, 0, 0]),
        r"within the choices \[3, 2, 5\]",
    ),
    "a policy of another version": (
        lambda policy, train, folder: of_another_version(policy, folder),
        "has format 99, this spinrl reads 1",
    ),
    "no policy": (lambda policy, train, folder: spinrl.load(folder / "none"), "does not exist"),
    "a share": (lambda policy, train, folder: train.split(1.5), "share must be a number above 0 and below 1"),
    "a share and sources": (
        lambda policy, train, folder: train.split(0.1, sources=["test"]),
        "a share, such as 0.1, or sources, such as .*; give one of them",
    ),
    "sources as one word": (
        lambda policy, train, folder: train.split(sources="test"),
        "sources must be a list of names; found 'test'",
    ),
    "sources that are not there": (
        lambda policy, train, folder: train.split(sources=["test"]),
        "no episodes of 'test' to hold out",
    ),
    "a class in place of a policy": (
        lambda policy, train, folder: fit(train, spinrl.SPIN),
        r"policy must be a policy such as spinrl.SPIN\(\); found the class SPIN",
    ),
    "a preset": (
        lambda policy, train, folder: fit(train, preset="labtop"),
        "preset must be quick, laptop, workstation, paper or None; found 'labtop'",
    ),
    "arrays in place of a dataset": (lambda policy, train, folder: fit(ROWS), "train must be a Dataset"),
}


@pytest.mark.parametrize("name", [*DATA, *USE])
def test_what_is_wrong_is_told_in_one_line(name, request, tmp_path):
    with pytest.raises(spinrl.UserError) as refused:
        if name in DATA:
            wrong, message = DATA[name]
            wrong()
        else:
            wrong, message = USE[name]
            wrong(request.getfixturevalue("factored"), request.getfixturevalue("parts")[0], tmp_path)
    refused.match(message)
    told = str(refused.value)
    assert "\n" not in told and "--" not in told  # options of the command line are not Python's
    assert name not in DATA or "tmp" not in told  # nor are the files that arrays pass through
