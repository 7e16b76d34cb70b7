"""What is exported is the policy that was trained, whatever reads it, and bad input has a defined answer."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from spinrl import testing as contracts
from spinrl.algorithms import BCQ
from spinrl.errors import UserError
from spinrl.export import (
    FORMATS,
    DeployedPolicy,
    check,
    compare,
    describe,
    load_runner,
    require_agreement,
    write,
)
from spinrl.nn import standardizers
from spinrl.policies import SAINT, SPIN, Autoregressive, Factored
from spinrl.policies.base import IndependentPolicy
from spinrl.specs import ActionSpec
from spinrl.tasks.environment import control_values

SPEC = ActionSpec((3, 1, 4))
CONFIGS = {
    "factored": Factored(hidden=[16, 16]),
    "autoregressive": Autoregressive(state_width=8, action_width=4, lstm_width=16),
    "saint": SAINT(encoder=contracts.SMALL),
    "spin": SPIN(),
}
UNITS = torch.randn(contracts.SIZE), torch.rand(contracts.SIZE) + 0.5
OBSERVATIONS = torch.randn(100, contracts.SIZE, generator=torch.Generator().manual_seed(0))


def trained(name, *, standardised=True):
    """The acting policy of a name, ``bcq-`` before it for BCQ's."""
    config = CONFIGS[name.removeprefix("bcq-")]
    if name.startswith("bcq-"):
        algorithm = contracts.build_algorithm(BCQ(hidden=[16], candidates=3), config, SPEC)
        policy = algorithm.eval().acting_policy().eval()
    else:
        policy = contracts.build_policy(config, SPEC).eval()
    for each in standardizers(policy) if standardised else ():
        each.set(*UNITS)
    return policy


def deployed_from(policy):
    count = len(policy.action_spec.nvec)
    table = control_values(-np.ones(count), np.ones(count), policy.action_spec.nvec)
    return DeployedPolicy(policy, torch.from_numpy(table))


def compared(runner, policy):
    return compare(runner, policy, deployed_from(policy).controls, OBSERVATIONS)


def exported(policy, name, folder):
    deployed = deployed_from(policy)
    folder.mkdir(exist_ok=True)
    card = {"observation_size": policy.observation_size, "nvec": list(policy.action_spec.nvec)}
    (folder / "card.json").write_text(json.dumps({**card, "network": describe(deployed)}))
    (folder / "example.json").write_text(json.dumps(OBSERVATIONS[:2].tolist()))
    write(deployed, name, folder)
    return load_runner(folder, name)


ALL = (*CONFIGS, *(f"bcq-{name}" for name in CONFIGS))
QUICK = {"onnx": ("factored", "spin"), "pt2": ("saint", "bcq-factored"), "safetensors": ALL}


@pytest.mark.parametrize("standardised", [True, False], ids=["standardised", "raw"])
@pytest.mark.parametrize("policy", ALL)
def test_the_deployed_network_decides_as_the_policy(policy, standardised):
    made = trained(policy, standardised=standardised)
    deployed = deployed_from(made)
    noise = torch.randn(100, 3, 4)
    allowed = (torch.rand(100, 3, 4) < 0.6) & SPEC.valid()
    allowed[..., 0] = True
    for given, mask in ((None, None), (noise, allowed)):
        with torch.no_grad():
            action, control, logits = deployed(OBSERVATIONS, given, mask)
            expected, expected_logits = made.decide(OBSERVATIONS, given, mask)
        assert torch.equal(action, expected)
        torch.testing.assert_close(logits, expected_logits, rtol=1e-5, atol=1e-5)
        for slot, choices in enumerate(SPEC.nvec):
            torch.testing.assert_close(control[:, slot], torch.linspace(-1, 1, choices)[action[:, slot]])


@pytest.mark.parametrize("policy", ALL)
def test_where_nothing_can_be_decided_the_network_says_so(policy):
    deployed = deployed_from(trained(policy))
    observation, allowed = OBSERVATIONS[:3].clone(), torch.ones(3, 3, 4, dtype=torch.bool)
    observation[0, 1], observation[1, 0] = torch.nan, torch.inf
    allowed[2, 1] = False
    with torch.no_grad():
        action, control, logits = deployed(observation, None, allowed)
    assert (action[:2] == -1).all() and control[:2].isnan().all() and logits[:2].isnan().all()
    assert action[2, 1] == -1 and control[2, 1].isnan()
    assert (action[2, [0, 2]] >= 0).all() and control[2, [0, 2]].isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "policy"), [(name, policy) for name, all_ in QUICK.items() for policy in all_])
def test_a_format_is_the_trained_policy(name, policy, tmp_path):
    made = trained(policy, standardised=policy in ("factored", "saint", "bcq-factored", "autoregressive"))
    comparisons = compared(exported(made, name, tmp_path / "out"), made)
    assert [each.inputs for each in comparisons] == ["dataset", "one row", "large batch", "extreme values"]
    assert all(each.agrees and each.decided > 0 for each in comparisons), comparisons
    require_agreement(name, comparisons)


def test_another_policy_is_refused(tmp_path):
    runner = exported(trained("factored"), "safetensors", tmp_path / "out")
    other = contracts.build_policy(CONFIGS["factored"], SPEC, seed=1)
    with pytest.raises(UserError, match=r"safetensors differs from the trained policy on dataset: [1-9]"):
        require_agreement("safetensors", compared(runner, other))


def test_another_control_value_is_refused(tmp_path):
    made = trained("factored")
    runner = exported(made, "safetensors", tmp_path / "out")
    controls = deployed_from(made).controls.clone()
    controls[1] *= 0.5
    comparisons = compare(runner, made, controls, OBSERVATIONS)
    assert comparisons[0].actions == 0 and not comparisons[0].agrees


@pytest.mark.parametrize("margin", [1e-6, 1e-3])
def test_only_as_good_as_tied_samples_may_differ(margin):
    """A sampled choice may turn over where the best two are closer than the tolerance, and nowhere else."""
    logits = torch.zeros(2, 3, 4).masked_fill(~SPEC.valid(), -torch.inf)
    noise = torch.zeros(2, 3, 4)
    noise[:, :, 0], noise[:, :, 1] = 1.0, 1.0 - margin
    action = torch.zeros(2, 3, dtype=torch.int64)
    theirs = action.clone()
    theirs[1, ::2] = 1
    assert check._near_ties(action, theirs, logits, noise).tolist() == [False, margin < 1e-5]
    assert not check._near_ties(action, theirs, logits, None).any()


@pytest.fixture(scope="module", params=["safetensors", "onnx"])
def runner(request, tmp_path_factory):
    return exported(trained("factored"), request.param, tmp_path_factory.mktemp("exported") / "out")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"observation": np.zeros((2, 3))}, r"observation must be numbers \(B, \d+\); found"),
        ({"observation": np.zeros(contracts.SIZE)}, "observation must be numbers"),
        ({"observation": np.zeros((0, contracts.SIZE))}, "observation must be numbers"),
        ({"observation": [["left"] * contracts.SIZE]}, "observation must be"),
        ({"observation": np.zeros((1, contracts.SIZE), bool)}, "observation must be numbers"),
        ({"observation": np.full((1, contracts.SIZE), np.nan)}, "observation must be finite; found nan in row 0 at 0"),
        ({"allowed": np.zeros((2, 3, 4), bool)}, "must leave every sub-action a choice; found none for 0 in row 0"),
        ({"allowed": np.ones((2, 3, 4))}, "allowed must be bools"),
        ({"allowed": np.ones((1, 3, 4), bool)}, "allowed must be bools"),
        ({"noise": np.zeros((2, 3))}, "noise must be finite floats"),
        ({"noise": np.full((2, 3, 4), np.inf)}, "noise must be finite floats"),
    ],
)
def test_bad_input_is_an_error_that_says_what_is_wanted(runner, inputs, message):
    with pytest.raises(ValueError, match=message):
        runner.act(**{"observation": OBSERVATIONS[:2].numpy(), **inputs})


def test_a_choice_that_does_not_exist_does_not_count_as_allowed(runner):
    allowed = np.zeros((1, 3, 4), bool)
    allowed[:, [0, 2], 0] = True
    allowed[:, 1, 3] = True  # of two choices
    with pytest.raises(ValueError, match="found none for 1"):
        runner.act(OBSERVATIONS[:1].numpy(), allowed=allowed)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_acts_without_spinrl(name, tmp_path):
    made = trained("factored")
    exported(made, name, tmp_path / "out")
    absent = ["spinrl", "mlflow", "tensordict", *(["torch"] if name == "onnx" else ["onnxruntime", "numpy"])]
    alone = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({absent})); sys.argv = ['run', 'example.json']; "
        f"runpy.run_path('run_{name}.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", alone], cwd=tmp_path / "out", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        action = made.mode(OBSERVATIONS[:2])
    assert [line.split(" control ")[0] for line in done.stdout.splitlines()] == [
        f"action {row}" for row in action.tolist()
    ]


class OwnPolicy(IndependentPolicy):
    def __init__(self):
        super().__init__(contracts.SIZE, SPEC)
        self.linear = torch.nn.Linear(contracts.SIZE, 12)

    def logits(self, observation, action=None):
        return self.linear(observation).view(-1, 3, 4).masked_fill(~SPEC.valid(), -torch.inf)


class UnexportablePolicy(OwnPolicy):
    def logits(self, observation, action=None):
        return super().logits(observation) * float(observation.sum())


def test_a_policy_that_a_format_cannot_express_is_one_line(tmp_path):
    with pytest.raises(UserError, match="format pt2 cannot express UnexportablePolicy: ") as caught:
        write(deployed_from(UnexportablePolicy()), "pt2", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_users_own_policy_has_no_safetensors_runner(tmp_path):
    with pytest.raises(UserError, match="not OwnPolicy; take --format pt2 or onnx"):
        write(deployed_from(OwnPolicy()), "safetensors", tmp_path)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"format onnx needs onnxruntime: pip install 'spinrl\[export\]'"):
        write(deployed_from(trained("factored")), "onnx", tmp_path)
    assert not list(tmp_path.iterdir())
