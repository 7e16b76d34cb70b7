"""What `auto` takes follows from what the machine reports."""

import os

import pytest
import torch

from spinrl import machine
from spinrl.machine import Machine, ResolvedMachine

pytestmark = pytest.mark.compiled


def pretend(monkeypatch, *, cuda=False, compiler=True, **capabilities):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "some GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "some CPU", **capabilities})
    monkeypatch.setattr(machine, "compiler_available", lambda device: compiler)


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({}, "fp32"), ({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"), ({"avx512_f": True}, "fp32")],
)
def test_bf16_only_where_hardware_multiplies_it(monkeypatch, capabilities, precision):
    pretend(monkeypatch, **capabilities)
    resolved = Machine().resolve()
    assert (resolved.device, resolved.precision, resolved.processor) == ("cpu", precision, "some CPU")


def test_a_gpu_is_taken_when_there_is_one(monkeypatch):
    pretend(monkeypatch, cuda=True)
    resolved = Machine().resolve()
    assert (resolved.device, resolved.precision, resolved.processor) == ("cuda", "bf16", "some GPU")
    eager = Machine(capture=False).resolve()
    assert (resolved.capture, resolved.compile, eager.capture, eager.compile) == (True, False, False, True)
    assert not Machine(device="cpu").resolve().capture
    assert Machine(device="cpu", precision="fp32").resolve().device == "cpu"


def test_what_is_asked_for_is_taken_or_refused(monkeypatch):
    pretend(monkeypatch, compiler=False, amx_bf16=True)
    resolved = Machine(precision="fp32", threads=3).resolve()
    assert (resolved.precision, resolved.compile, resolved.threads) == ("fp32", False, 3)
    with pytest.raises(ValueError, match="is cuda, but torch finds no CUDA device"):
        Machine(device="cuda").resolve()
    with pytest.raises(ValueError, match="only a GPU captures; set it to None"):
        Machine(capture=True).resolve()
    with pytest.raises(ValueError, match="no C\\+\\+ compiler"):
        Machine(compile=True).resolve()


def test_compiler_is_looked_for_before_it_is_needed(monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert not machine.compiler_available("cpu")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_is_in_the_resolved_precision(precision, dtype):
    a = torch.ones(2, 2)
    with ResolvedMachine(precision=precision).autocast():
        assert (a @ a).dtype == dtype


def test_where_a_system_keeps_no_process_to_some_cores_all_are_taken(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 3}, raising=False)
    assert machine.available_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.available_cores() == 6
