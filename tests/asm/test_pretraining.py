"""Pre-training learns structure, is cached under what it depends on, resumes exactly, and loads strictly."""

import errno
import json
import shutil
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

from spinrl.asm import ASMEncoder, ASMError, FrozenASM, Masking, Pretraining, asm_folder, pretrained_asm
from spinrl.checkpoint import CheckpointError
from spinrl.data import Episode, SourceRecord, Store, StoreWriter
from spinrl.machine import ResolvedMachine
from spinrl.specs import ActionSpec
from tests.data.store_samples import random_episode, write_store

SPEC = ActionSpec((3, 4, 2))
MACHINE = ResolvedMachine(threads=1)
CONFIG = Pretraining(
    encoder=ASMEncoder(d_model=16, num_heads=2, num_blocks=1, head_width=16, dropout=0.1),
    masking=Masking(share="per_sample"),
    batch_size=64,
    epochs=None,
    steps=12,
    learning_rate=3e-3,
    report_every=1,
)


def test_pretraining_learns_nothing_of_choices_that_are_never_allowed(tmp_path):
    episode = random_episode(40, SPEC, 5, masked=True)
    episode.allowed[:, 1] = np.arange(4) < 3
    episode.actions[:, 1] %= 3
    store = write_store(tmp_path / "masked", [episode], SPEC, 5, bins=None)
    fresh = FrozenASM.untrained(CONFIG.encoder, 5, SPEC).model.heads
    learned = pretrained_asm(CONFIG, store, seed=0, machine=MACHINE).model.heads
    same = (learned.bias == fresh.bias)[:, 0]  # (N, K)
    assert same[1].tolist() == [False, False, False, True]


@pytest.fixture
def store(tmp_path) -> Store:
    """Sub-actions that the observation's sign and one another decide."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(401, 5)).astype(np.float32)
    first = (observations[:400, 0] > 0).astype(np.int64) * 2
    actions = np.stack([first, first + 1, first // 2], 1)
    last = np.arange(400) == 399
    with StoreWriter(
        tmp_path / "store",
        task="humanoid-stand",
        bins=None,
        action_spec=SPEC,
        observation_size=5,
        tier="own",
        sources=(SourceRecord(behavior="own"),),
    ) as writer:
        writer.append(
            Episode(
                observations=observations,
                actions=actions,
                rewards=np.zeros(400),
                terminated=np.zeros(400, bool),
                truncated=last,
                source=0,
            )
        )
    return Store.open(tmp_path / "store")


def test_it_learns_what_decides_the_actions(store):
    asm = pretrained_asm(attrs.evolve(CONFIG, steps=400), store, seed=0, machine=MACHINE)
    observation = torch.tensor([[2.0, 0, 0, 0, 0], [-2.0, 0, 0, 0, 0]])
    masked = torch.tensor(SPEC.nvec).expand(2, -1)
    assert asm.model(observation, masked).argmax(-1).tolist() == [[2, 3, 1], [0, 1, 0]]
    assert not any(parameter.requires_grad for parameter in asm.model.parameters())


def test_the_cache_is_used_and_keeps_the_original_cost(store):
    seen = []
    first = pretrained_asm(CONFIG, store, seed=0, machine=MACHINE, progress=lambda step, values: seen.append(step))
    again = pretrained_asm(CONFIG, store, seed=0, machine=MACHINE, progress=lambda *_: pytest.fail("trained again"))
    assert seen == list(range(1, 13))
    assert again.seconds == first.seconds > 0
    assert again.fingerprint == first.fingerprint
    for a, b in zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_what_the_fingerprint_depends_on():
    base = CONFIG.fingerprint("data", 0)
    assert base == attrs.evolve(CONFIG, report_every=5, checkpoint_minutes=1.0).fingerprint("data", 0)
    others = [
        CONFIG.fingerprint("other", 0),
        CONFIG.fingerprint("data", 1),
        attrs.evolve(CONFIG, learning_rate=1e-3).fingerprint("data", 0),
        attrs.evolve(CONFIG, masking=Masking(probability=0.2)).fingerprint("data", 0),
        CONFIG.fingerprint("data", 0, standardized=True),
        CONFIG.fingerprint("data", 0, precision="bf16"),
    ]
    assert len({base, *others}) == 7


def test_an_asm_of_another_precision_is_another_asm(store):
    machines = [attrs.evolve(MACHINE, precision=precision) for precision in ("bf16", "fp32", "bf16")]
    first, other, again = (pretrained_asm(CONFIG, store, seed=0, machine=machine).fingerprint for machine in machines)
    assert first == again != other


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_an_interrupted_pretraining_goes_on_exactly(store, monkeypatch, tmp_path, schedule):
    config = attrs.evolve(CONFIG, checkpoint_minutes=1e-9, schedule=schedule)
    whole = pretrained_asm(config, store, seed=3, machine=MACHINE)

    monkeypatch.setenv("SPINRL_HOME", str(tmp_path / "other"))

    def stop(step, _values):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrained_asm(config, store, seed=3, machine=MACHINE, progress=stop)
    steps, before = [], []
    resumed = pretrained_asm(
        config,
        store,
        seed=3,
        machine=MACHINE,
        progress=lambda step, _: steps.append(step),
        on_resume=before.extend,
    )
    assert steps[0] in (7, 8) and steps[-1] == 12
    assert [step for step, _ in before] + steps == list(range(1, 13))  # the former may not have been logged
    assert [step for step, _ in whole.curve] == list(range(1, 13)) and resumed.curve == whole.curve
    found = pretrained_asm(config, store, seed=3, machine=MACHINE)  # in the cache
    assert found.curve == whole.curve
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_that_the_disk_does_not_take_is_done_without(store, monkeypatch, tmp_path):
    config = attrs.evolve(CONFIG, checkpoint_minutes=1e-9)
    whole = pretrained_asm(config, store, seed=4, machine=MACHINE)

    def full(_state, path):
        raise CheckpointError(f"{path} could not be written: No space left on device")

    monkeypatch.setattr("spinrl.checkpoint.save", full)
    monkeypatch.setenv("SPINRL_HOME", str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="No space left"):
        pretrained_asm(config, store, seed=4, machine=MACHINE)
    said = []
    other = pretrained_asm(config, store, seed=4, machine=MACHINE, on_damage=said.append)
    assert "No space left on device; pre-training goes on" in said[0]
    for a, b in zip(whole.model.state_dict().values(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("weights", "does not match its card"),
        ("card", r"is damaged: card\.json"),
        ("missing", r"asm\.safetensors is missing"),
        ("newer", "has format 99"),
        ("sizes", "does not fit its card"),
        ("fingerprint", "has fingerprint"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(store, damage, message):
    made = pretrained_asm(CONFIG, store, seed=0, machine=MACHINE)
    folder = asm_folder(made.fingerprint)
    weights, card = folder / "asm.safetensors", folder / "card.json"
    content = json.loads(card.read_text())
    match damage:
        case "weights":
            weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
        case "card":
            card.write_text("{")
        case "missing":
            weights.unlink()
        case "newer":
            card.write_text(json.dumps({**content, "format_version": 99}))
        case "sizes":
            card.write_text(json.dumps({**content, "observation_size": 6}))
        case "fingerprint":
            card.write_text(json.dumps({**content, "fingerprint": "0" * 16}))
    with pytest.raises(ASMError, match=message) as caught:
        pretrained_asm(CONFIG, store, seed=0, machine=MACHINE)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    if damage == "newer":  # not damaged: another spinrl can read it
        with pytest.raises(ASMError, match=message):
            pretrained_asm(CONFIG, store, seed=0, machine=MACHINE, on_damage=lambda _: None)
        return
    said = []
    anew = pretrained_asm(CONFIG, store, seed=0, machine=MACHINE, on_damage=said.append)
    assert len(said) == 1 and str(folder) in said[0] and said[0].endswith("it is made anew")
    for a, b in zip(made.model.state_dict().values(), anew.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_exactly_one_of_epochs_and_steps():
    with pytest.raises(ValueError, match="exactly one"):
        Pretraining(epochs=1, steps=1)
    assert Pretraining(epochs=2, batch_size=100).total_steps(250) == 6


def test_an_untrained_asm_is_frozen_too():
    asm = FrozenASM.untrained(CONFIG.encoder, 5, SPEC)
    assert asm.seconds == 0 and not any(parameter.requires_grad for parameter in asm.model.parameters())


def test_a_full_disk_leaves_nothing_behind(store, monkeypatch, tmp_path):
    asm = FrozenASM.untrained(CONFIG.encoder, 5, SPEC)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ASMError, match="No space left"):
        asm.save(tmp_path / "asms" / "x")
    assert not list((tmp_path / "asms").iterdir())


def test_an_asm_cached_without_its_units_gets_those_of_the_dataset(store):
    """As versions wrote them that standardised observations outside the network."""
    standardized = pretrained_asm(CONFIG, store, seed=0, machine=MACHINE, standardized=True)
    raw = CONFIG.encoder.build(5, SPEC, seed=0)
    raw.load_state_dict({name: value for name, value in standardized.model.named_parameters()})
    folder = asm_folder(standardized.fingerprint)
    shutil.rmtree(folder)
    FrozenASM.of(raw, standardized.fingerprint, 1.0, {}).save(folder)
    again = pretrained_asm(CONFIG, store, seed=0, machine=MACHINE, standardized=True)
    observation, tokens = store.data["observations", "observation"][:9], torch.zeros(9, 3, dtype=torch.long)
    assert again.seconds == 1.0
    assert torch.equal(again.model(observation, tokens), standardized.model(observation, tokens))
