"""What a training does between two evaluations."""

from types import SimpleNamespace

import pytest
import torch

from spinrl import checkpoint
from spinrl.machine import ResolvedMachine
from spinrl.policies.base import FrozenInput
from spinrl.specs import ActionSpec
from spinrl.training import Trainer
from tests.data.store_samples import random_episode, write_store


@pytest.mark.parametrize(
    ("share", "reached"), [(0.5, [0, 0.5]), (0.27, [0, 0.3]), (0.1, [0, 0.1]), (1 / 3, [0, 0.35]), (0.99, [0])]
)
def test_a_policy_is_told_of_a_milestone_at_the_first_step_that_is_not_before_it(share, reached):
    told = []
    training = SimpleNamespace(
        setup=SimpleNamespace(training=SimpleNamespace(gradient_steps=20)),
        stopped=False,
        algorithm=SimpleNamespace(policy=SimpleNamespace(milestones=(share,), set_trained_parts=told.append)),
        step=0,
        _prepare=lambda report: None,
    )
    training._train_to = lambda stop, report: setattr(training, "step", stop)
    Trainer.advance(training, 20, print)
    assert training.step == 20 and told == pytest.approx(reached)


def test_slot_embeddings_in_the_cache_are_those_of_fp32_whatever_the_precision_of_the_training(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINRL_HOME", str(tmp_path))
    spec = ActionSpec((3, 4))
    store = write_store(tmp_path / "s", [random_episode(8, spec, 5, 0)], spec, 5, bins=None)
    matrix, given = torch.randn(5, 6), []
    frozen = FrozenInput(encode=lambda x: (x @ matrix).view(-1, 2, 3), shape=(2, 3), identity="net", shared=True)
    training = SimpleNamespace(
        algorithm=SimpleNamespace(policy=SimpleNamespace(frozen_input=lambda: frozen)),
        loader=SimpleNamespace(attach_features=lambda values, **_: given.append(values)),
        setup=SimpleNamespace(algorithm=SimpleNamespace(asks_next_policy=False)),
        machine=ResolvedMachine(precision="bf16"),
        **{"store": store, "prepared": None, "counted": None, "train_seconds": 0.0},
    )
    Trainer._prepare(training, lambda event: None)
    exact = (store.data["observations", "observation"] @ matrix).view(-1, 2, 3)
    assert torch.equal(given[0], exact.bfloat16())


def test_a_checkpoint_of_another_format_is_named_and_training_begins_anew(tmp_path):
    path, told = tmp_path / "checkpoint.pt", []
    checkpoint.save_latest({"format_version": 1, "step": 5}, path)
    training = SimpleNamespace(path=path, step=0)
    assert not Trainer._resume(training, told.append)
    (fault,) = told
    assert f"{path} has checkpoint format 1, this spinrl resumes 2; the training begins anew" in str(fault)
    assert training.step == 0
