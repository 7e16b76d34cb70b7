"""A captured step computes what the loop does: on a CPU by a stand-in for CUDA graphs, with a GPU for real."""

import itertools
import threading
from functools import partial
from types import SimpleNamespace
from weakref import WeakValueDictionary

import attrs
import pytest
import torch
from tensordict import TensorDict
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spinrl import captured
from spinrl import testing as contracts
from spinrl.algorithms import AWAC, BCQ, IQL, Imitation, MonteCarloCritics
from spinrl.asm import Masking, Pretraining, pretrained_asm
from spinrl.asm.masking import masked_cross_entropy
from spinrl.budget import Training
from spinrl.captured import STREAMS, WARM_UP, Captured, adam, load_optimizer
from spinrl.data import ReplayLoader
from spinrl.evaluation import episode_seeds, evaluate
from spinrl.events import Metrics, Notice
from spinrl.machine import ResolvedMachine
from spinrl.policies import SPIN, Factored, FactoredPolicy
from spinrl.specs import ActionSpec
from spinrl.tasks import BatchedEnvironment, get_task
from spinrl.train import gradient_step
from spinrl.training import Trainer, TrainingSetup
from spinrl.turns import Turns
from tests.algorithms.policy_samples import POLICIES
from tests.data.store_samples import random_episode, write_store

SPEC = ActionSpec([2, 3, 3])
ALGORITHMS = {"iql": IQL(hidden=(16,)), "awac": AWAC(hidden=(16,)), "bcq": BCQ(hidden=(16,), candidates=3)}
CACHED = SPIN(query_share=0.25, frozen_dropout=False, cached=True)  # another step from its milestone on
EVERY = POLICIES | {"spin_cached": CACHED}
GPU = ResolvedMachine(device="cuda")


class Result:
    """Where the result of the latest call is: a TensorDict, or several tensors."""

    def __getattr__(self, name):
        return getattr(self.latest, name)

    def __getitem__(self, name):
        return self.latest[name]

    def __iter__(self):
        return iter(self.latest)


class Rerun:
    """Stands for a CUDA graph: replaying it calls again, and puts the result where the recorded one is to be."""

    def __init__(self, call):
        self._call, self.outputs = call, Result()

    def replay(self):
        self.outputs.latest = self._call()


@pytest.fixture
def on_cpu(monkeypatch):
    """Machines that capture on a CPU; counts what is recorded."""
    recorded = []

    def record(call, generators):
        recorded.append(Rerun(call))
        return recorded[-1], recorded[-1].outputs

    monkeypatch.setattr(captured, "_aside", lambda call: call())
    monkeypatch.setattr(captured, "_watched", lambda call: (call(), None))
    monkeypatch.setattr(captured, "_record", record)
    for module in ("algorithms.base", "algorithms.starts", "asm.pretraining"):
        monkeypatch.setattr(
            f"spinrl.{module}.adam", lambda *given, capture, scheduled=False: adam(*given, capture=False)
        )
    return recorded


@pytest.fixture
def store(tmp_path):
    episodes = [random_episode(20, SPEC, contracts.SIZE, seed, terminated=seed == 1) for seed in range(3)]
    return write_store(tmp_path / "s", episodes, SPEC, contracts.SIZE, bins=None)


def training(store, policy, algorithm, machine, path, steps):
    """A fresh training of so many steps, and what it reports."""
    setup = TrainingSetup(
        policy=policy,
        algorithm=algorithm,
        training=Training(gradient_steps=steps, batch_size=8, report_every=1),
        standardized=True,
    )
    asm = contracts.frozen_asm(SPEC)
    asm.model.to(machine.device)
    return Trainer(setup, store, asm, machine, path)


def losses(store, policy, algorithm, machine, *, then=None, path=None, steps=20):
    """Losses of every step; with `then`, the second half is done by another process on that machine."""
    told = []
    trainer = training(store, policy, algorithm, machine, path, steps)
    trainer.begin(told.append)
    trainer.advance(steps // 2 if then else steps, told.append)
    if then:
        trainer.save()
        trainer = training(store, policy, algorithm, then, path, steps)
        trainer.begin(told.append)
        assert trainer.step == steps // 2
        trainer.advance(steps, told.append)
    assert not [each for each in told if isinstance(each, Notice)]
    values = [each.values for each in told if isinstance(each, Metrics)]
    return [{name: value for name, value in step.items() if "time" not in name} for step in values], trainer


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("policy", EVERY)
def test_a_captured_training_that_is_resumed_is_the_loop_to_the_digit(store, policy, algorithm, on_cpu, tmp_path):
    config, cpu = ALGORITHMS[algorithm], ResolvedMachine()
    capturing = attrs.evolve(cpu, capture=True)
    expected, loop = losses(store, EVERY[policy], config, cpu)
    found, ours = losses(store, EVERY[policy], config, capturing, then=capturing, path=tmp_path / "checkpoint.pt")
    assert len(expected) == 20 and found == expected
    weights = loop.algorithm.state_dict()
    assert all(
        torch.equal(value, weights[name])
        for name, value in ours.algorithm.state_dict().items()
        if isinstance(value, torch.Tensor)
    )
    assert len(on_cpu) == (3 if policy == "spin_cached" else 2)  # one a process, and one more from a milestone on


def before_training(store, machine, steps, monkeypatch, home, stop_at=None):
    """What every step of an ASM's pre-training, of imitation and of a start of critics reports.

    With `stop_at`, pre-training is interrupted after so many steps, and goes on from its checkpoint.
    """
    config = Pretraining(
        encoder=contracts.SMALL, batch_size=16, epochs=None, steps=steps, report_every=1, schedule="cosine",
        checkpoint_minutes=1e-9,
    )  # fmt: skip
    starts = (Imitation(steps=steps, batch_size=8, report_every=1), MonteCarloCritics(steps=steps, report_every=1))
    monkeypatch.setenv("SPINRL_HOME", str(home))
    pretrain = partial(pretrained_asm, config, store, seed=0, machine=machine, standardized=True)

    def stop(step, values):
        if step == stop_at:
            raise KeyboardInterrupt

    if stop_at:
        with pytest.raises(KeyboardInterrupt):
            pretrain(progress=stop)
    reported = [values for _, values in pretrain().curve]
    trainer, told = training(store, POLICIES["saint"], ALGORITHMS["iql"], machine, None, 1), []
    trainer.setup = attrs.evolve(trainer.setup, warm_start=starts[0], critic_start=starts[1])
    trainer.begin(told.append)
    return reported + [each.values for each in told if isinstance(each, Metrics)]


def test_captured_pre_training_and_starts_are_the_loop_to_the_digit(store, monkeypatch, on_cpu, tmp_path):
    cpu = ResolvedMachine()
    expected = before_training(store, cpu, 20, monkeypatch, tmp_path / "loop")
    capturing = attrs.evolve(cpu, capture=True)
    found = before_training(store, capturing, 20, monkeypatch, tmp_path / "captured", stop_at=10)
    assert len(expected) == 60 and found == expected
    assert len(on_cpu) == 4  # pre-training before and after it stopped, imitation, critics


class Asked(TorchDispatchMode):
    """Notes the operations for which a GPU would be waited for: numbers read by the host, shapes that data decide."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "repeat_interleave")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            each.dtype == torch.bool for each in tree_leaves(args[1]) if isinstance(each, torch.Tensor)
        )
        if by_mask or name.startswith(self.WAITING):
            self.found.append(name)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("policy", EVERY)
def test_no_step_waits_for_the_device(store, policy, algorithm):
    trainer = training(store, EVERY[policy], ALGORITHMS[algorithm], ResolvedMachine(), None, 20)
    trainer.advance(1, lambda event: None)
    for part in (0.0, 0.5):  # of the budget; a policy may train other parts from a milestone on
        trainer.algorithm.policy.set_trained_parts(part)
        trainer._prepare(lambda event: None)
        with Asked() as asked:
            trainer._gradient_step(lambda event: None)()
        assert not asked.found
    with Asked() as asked:
        torch.ones(2)[torch.ones(2) > 0].sum().item()
    assert asked.found == ["index", "_local_scalar_dense"]


def test_no_step_before_training_waits_for_the_device(store):
    trainer = training(store, POLICIES["saint"], ALGORITHMS["iql"], ResolvedMachine(), None, 20)
    losses_of = [start.losses(trainer.algorithm, store) for start in (Imitation(steps=1), MonteCarloCritics(steps=1))]
    model, generator = contracts.frozen_asm(SPEC).model.requires_grad_(True), torch.Generator().manual_seed(0)
    index = torch.arange(8)
    with Asked() as asked:
        for loss in (each(trainer.loader.gather(index), index) for each in losses_of):
            torch.stack(list(loss.values())).sum().backward()
        observation, action, _ = trainer.loader.sample_actions()
        tokens, chosen = Masking().apply(action, model.mask_token, generator)
        logits, rows, real = model.logits_at(observation, tokens, chosen, everywhere=True)  # as on a GPU
        masked_cross_entropy(logits, action.t().gather(1, rows), real)[0].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert not asked.found


def test_each_call_computes_once_on_what_it_is_given(on_cpu):
    seen = []

    def double(x):
        seen.append(float(x))
        return TensorDict({"y": 2 * x})

    call = Captured(double, on=True)
    results = [float(call(torch.tensor(float(number)))["y"]) for number in range(WARM_UP + 3)]
    assert seen == list(range(WARM_UP + 3)) and results == [2 * number for number in seen]
    assert len(on_cpu) == 1


def test_what_waits_for_the_device_or_cannot_be_recorded_goes_on_as_it_is_and_says_why(on_cpu, monkeypatch):
    def fail(call, generators):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    for changed, stand_in, why in (
        ("_watched", lambda call: (call(), "my_policy.py:7"), "it waits for the device at my_policy.py:7"),
        ("_record", fail, "operation not permitted"),
    ):
        told, calls = [], itertools.count()
        monkeypatch.setattr(captured, changed, stand_in)
        call = Captured(partial(next, calls), on=True, on_refusal=told.append)
        assert [call() for _ in range(7)] == list(range(7))
        assert told == [f"not captured, and slower for it: {why}"]
        monkeypatch.undo()
        on_cpu.clear()
        monkeypatch.setattr(captured, "_aside", lambda call: call())
        monkeypatch.setattr(captured, "_watched", lambda call: (call(), None))


def test_what_nobody_is_told_of_is_a_warning(on_cpu, monkeypatch):
    monkeypatch.setattr(captured, "_watched", lambda call: (call(), "my_policy.py:7"))
    call = Captured(lambda: 1, on=True)
    with pytest.warns(UserWarning, match=r"not captured.*my_policy\.py:7"):
        assert [call() for _ in range(WARM_UP)] == [1] * WARM_UP


def test_no_two_graphs_that_are_there_were_captured_on_one_stream(monkeypatch):
    class Graph:
        pass

    addresses = itertools.cycle(range(STREAMS))  # torch gives its streams in turn
    monkeypatch.setattr(torch.cuda, "Stream", lambda priority: SimpleNamespace(cuda_stream=next(addresses)))
    monkeypatch.setattr(captured, "_recorded_on", WeakValueDictionary())
    graphs = [Graph() for _ in range(STREAMS)]
    taken = [captured._stream_of_its_own(graph).cuda_stream for graph in graphs]
    assert sorted(taken) == list(range(STREAMS))
    another = Graph()
    with pytest.raises(RuntimeError, match="no room for another"):
        captured._stream_of_its_own(another)
    del graphs[5]
    assert captured._stream_of_its_own(another).cuda_stream == taken[5]


def test_features_that_do_not_fit_the_device_are_a_reason(store):
    loader, told = ReplayLoader(store, 4, 0), []
    algorithm = contracts.build_algorithm(ALGORITHMS["iql"], Factored(hidden=(8,)), SPEC)
    algorithm.machine = ResolvedMachine(capture=True)
    assert gradient_step(algorithm, loader, told.append).on and not told
    loader.attach_features(torch.empty(63, 3, 4, device="meta"))  # on another device than the batches
    assert not gradient_step(algorithm, loader, told.append).on
    assert told == ["not captured, and slower for it: the features are too large for the GPU, and stay on the disk"]


def test_an_optimizer_s_state_of_another_machine_leaves_it_as_this_one_needs_it():
    parameters = [torch.nn.Parameter(torch.ones(2))]
    made = adam(parameters, 0.5, capture=False)
    state = made.state_dict()
    state["param_groups"][0].update(capturable=True, lr=torch.tensor(0.25))
    load_optimizer(made, state)
    assert made.param_groups[0]["capturable"] is False and made.param_groups[0]["lr"] == 0.25
    parameters[0].grad = torch.ones(2)
    made.step()
    assert parameters[0].tolist() == [0.75, 0.75]


# With a GPU. Sums of a GPU come in any order, so that numbers agree but for their last digits.

CLOSE = {"rel": 5e-3, "abs": 1e-3}


@pytest.mark.gpu
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("policy", EVERY)
def test_captured_is_eager_over_50_steps_and_across_checkpoints(store, policy, algorithm, tmp_path):
    config, eager, capturing = ALGORITHMS[algorithm], GPU, attrs.evolve(GPU, capture=True)
    expected, _ = losses(store, EVERY[policy], config, eager, steps=50)
    found, trainer = losses(store, EVERY[policy], config, capturing, steps=50)
    assert trainer._step[1]._recorded is not None
    assert found == [pytest.approx(step, **CLOSE) for step in expected]
    for number, (first, then) in enumerate([(capturing, capturing), (capturing, eager), (eager, capturing)]):
        path = tmp_path / f"{number}.pt"
        found, _ = losses(store, EVERY[policy], config, first, then=then, path=path, steps=50)
        assert found == [pytest.approx(step, **CLOSE) for step in expected]


@pytest.mark.gpu
@pytest.mark.parametrize("policy", ["saint", "autoregressive"])
def test_what_is_drawn_next_is_that_of_eager_steps_after_captured_acting_too(store, policy):
    left = {}
    for capture in (False, True):
        machine = attrs.evolve(GPU, capture=capture)
        trainer = training(store, POLICIES[policy], ALGORITHMS["iql"], machine, None, 20)
        trainer.advance(10, lambda event: None)
        acting = Captured(trainer.algorithm.policy.eval().mode, on=capture)
        with torch.inference_mode():
            for _ in range(WARM_UP + 2):
                acting(torch.zeros(10, contracts.SIZE, device="cuda"))
        trainer.advance(20, lambda event: None)
        left[capture] = torch.cuda.get_rng_state(), trainer.loader.generator.get_state()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(left[True], left[False], strict=True))


@pytest.mark.gpu
def test_captured_trainings_of_one_process_are_each_what_it_is_alone(store):
    capturing, turns, found = attrs.evolve(GPU, capture=True), Turns(), {}
    each = {name: EVERY[name] for name in ("factored", "saint", "spin_cached", "autoregressive")}

    def body(name):
        torch.cuda.set_stream(torch.cuda.Stream())
        with turns.taking_part():
            found[name], _ = losses(store, each[name], ALGORITHMS["iql"], capturing, steps=50)

    threads = [threading.Thread(target=body, args=(name,), daemon=True) for name in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for name, policy in each.items():
        alone, _ = losses(store, policy, ALGORITHMS["iql"], capturing, steps=50)
        assert found[name] == [pytest.approx(step, **CLOSE) for step in alone]


@pytest.mark.gpu
def test_a_captured_pre_training_and_captured_starts_are_eager_ones(store, monkeypatch, tmp_path):
    eager, capturing = (
        before_training(store, attrs.evolve(GPU, capture=capture), 50, monkeypatch, tmp_path / str(capture))
        for capture in (False, True)
    )
    assert len(capturing) == 150
    # Accuracy is a share of few entries: one more or less of them is more than the last digit.
    for ours, theirs in zip(capturing, eager, strict=True):
        for name, value in ours.items():
            assert value == pytest.approx(theirs[name], **(CLOSE if "loss" in name else {"abs": 0.1})), name


@pytest.mark.gpu
def test_a_policy_that_waits_for_the_device_trains_as_it_is_and_says_where(store, monkeypatch):
    def waiting(self, observation, action=None):
        assert float(observation.sum()) < 1e9
        return self.heads(self.trunk(self.standardizer(observation)))

    monkeypatch.setattr(FactoredPolicy, "logits", waiting)
    told = []
    trainer = training(store, POLICIES["factored"], ALGORITHMS["iql"], attrs.evolve(GPU, capture=True), None, 10)
    trainer.advance(10, told.append)
    (notice,) = [each.message for each in told if isinstance(each, Notice)]
    assert "waits for the device" in notice and "test_captured.py" in notice
    assert trainer.step == 10


@pytest.mark.gpu
@pytest.mark.parametrize("action", ["sample", "mode"])
@pytest.mark.parametrize("policy", ["factored", "autoregressive", "saint"])
def test_captured_acting_is_eager_acting(policy, action):
    task = get_task("cheetah-run")
    made = contracts.build_policy(POLICIES[policy], task.action_spec(3), size=task.observation_size).cuda()
    environment, seeds = BatchedEnvironment(task, 3, 4), episode_seeds(0, 12)
    eager, captured_ones = (
        evaluate(made, environment, seeds, action=action, steps=20, capture=capture) for capture in (False, True)
    )
    assert captured_ones == pytest.approx(eager)
