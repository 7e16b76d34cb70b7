"""What only SPIN promises: frozen parts, its starts, and where its ASM came from."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spinrl import testing as contracts
from spinrl.algorithms import IQL
from spinrl.asm import ASMEncoder
from spinrl.machine import ResolvedMachine
from spinrl.policies import SPIN
from spinrl.specs import ActionSpec

SPEC = ActionSpec([2, 5, 3])


@settings(max_examples=20, deadline=None)
@given(
    nvec=st.lists(st.integers(2, 6), min_size=1, max_size=5),
    blocks=st.integers(1, 3),
    state_tokens=st.integers(1, 3),
)
def test_a_warm_start_is_the_asms_prediction_on_the_masked_input(nvec, blocks, state_tokens):
    spec = ActionSpec(nvec)
    encoder = ASMEncoder(d_model=16, num_heads=2, num_blocks=blocks, num_state_tokens=state_tokens, head_width=8)
    asm = contracts.frozen_asm(spec, encoder=encoder)
    config = SPIN(slot_queries="mask_tokens", heads="asm")
    policy = config.build(contracts.SIZE, spec, asm=asm, seed=0).eval()
    observation = torch.randn(4, contracts.SIZE)
    masked = torch.tensor(nvec).expand(4, -1)
    expected = asm.model.eval()(observation, masked).log_softmax(-1)
    torch.testing.assert_close(policy.log_probs(observation), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("query_share", [1.0, 0.0])
def test_frozen_parts_never_change_and_the_asm_is_not_touched(query_share):
    asm = contracts.frozen_asm(SPEC)
    before = {name: value.clone() for name, value in asm.model.state_dict().items()}
    policy = SPIN(slot_queries="mask_tokens", heads="asm", query_share=query_share).build(
        contracts.SIZE, SPEC, asm=asm, seed=0
    )
    encoder = {name: value.clone() for name, value in policy.encoder.state_dict().items()}
    queries, heads = policy.slot_queries.detach().clone(), policy.heads.weight.detach().clone()
    algorithm = IQL(learning_rate=0.01).build(policy, contracts.SIZE, SPEC, seed=0, machine=ResolvedMachine())
    for step in range(3):
        algorithm.update(contracts.random_batch(SPEC, seed=step))
    for name, value in policy.encoder.state_dict().items():
        assert torch.equal(value, encoder[name]), name
    for name, value in asm.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(policy.slot_queries, queries) is (query_share == 0)
    assert not torch.equal(policy.heads.weight, heads)


def test_dropout_in_frozen_blocks_is_an_option():
    observation = torch.randn(4, contracts.SIZE)
    slots = {}
    for on in (True, False):
        policy = SPIN(frozen_dropout=on).build(contracts.SIZE, SPEC, asm=contracts.frozen_asm(SPEC), seed=0).train()
        first, second = (policy.encoder(observation, policy.slot_queries) for _ in range(2))
        slots[on] = not torch.equal(first, second)
        assert policy.heads.training
    assert slots == {True: True, False: False}


def test_a_missing_asm_is_an_error():
    with pytest.raises(ValueError, match="needs a pre-trained ASM, got none"):
        SPIN().build(contracts.SIZE, SPEC, seed=0)


def test_an_asm_of_other_sizes_is_an_error():
    with pytest.raises(ValueError, match="observations of size 6, got one for 7"):
        SPIN().build(contracts.SIZE, SPEC, asm=contracts.frozen_asm(SPEC, size=7), seed=0)
    with pytest.raises(ValueError, match=r"nvec \(2, 5, 3\), got one for \(2, 5, 4\)"):
        SPIN().build(contracts.SIZE, SPEC, asm=contracts.frozen_asm(ActionSpec([2, 5, 4])), seed=0)


def test_weights_from_another_asm_are_refused():
    ours = SPIN().build(contracts.SIZE, SPEC, asm=contracts.frozen_asm(SPEC, fingerprint="ours"), seed=0)
    theirs = SPIN().build(contracts.SIZE, SPEC, asm=contracts.frozen_asm(SPEC, fingerprint="theirs"), seed=0)
    with pytest.raises(ValueError, match="came from ASM 'theirs', this policy is built on 'ours'"):
        ours.load_state_dict(theirs.state_dict())
    ours.load_state_dict(ours.state_dict())


def test_an_asm_without_state_conditioning_gets_a_trained_state_encoder():
    encoder = ASMEncoder(d_model=16, num_heads=2, num_blocks=1, head_width=8, state_conditioning=False)
    policy = SPIN().build(contracts.SIZE, SPEC, asm=contracts.frozen_asm(SPEC, encoder=encoder), seed=0).eval()
    assert all(p.requires_grad for p in policy.encoder.state_encoder.parameters())
    assert not any(p.requires_grad for p in policy.encoder.blocks.parameters())
    observation = torch.randn(2, contracts.SIZE)
    log_probs = policy.log_probs(observation)
    assert not torch.allclose(log_probs[0], log_probs[1])


FIXED = {"slot_queries": "mask_tokens", "query_share": 0.0, "frozen_dropout": False}


@pytest.mark.parametrize("masked", [False, True])
def test_training_on_cached_embeddings_is_training_on_observations(masked):
    """The same heads, up to bfloat16's digits, whether the frozen part runs in every step or ran once."""
    live, cached = (SPIN(**FIXED, cached=on) for on in (False, True))
    trained = {}
    for config in (live, cached):
        policy = config.build(contracts.SIZE, SPEC, asm=contracts.frozen_asm(SPEC), seed=0)
        policy.heads.dropout.share = 0.0
        algorithm = IQL().build(policy, contracts.SIZE, SPEC, seed=0, machine=ResolvedMachine()).train()
        for step in range(5):
            batch = contracts.random_batch(SPEC, seed=step, masked=masked)
            if frozen := policy.frozen_input():
                embedded = frozen.encode(batch["observation"])
                assert embedded.shape[1:] == frozen.shape
                batch["policy_input"] = embedded.bfloat16()
            algorithm.update(batch)
        trained[config.cached] = policy.eval().log_probs(contracts.random_batch(SPEC)["observation"])
    torch.testing.assert_close(trained[True], trained[False], rtol=0.02, atol=0.01)


def test_queries_are_trained_for_their_share_and_then_fixed():
    config = SPIN(**{**FIXED, "query_share": 0.5}, cached=True)
    policy = config.build(contracts.SIZE, SPEC, asm=contracts.frozen_asm(SPEC), seed=0)
    algorithm = IQL().build(policy, contracts.SIZE, SPEC, seed=0, machine=ResolvedMachine()).train()
    start = policy.slot_queries.detach().clone()
    assert policy.milestones == (0.5,) and policy.frozen_input() is None
    algorithm.update(contracts.random_batch(SPEC))
    half = policy.slot_queries.detach().clone()
    assert not torch.equal(half, start)
    policy.set_trained_parts(0.5)
    frozen = policy.frozen_input()
    assert frozen is not None and not frozen.shared
    assert frozen.shape == config.frozen_shape(contracts.frozen_asm(SPEC).model.config, SPEC)
    algorithm.update(contracts.random_batch(SPEC))
    assert torch.equal(policy.slot_queries, half)
    assert policy.frozen_input().identity == frozen.identity
    with torch.no_grad():
        next(policy.encoder.parameters()).add_(1e-6)  # as of an ASM that was made again elsewhere
    assert policy.frozen_input().identity != frozen.identity


def test_an_asm_can_be_unfrozen_after_a_share_of_the_budget():
    policy = SPIN(frozen_share=0.25, frozen_dropout=False).build(
        contracts.SIZE, SPEC, asm=contracts.frozen_asm(SPEC), seed=0
    )
    algorithm = IQL().build(policy, contracts.SIZE, SPEC, seed=0, machine=ResolvedMachine()).train()
    start = copy.deepcopy(policy.encoder.state_dict())
    algorithm.update(contracts.random_batch(SPEC))
    assert not policy.encoder.training
    assert all(torch.equal(value, start[name]) for name, value in policy.encoder.state_dict().items())
    policy.set_trained_parts(0.25)
    assert policy.encoder.training
    algorithm.update(contracts.random_batch(SPEC))
    moved = [name for name, value in policy.encoder.state_dict().items() if not torch.equal(value, start[name])]
    assert len(moved) > len(start) / 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query_share": 1.0}, "query_share to be below 1"),
        ({"frozen_share": 0.5}, "frozen_share to be 1"),
        ({"frozen_dropout": True}, "frozen_dropout to be False"),
    ],
)
def test_what_changes_in_training_cannot_be_cached(fields, message):
    with pytest.raises(ValueError, match=message):
        SPIN(**{**FIXED, **fields}, cached=True)


def test_an_asm_that_does_not_see_the_state_cannot_be_cached():
    encoder = ASMEncoder(d_model=16, num_heads=2, num_blocks=1, state_conditioning=False)
    with pytest.raises(ValueError, match="state_conditioning"):
        SPIN(**FIXED, cached=True).build(contracts.SIZE, SPEC, asm=contracts.frozen_asm(SPEC, encoder=encoder), seed=0)
