"""Checkpoints of the public reference code load safely, give its numbers, and are refused where they do not fit."""

from pathlib import Path

import attrs
import golden
import numpy as np
import pytest
import torch

from spinrl import reference
from spinrl.asm import pretrained_asm
from spinrl.checkpoint import CheckpointError
from spinrl.data import Episode, SourceRecord, Store, StoreWriter
from spinrl.machine import ResolvedMachine
from spinrl.policies import SPIN, Factored
from spinrl.specs import ActionSpec


def saved(case, prefix, path, place=None):
    """The golden weights in a file: alone, or where the reference's scripts keep them, beside what else they save."""
    weights = case.weights(prefix)
    settings = {"action_cardinalities": tuple(np.array([3, 5])), "learning_rate": np.float64(3e-4), "seed": 1}
    torch.save({place: weights, "critic_state_dict": {}, "args": settings, "step": 5} if place else weights, path)
    return path


@pytest.mark.parametrize("place", [None, "actor_state_dict", "imitation_state_dict"])
@pytest.mark.parametrize("name", golden.POLICIES)
@pytest.mark.parametrize("case_name", golden.CASES)
def test_a_policy_checkpoint_gives_the_references_log_probabilities(case_name, name, place, tmp_path):
    case = golden.load(case_name)
    policy = case.policy(name)
    for parameter in policy.parameters():
        parameter.data.add_(1.0)  # nothing of what was there may stay
    reference.load_policy(saved(case, f"policy/{name}/weights/", tmp_path / "policy.pt", place), policy)
    batch = case.batch()
    with torch.no_grad():
        ours = policy.eval().log_probs(batch["observation"], batch["action"])
    torch.testing.assert_close(case.ragged(ours), case.arrays[f"policy/{name}/log_probs"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("place", [None, "model_state_dict"])
@pytest.mark.parametrize("case_name", golden.CASES)
def test_an_asm_checkpoint_gives_the_references_logits(case_name, place, tmp_path):
    case = golden.load(case_name)
    model = case.encoder.build(case.observation_size, case.spec, seed=5).eval()
    reference.load_asm(saved(case, "asm/weights/", tmp_path / "asm.pt", place), model)
    with torch.no_grad():
        ours = model(case.batch()["observation"], _tokens(case))
    torch.testing.assert_close(case.ragged(ours), case.arrays["asm/logits"], rtol=0, atol=1e-5)


def store_of(case, path):
    """A dataset of the golden case's sizes: one short episode of its batch."""
    batch = case.batch()
    rows = len(batch)
    last = np.arange(rows) == rows - 1
    sizes = {"action_spec": case.spec, "observation_size": case.observation_size}
    with StoreWriter(
        path, task="own", bins=None, tier="own", sources=(SourceRecord(behavior="own"),), **sizes
    ) as writer:
        writer.append(
            Episode(
                observations=np.concatenate([batch["observation"].numpy(), np.zeros((1, case.observation_size))]),
                actions=batch["action"].numpy(),
                rewards=np.zeros(rows),
                terminated=np.zeros(rows, bool),
                truncated=last,
                source=0,
            )
        )
    return Store.open(path)


@pytest.mark.parametrize("case_name", golden.CASES)
def test_policies_are_trained_on_the_references_asm(case_name, tmp_path):
    case = golden.load(case_name)
    store = store_of(case, tmp_path / "store")
    config = reference.ReferenceASM(
        checkpoint=str(saved(case, "asm/weights/", tmp_path / "asm.pt", "model_state_dict")), encoder=case.encoder
    )
    config.check(store.observation_size, store.action_spec, standardized=False)
    asm = pretrained_asm(config, store, seed=0, machine=ResolvedMachine(threads=1))
    (tmp_path / "asm.pt").rename(tmp_path / "moved.pt")  # what counts is what was in it
    moved = attrs.evolve(config, checkpoint=str(tmp_path / "moved.pt"))
    again = pretrained_asm(moved, store, seed=1, machine=ResolvedMachine(threads=1))
    assert asm.fingerprint == again.fingerprint and asm.card["reference_checkpoint"] == "asm.pt"
    spin = SPIN(slot_queries="mask_tokens", heads="asm").build(
        store.observation_size, store.action_spec, asm=again, seed=0
    )
    observation = case.batch()["observation"]
    masked = torch.tensor(case.spec.nvec).expand(len(observation), -1)
    with torch.no_grad():
        torch.testing.assert_close(spin.eval().logits(observation), asm.model(observation, masked))
        ours = again.model(observation, _tokens(case))
    torch.testing.assert_close(case.ragged(ours), case.arrays["asm/logits"], rtol=0, atol=1e-5)


def test_a_references_asm_that_cannot_be_used_is_refused_before_anything_runs(tmp_path):
    case, other = (golden.load(name) for name in golden.CASES)
    path = saved(case, "asm/weights/", tmp_path / "asm.pt")
    config = reference.ReferenceASM(checkpoint=str(path), encoder=case.encoder)
    with pytest.raises(ValueError, match="standardize_observations=False"):
        config.check(case.observation_size, case.spec, standardized=True)
    with pytest.raises(CheckpointError, match=r"asm.pt does not fit an? ASM"):
        config.check(other.observation_size, other.spec, standardized=False)
    missing = attrs.evolve(config, checkpoint="nowhere.pt")
    with pytest.raises(CheckpointError, match=r"nowhere\.pt does not exist"):
        missing.check(case.observation_size, case.spec, standardized=False)
    with pytest.raises(CheckpointError, match=r"nowhere\.pt cannot be read"):
        missing.fingerprint("", 0)
    assert Path(missing.checkpoint).is_absolute()  # cells may run elsewhere


def _tokens(case):
    """The action with the mask token where the recorder masked it."""
    return torch.where(case.arrays["asm/mask"].bool(), torch.tensor(case.spec.nvec), case.arrays["asm/input_action"])


@pytest.mark.parametrize(("theirs", "ours"), [(0.0, 0.1), (0.1, 0.0), (0.0, 0.0)])
def test_dropout_has_no_weights_and_may_be_on_one_side_alone(theirs, ours, tmp_path):
    spec = ActionSpec((3, 2))
    made = Factored(hidden=(8, 8), dropout=theirs).build(5, spec, seed=1)
    policy = Factored(hidden=(8, 8), dropout=ours).build(5, spec, seed=2)
    weights = {f"shared.{name}": value for name, value in made.trunk.state_dict().items()}
    for slot, choices in enumerate(spec.nvec):
        weights[f"heads.{slot}.weight"] = made.heads.weight[slot, :, :choices].t()
        weights[f"heads.{slot}.bias"] = made.heads.bias[slot, 0, :choices]
    torch.save({"imitation_state_dict": weights}, tmp_path / "bcq.pt")
    reference.load_policy(tmp_path / "bcq.pt", policy)
    observation = torch.randn(4, 5)
    with torch.no_grad():
        assert torch.equal(policy.eval().logits(observation), made.eval().logits(observation))
    shallow = Factored(hidden=(8,), dropout=ours).build(5, spec, seed=0)
    with pytest.raises(CheckpointError, match="it has 2 hidden layers, not 1"):
        reference.load_policy(tmp_path / "bcq.pt", shallow)


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    case, other = (golden.load(name) for name in golden.CASES)
    policy = case.policy("factored")
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    wrong_kind = saved(case, "policy/saint/weights/", tmp_path / "saint.pt")
    with pytest.raises(CheckpointError, match=r"saint.pt does not fit a FactoredPolicy"):
        reference.load_policy(wrong_kind, policy)
    wrong_size = saved(other, "policy/factored/weights/", tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other.pt does not fit a FactoredPolicy"):
        reference.load_policy(wrong_size, policy)
    torch.save({"step": 3}, tmp_path / "step.pt")
    with pytest.raises(CheckpointError, match="not a state dict"):
        reference.load_policy(tmp_path / "step.pt", policy)
    torch.save({"config": Factored()}, tmp_path / "objects.pt")
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        reference.load_policy(tmp_path / "objects.pt", policy)
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
