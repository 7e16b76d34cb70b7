"""The probe reads what is there and nothing else, on episodes that it was not fitted on."""

import attrs
import numpy as np
import pytest
import torch

from spinrl.asm import ASMEncoder, FrozenASM, LinearProbe, Masking, Pretraining, ProbeError, pretrained_asm, probe_asm
from spinrl.asm.probe import PROBE_INPUTS, embed, fit_and_test, split_transitions
from spinrl.data import Episode, SourceRecord, Store, StoreWriter
from spinrl.machine import ResolvedMachine
from spinrl.specs import ActionSpec

SPEC = ActionSpec((3, 4, 2))
ENCODER = ASMEncoder(d_model=16, num_heads=2, num_blocks=1, head_width=16, dropout=0.1)
PROBE = LinearProbe(transitions=300, held_out=0.25, steps=50)


def write_store(path, lengths=(60, 40, 80, 50, 70, 30, 90, 20)) -> Store:
    """Sub-actions that a hidden choice decides together, of which the observation tells nothing."""
    rng = np.random.default_rng(0)
    with StoreWriter(
        path,
        task="humanoid-stand",
        bins=None,
        action_spec=SPEC,
        observation_size=5,
        tier="own",
        sources=(SourceRecord(behavior="own"),),
    ) as writer:
        for steps in lengths:
            hidden = rng.integers(0, 2, steps)
            writer.append(
                Episode(
                    observations=rng.normal(size=(steps + 1, 5)).astype(np.float32),
                    actions=np.stack([2 * hidden, 3 * hidden, hidden], 1),
                    rewards=np.zeros(steps),
                    terminated=np.zeros(steps, bool),
                    truncated=np.arange(steps) == steps - 1,
                )
            )
    return Store.open(path)


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store")


@pytest.fixture
def asm():
    return FrozenASM.untrained(ENCODER, 5, SPEC)


def choices(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(0, n, (count,), generator=generator) for n in SPEC.nvec], 1)


def revealing(action):
    """Embeddings (N, C, 8) whose first entry is the choice, far from zero and in units of its own."""
    noise = torch.randn(len(SPEC.nvec), len(action), 8, generator=torch.Generator().manual_seed(5))
    noise[..., :4] = 100 + 1000 * torch.nn.functional.one_hot(action.t(), 4)
    return noise


def test_embeddings_that_determine_the_action_give_it_away():
    fitted, tested = choices(400, 1), choices(200, 2)
    result = fit_and_test(PROBE, SPEC, (revealing(fitted), fitted), (revealing(tested), tested), seed=0)
    assert min(result.slot_accuracies) > 0.99 and result.exact_match > 0.98 and result.independence > 0.98
    assert (result.fitted, result.tested) == (400, 200)


def test_random_embeddings_give_the_majority_class():
    generator = torch.Generator().manual_seed(3)
    skewed = [
        torch.where(torch.rand(len(part), 3, generator=generator) < 0.7, 1, part)
        for part in (choices(2000, 1), choices(2000, 2))
    ]
    embeddings = [torch.randn(3, 2000, 8, generator=generator) for _ in range(2)]
    result = fit_and_test(PROBE, SPEC, (embeddings[0], skewed[0]), (embeddings[1], skewed[1]), seed=0)
    assert result.slot_accuracies == pytest.approx(result.majority_accuracies, abs=0.01)
    # Sub-actions that were drawn one by one are right one by one.
    assert result.exact_match == pytest.approx(result.independence, abs=0.03)


def test_what_is_reported_of_the_slots_is_counted_by_hand():
    tested = torch.tensor([[0, 0, 0], [1, 1, 1], [2, 2, 1], [0, 3, 0]])
    fitted = tested.repeat(50, 1)
    shown = tested.clone()
    shown[0, 0], shown[1, 1], shown[1, 2] = 1, 0, 0  # what misleads: slot 0 once, slots 1 and 2 once
    result = fit_and_test(PROBE, SPEC, (revealing(fitted), fitted), (revealing(shown), tested), seed=0)
    assert result.slot_accuracies == (0.75, 0.75, 0.75) and result.slot_accuracy == 0.75
    assert result.exact_match == 0.5 and result.independence == 0.75**3
    assert result.majority_accuracies[0] == 0.5


def test_held_out_episodes_are_whole_and_others(store):
    for seed in range(5):
        fitted, tested = split_transitions(PROBE, store, seed)
        ends = (store.data["episodes", "start"] + store.data["episodes", "length"]).contiguous()
        episodes = [set(torch.bucketize(part, ends, right=True).tolist()) for part in (fitted, tested)]
        assert not episodes[0] & episodes[1] and len(episodes[1]) == 2
        assert len(fitted.unique()) == len(fitted) == 225
        assert len(tested.unique()) == len(tested) <= 75
    others = [split_transitions(PROBE, store, seed)[1].tolist() for seed in range(5)]
    assert len({tuple(each) for each in others}) == 5


def test_a_small_dataset_is_taken_whole(tmp_path):
    fitted, tested = split_transitions(LinearProbe(), write_store(tmp_path / "two", (9, 4)), seed=0)
    assert sorted([len(fitted), len(tested)]) == [4, 9]
    assert sorted(torch.cat([fitted, tested]).tolist()) == list(range(13))


@pytest.mark.parametrize("num_blocks", [1, 3])
@pytest.mark.parametrize("what", PROBE_INPUTS)
def test_a_slot_never_sees_its_own_sub_action(what, num_blocks):
    model = FrozenASM.untrained(attrs.evolve(ENCODER, num_blocks=num_blocks), 5, SPEC).model
    observation, action = torch.randn(6, 5), choices(6, 1)
    before = embed(model, observation, action, what)
    for slot, count in enumerate(SPEC.nvec):
        changed = action.clone()
        changed[:, slot] = (changed[:, slot] + 1) % count
        after = embed(model, observation, changed, what)
        assert torch.equal(before[slot], after[slot])
        for other in {0, 1, 2} - {slot}:
            assert torch.equal(before[other], after[other]) == (what == "observation")


def test_embeddings_are_the_models_own_in_whatever_pieces(asm, monkeypatch):
    observation, action = torch.randn(7, 5), choices(7, 1)
    monkeypatch.setattr("spinrl.asm.probe._INPUTS_AT_ONCE", 6)
    others, alone = (embed(asm.model, observation, action, what) for what in PROBE_INPUTS)
    masked = asm.model.mask_token.expand(7, -1)
    torch.testing.assert_close(alone, asm.model.slot_embeddings(observation, masked).transpose(0, 1))
    for slot in range(3):
        tokens = action.clone()
        tokens[:, slot] = SPEC.nvec[slot]
        torch.testing.assert_close(others[slot], asm.model.slot_embeddings(observation, tokens)[:, slot])


def test_the_same_seed_gives_the_same_numbers(asm, store):
    def probed(seed):
        return probe_asm(PROBE, asm, store, "others", seed=seed)

    first = probed(1)
    state = torch.get_rng_state()
    assert probed(1) == first
    assert torch.equal(torch.get_rng_state(), state)  # nor is any other stream of numbers touched
    assert probed(2) != first


def test_a_trained_asm_knows_what_only_the_other_sub_actions_tell(store):
    config = Pretraining(
        encoder=ENCODER, masking=Masking(share="per_sample"), batch_size=64, epochs=None, steps=200, learning_rate=3e-3
    )
    asm = pretrained_asm(config, store, seed=0, machine=ResolvedMachine(threads=1))
    others, observation = (probe_asm(PROBE, asm, store, what, seed=0) for what in ("others", "observation"))
    assert others.exact_match > 0.99
    # The observation alone tells nothing: each slot is a coin.
    assert observation.slot_accuracy == pytest.approx(0.5, abs=0.15)


def test_one_episode_cannot_be_held_out_from_itself(asm, tmp_path):
    with pytest.raises(ProbeError, match="two episodes") as caught:
        probe_asm(PROBE, asm, write_store(tmp_path / "one", (30,)), "others", seed=0)
    assert "\n" not in str(caught.value)
