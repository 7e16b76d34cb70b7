"""IQL with every policy keeps the contract of algorithms, in both precisions and compiled."""

import pytest
import torch

from spinrl import testing as contracts
from spinrl.algorithms import IQL
from spinrl.machine import ResolvedMachine, compiler_available
from spinrl.specs import NEXT_TERMINATED, ActionSpec
from tests.algorithms.policy_samples import POLICIES

SMALL = IQL(hidden=[16, 16])


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_contract(policy):
    contracts.check_algorithm(SMALL, policy)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_bf16_losses_are_those_of_fp32_up_to_its_precision(policy):
    spec = ActionSpec([2, 5, 3])
    losses = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        machine = ResolvedMachine(precision=precision)
        algorithm = contracts.build_algorithm(SMALL, policy, spec, machine=machine)
        losses[precision] = algorithm.update(contracts.random_batch(spec, 32))
        assert all(parameter.dtype == torch.float32 for parameter in algorithm.parameters())
    assert torch.equal(losses["fp32"]["loss_value"], losses["bf16"]["loss_value"])
    assert torch.equal(losses["fp32"]["loss_qvalue"], losses["bf16"]["loss_qvalue"])
    torch.testing.assert_close(losses["bf16"]["loss_policy"], losses["fp32"]["loss_policy"], rtol=0.02, atol=0)


@pytest.mark.slow
@pytest.mark.skipif(not compiler_available("cpu"), reason="torch.compile finds no C++ compiler here")
def test_compiled_losses_are_those_of_eager_mode():
    """The same random numbers too: dropout draws from torch's generator in both."""
    spec = ActionSpec([2, 5, 3])
    losses = {}
    for compiled in (False, True):
        algorithm = contracts.build_algorithm(
            SMALL, POLICIES["factored"], spec, machine=ResolvedMachine(compile=compiled)
        )
        torch.manual_seed(0)
        losses[compiled] = [algorithm.update(contracts.random_batch(spec, seed=step)) for step in range(3)]
    for eager, compiled in zip(losses[False], losses[True], strict=True):
        torch.testing.assert_close(compiled.to_dict(), eager.to_dict(), rtol=1e-5, atol=1e-6)


def test_bootstrapping_stops_on_termination_only():
    spec = ActionSpec([3, 3])
    batch = contracts.random_batch(spec)
    losses = {}
    for terminated in (False, True):
        batch[NEXT_TERMINATED] = torch.full_like(batch[NEXT_TERMINATED], terminated)
        for shift in (0.0, 10.0):
            algorithm = contracts.build_algorithm(SMALL, POLICIES["factored"], spec)
            algorithm.value.network[-1].bias.data += shift  # moves V(s') and nothing else that the critics see
            losses[terminated, shift] = algorithm.update(batch)["loss_qvalue"]
    assert losses[False, 10.0] > losses[False, 0.0] + 1
    assert torch.equal(losses[True, 10.0], losses[True, 0.0])


def test_weights_are_clipped_and_gradients_survive_extreme_rewards():
    spec = ActionSpec([2, 5, 3])
    algorithm = contracts.build_algorithm(SMALL, POLICIES["saint"], spec)
    algorithm.target_qvalue.biases[-1].data += 1e6
    losses = algorithm.update(contracts.random_batch(spec))
    assert all(loss.isfinite() for loss in losses.values())
    assert all(parameter.isfinite().all() for parameter in algorithm.policy.parameters())


def test_state_of_other_optimizers_is_refused():
    algorithm = contracts.build_algorithm(SMALL, POLICIES["factored"], ActionSpec([3]))
    with pytest.raises(ValueError, match=r"optimizer states of \['policy', 'qvalue', 'value'\], got \['policy'\]"):
        algorithm.set_extra_state({"policy": {}})
