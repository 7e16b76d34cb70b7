"""Training behaviour policies: actor processes step environments, the learner updates a decoupled Q-network.

They share the replay and the published weights through memory-mapped files and nothing else, so that either
side runs at its own speed and a killed run resumes from its folder.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import numpy as np
import torch
from attrs.validators import deep_iterable, ge, gt, in_, le, lt, optional
from filelock import FileLock, Timeout
from torch import nn
from torch.nn import functional

from spinrl import checkpoint
from spinrl.behaviors.behavior import Behavior, load_behavior, weights_name
from spinrl.behaviors.network import DecoupledQNetwork, joint_value
from spinrl.behaviors.replay import NStepWindow, ReplayLayout, SharedReplay, open_array, share_out
from spinrl.machine import available_cores, choose_device
from spinrl.plain import to_plain
from spinrl.registry import Component, register
from spinrl.seeding import child_seed, numpy_generator
from spinrl.tasks import EPISODE_STEPS, BatchedEnvironment, get_task


class ShapingConfig(Component):
    """Base of kind "shaping"."""

    kind: ClassVar[str] = "shaping"

    def bonus(self, observation: np.ndarray) -> float:
        """Reward added to the task's own for an (S,) observation, while training a behaviour policy only."""
        raise NotImplementedError


@register
@attrs.frozen(kw_only=True)
class Upright(ShapingConfig):
    """Reward for a high head and an upright torso, growing linearly where the task's own reward is still flat.

    Attributes:
        weight: bonus per step at full height, upright.
        height_index: which entry of the observation is the head height, in metres.
        height: head height that earns the whole bonus, in metres.
        upright_index: which entry of the observation is the torso's uprightness, from -1 to 1.
    """

    weight: float = attrs.field(default=0.5, validator=gt(0))
    height_index: int = attrs.field(validator=ge(0))
    height: float = attrs.field(validator=gt(0))
    upright_index: int = attrs.field(validator=ge(0))

    def bonus(self, observation: np.ndarray) -> float:
        height = min(max(float(observation[self.height_index]) / self.height, 0.0), 1.0)
        return self.weight * height * (1.0 + float(observation[self.upright_index])) / 2.0


@register
@attrs.frozen(kw_only=True)
class Progressive(ShapingConfig):
    """Rewards for several entries of the observation that add up, each growing linearly up to its target.

    Where a task multiplies its conditions, a sum lets each of them be learnt before the others are met.

    Attributes:
        indices: which entries of the observation.
        targets: value of each that earns its whole reward; nothing is earned below 0.
        weights: reward a step of each at its target.
    """

    indices: tuple[int, ...] = attrs.field(converter=tuple, validator=deep_iterable(ge(0)))
    targets: tuple[float, ...] = attrs.field(converter=tuple, validator=deep_iterable(gt(0)))
    weights: tuple[float, ...] = attrs.field(converter=tuple, validator=deep_iterable(gt(0)))

    def __attrs_post_init__(self) -> None:
        if not len(self.indices) == len(self.targets) == len(self.weights):
            raise ValueError("indices, targets and weights want the same length")

    def bonus(self, observation: np.ndarray) -> float:
        met = np.clip(observation[list(self.indices)] / np.asarray(self.targets), 0.0, 1.0)
        return float(met @ np.asarray(self.weights))


class BehaviorTraining(Component):
    """Base of kind "behavior_training"."""

    kind: ClassVar[str] = "behavior_training"


@register
@attrs.frozen(kw_only=True)
class DecQN(BehaviorTraining):
    """Decoupled Q-learning over bins (Seyde et al., ICLR 2023): double Q, n-step returns, LayerNorm MLP.

    Attributes:
        task: name of the task.
        bins: choices per sub-action.
        seed: seed of initial weights, exploration and episodes.
        hidden: widths of the hidden layers.
        critics: networks that learn side by side; the least of their values is the target (Fujimoto et al., ICML
            2018), which keeps values from growing where many sub-actions are maximised over. The first one acts.
        learning_rate: Adam's.
        final_learning_rate: what it falls to geometrically over `decay_updates`, and stays at; None keeps it as it is.
        decay_updates: updates in all, counted from the first, until the learning rate is the final one.
        batch_size: transitions per update.
        gamma: discount per control step.
        n_step: rewards summed before bootstrapping.
        polyak_rate: rate at which the target network follows.
        max_gradient_norm: gradients are clipped to this norm.
        reward_scale: rewards are multiplied by this in the targets.
        shaping: bonus added to the training reward, or none.
        num_actors: actor processes; 0 for one on each core but the learner's. Another number may go on with a training.
        envs_per_actor: environments stepped in lock-step by each.
        epsilon: share of random sub-actions of the most exploring environment; the others fall geometrically.
        min_epsilon: share of random sub-actions of the least exploring environment.
        hold_steps: mean length of a random sub-action, in control steps, in every second environment.
        default_pose_share: share of training episodes that start in the model's reference pose.
        training_episode_steps: length of exploring episodes, in control steps.
        warmup_steps: environment steps with random actions before the first update; they fix the normalisation.
        replay_capacity: transitions kept.
        steps_per_update: environment steps per update below which the learner waits for the actors.
        device: where the learner's networks live: auto (a GPU if there is one), cpu or cuda. Actors are on the CPU.
        compile: compile the loss with torch.compile, which wants a C++ compiler; about 1.3 times as fast on a CPU.
    """

    task: str
    bins: int = attrs.field(default=3, validator=[ge(2), le(100)])
    seed: int = 0
    hidden: tuple[int, ...] = attrs.field(default=(256, 256), converter=tuple)
    critics: int = attrs.field(default=1, validator=ge(1))
    learning_rate: float = attrs.field(default=3e-4, validator=gt(0))
    final_learning_rate: float | None = attrs.field(default=None, validator=optional(gt(0)))
    decay_updates: int = attrs.field(default=300_000, validator=ge(1))
    batch_size: int = attrs.field(default=128, validator=ge(1))
    gamma: float = attrs.field(default=0.99, validator=[gt(0), lt(1)])
    n_step: int = attrs.field(default=3, validator=ge(1))
    polyak_rate: float = attrs.field(default=0.005, validator=[gt(0), le(1)])
    max_gradient_norm: float = attrs.field(default=40.0, validator=gt(0))
    reward_scale: float = attrs.field(default=0.1, validator=gt(0))
    shaping: ShapingConfig | None = None
    num_actors: int = attrs.field(default=0, validator=ge(0))
    envs_per_actor: int = attrs.field(default=8, validator=ge(2))
    epsilon: float = attrs.field(default=0.4, validator=[gt(0), le(1)])
    min_epsilon: float = attrs.field(default=0.005, validator=[gt(0), le(1)])
    hold_steps: float = attrs.field(default=4.0, validator=ge(1))
    default_pose_share: float = attrs.field(default=0.5, validator=[ge(0), le(1)])
    training_episode_steps: int = attrs.field(default=500, validator=[ge(1), le(EPISODE_STEPS)])
    warmup_steps: int = attrs.field(default=20_000, validator=ge(1000))
    replay_capacity: int = attrs.field(default=1_000_000, validator=ge(1000))
    steps_per_update: float = attrs.field(default=2.0, validator=ge(0))
    device: Literal["auto", "cpu", "cuda"] = attrs.field(default="auto", validator=in_(("auto", "cpu", "cuda")))
    compile: bool = False

    def on_this_machine(self) -> DecQN:
        """With the device and the number of actors decided where they were left to the machine.

        Raises:
            ValueError: when CUDA is asked for and torch finds none.
        """
        actors = self.num_actors or max(1, available_cores() - 1)
        return attrs.evolve(self, device=choose_device(self.device, "DecQN.device"), num_actors=actors)

    def layout(self) -> ReplayLayout:
        """Sizes of the shared replay."""
        task = get_task(self.task)
        return ReplayLayout(
            num_actors=self.num_actors,
            capacity=self.replay_capacity,
            observation_size=task.observation_size,
            num_sub_actions=task.num_sub_actions,
        )

    def learning_rate_at(self, updates: int) -> float:
        """The learning rate after so many updates."""
        if self.final_learning_rate is None:
            return self.learning_rate
        share = min(updates / self.decay_updates, 1.0)
        return self.learning_rate ** (1.0 - share) * self.final_learning_rate**share

    def network(self) -> DecoupledQNetwork:
        """A fresh network of this configuration's sizes."""
        task = get_task(self.task)
        return DecoupledQNetwork(task.observation_size, task.action_spec(self.bins), self.hidden)


class _Mailbox:
    """Weights published by the learner, read by actors; a torn read mixes two neighbouring updates, harmlessly."""

    def __init__(self, folder: Path, network: DecoupledQNetwork) -> None:
        size = sum(value.numel() for value in network.state_dict().values())
        self._array = open_array(folder / "weights.bin", np.float32, (size + 1,))
        self._seen = 0.0

    def publish(self, network: DecoupledQNetwork) -> None:
        flat = torch.cat([value.detach().reshape(-1) for value in network.state_dict().values()]).cpu()
        self._array[1:] = flat.numpy()
        self._array[0] += 1

    def collect(self, network: DecoupledQNetwork) -> bool:
        """Load what was published since; True once anything has been."""
        version = float(self._array[0])
        if version != self._seen:
            self._seen = version
            flat = torch.from_numpy(np.array(self._array[1:]))
            values = list(network.state_dict().values())
            for value, part in zip(values, flat.split([v.numel() for v in values]), strict=True):
                value.copy_(part.view_as(value))
        return version > 0


class _Exploration:
    """Per-environment, per-sub-action random choices, some of them held for several control steps."""

    def __init__(self, config: DecQN, num_envs: int, rng: np.random.Generator) -> None:
        shape = (num_envs, get_task(config.task).num_sub_actions)
        ladder = np.geomspace(config.epsilon, config.min_epsilon, num_envs)
        ladder[-1] = 0.0  # the last one is greedy: it draws the learning curve
        hold = np.where(np.arange(num_envs) % 2 == 0, config.hold_steps, 1.0)
        # Of all steps a share epsilon is random when a hold of mean length h starts with rate e / (h (1 - e) + e).
        self._start = (ladder / (hold * (1 - ladder) + ladder))[:, None]
        self._stop = (1.0 / hold)[:, None]
        self._active = np.zeros(shape, dtype=bool)
        self._choice = np.zeros(shape, dtype=np.int64)
        self._bins = config.bins
        self._rng = rng

    def __call__(self, greedy: np.ndarray) -> np.ndarray:
        """(n, N) greedy bins to (n, N) explored bins."""
        ends = self._rng.random(greedy.shape) < self._stop
        self._active &= ~ends
        starts = ~self._active & (self._rng.random(greedy.shape) < self._start)
        self._choice = np.where(starts, self._rng.integers(0, self._bins, greedy.shape), self._choice)
        self._active |= starts
        return np.where(self._active, self._choice, greedy)


def _act(config: DecQN, folder: Path, actor: int, parent: int, steps_before: int) -> None:
    """Body of an actor process: step environments until the parent is gone."""
    torch.set_num_threads(1)
    task = get_task(config.task)
    replay = SharedReplay(folder, config.layout())
    network = config.network()
    mailbox = _Mailbox(folder, network)
    environment = BatchedEnvironment(task, config.bins, config.envs_per_actor)
    # A resumed actor starts new episodes, so its streams move on with the steps already taken.
    rng = numpy_generator(config.seed, "actor", actor, steps_before)
    explore = _Exploration(config, config.envs_per_actor, rng)
    greedy_env = config.envs_per_actor - 1
    windows = [NStepWindow(config.n_step, config.gamma) for _ in range(config.envs_per_actor)]
    lengths = np.full(config.envs_per_actor, config.training_episode_steps)
    lengths[greedy_env] = EPISODE_STEPS
    ages = np.zeros(config.envs_per_actor, dtype=np.int64)
    returns = np.zeros(config.envs_per_actor)

    def start(index: int) -> np.ndarray:
        pose = index != greedy_env and rng.random() < config.default_pose_share
        return environment.reset(index, int(rng.integers(2**31)), default_pose=bool(pose))

    observations = np.stack([start(index) for index in range(config.envs_per_actor)])
    ages[:greedy_env] = rng.integers(0, config.training_episode_steps, greedy_env)  # ends spread over time
    step = 0
    trained = False
    while os.getppid() == parent:
        if step % 50 == 0:
            trained = mailbox.collect(network)
        if trained:
            with torch.inference_mode():
                actions = explore(network(torch.from_numpy(observations)).argmax(-1).numpy())
        else:
            actions = rng.integers(0, config.bins, (config.envs_per_actor, task.num_sub_actions))
        following, rewards = environment.step(actions)
        ages += 1
        returns += rewards
        for i in range(config.envs_per_actor):
            over = ages[i] >= lengths[i]
            shaped = rewards[i] + (config.shaping.bonus(following[i]) if config.shaping else 0.0)
            ready = windows[i].push(observations[i], actions[i], shaped, following[i], over)
            for transition in ready:
                replay.append(actor, transition._replace(reward=transition.reward * config.reward_scale))
            if over:
                if i == greedy_env:
                    with (folder / f"greedy-{actor}.jsonl").open("a") as file:
                        file.write(json.dumps({"time": time.time(), "return": round(float(returns[i]), 2)}) + "\n")
                following[i] = start(i)
                ages[i] = 0
                returns[i] = 0.0
        observations = following
        replay.env_steps[actor] += config.envs_per_actor
        step += 1


class Learner:
    """Networks, targets and optimiser, with the update of double decoupled Q-learning."""

    def __init__(self, config: DecQN) -> None:
        self.config = config = config.on_this_machine()
        torch.manual_seed(child_seed(config.seed, "behavior", "weights"))
        self.networks = nn.ModuleList([config.network() for _ in range(config.critics)]).to(config.device)
        self.targets = nn.ModuleList([config.network() for _ in range(config.critics)]).to(config.device)
        self.targets.load_state_dict(self.networks.state_dict())
        self.optimizer = torch.optim.Adam(self.networks.parameters(), lr=config.learning_rate, fused=True)
        self.updates = 0
        self.seconds = 0.0
        self.started_from: str | None = None  # name and fingerprint of a behaviour
        self.phases: list[dict[str, Any]] = []  # which command, from which update on
        self.can_act = False  # before that, actors act at random, which tells what is normal for an observation
        self._loss = torch.compile(self.loss) if config.compile else self.loss

    @property
    def network(self) -> DecoupledQNetwork:
        """The one that acts."""
        network = self.networks[0]
        assert isinstance(network, DecoupledQNetwork)
        return network

    def set_normalizer(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Fix the input normalisation of all networks, from (S,) statistics of observations."""
        for network in (*self.networks, *self.targets):
            assert isinstance(network, DecoupledQNetwork)
            network.set_normalizer(mean, std)
        self.can_act = True

    def start_from(self, behavior: Behavior) -> None:
        """Begin with the network of a behaviour of the same task, of whatever number of choices.

        Critics beside the first keep a fifth of their random hidden layers: equal ones would stay equal, and the least
        of their values would correct nothing.
        """
        assert behavior.network is not None
        state = behavior.network.state_for(get_task(self.config.task).action_spec(self.config.bins))
        for number, network in enumerate(self.networks):
            before = network.state_dict().items()
            random = {key: value.to("cpu", copy=True) for key, value in before if key.startswith("body.")}
            network.load_state_dict(state)
            if number > 0:
                network.load_state_dict({**state, **{key: state[key].lerp(random[key], 0.2) for key in random}})
        self.targets.load_state_dict(self.networks.state_dict())
        self.started_from = _source_of(behavior)
        self.can_act = True

    def begin_phase(self, command: str) -> None:
        """From here on it learns as `command` says; a phase without an update leaves no trace."""
        self.phases = [phase for phase in self.phases if phase["from_updates"] < self.updates]
        if not self.phases or self.phases[-1]["command"] != command:
            self.phases.append({"from_updates": self.updates, "command": command})

    def loss(
        self,
        observation: torch.Tensor,
        action: torch.Tensor,
        reward: torch.Tensor,
        discount: torch.Tensor,
        bootstrap: torch.Tensor,
    ) -> torch.Tensor:
        """Huber losses of the joint action's values against the n-step double-Q target; shapes as `sample` gives."""
        with torch.no_grad():
            best = self.network(bootstrap).argmax(-1)  # (B, N): the online network chooses,
            values = [joint_value(target(bootstrap), best) for target in self.targets]  # the target ones judge
            goal = reward + discount * torch.stack(values).amin(0)  # (B,)
        losses = [
            functional.smooth_l1_loss(joint_value(network(observation), action), goal) for network in self.networks
        ]
        return torch.stack(losses).sum()

    def update(self, batch: tuple[np.ndarray, ...]) -> torch.Tensor:
        """One gradient step on a replay sample; gives the detached loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.updates)
        loss = self._loss(*(torch.from_numpy(part).to(self.config.device) for part in batch))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), self.config.max_gradient_norm)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.targets.parameters()), list(self.networks.parameters()), self.config.polyak_rate
            )
        self.updates += 1
        return loss.detach()

    def state(self) -> dict[str, Any]:
        return {
            "networks": self.networks.state_dict(),
            "targets": self.targets.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "seconds": self.seconds,
        } | self.origin()

    def origin(self) -> dict[str, Any]:
        """How it came to be what it is, as plain data."""
        return {"started_from": self.started_from, "phases": self.phases, "configuration": to_plain(self.config)}

    def load(self, state: dict[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        self.targets.load_state_dict(state["targets"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates, self.seconds = state["updates"], state["seconds"]
        self.started_from, self.phases = state.get("started_from"), state.get("phases", [])
        self.can_act = True


def train(
    config: DecQN,
    folder: Path,
    *,
    command: str,
    start: Behavior | None = None,
    fresh_replay: bool = False,
    report_every: float = 10.0,
    save_every: float = 60.0,
    snapshot_every: float = 60.0,
) -> Iterator[dict[str, Any]]:
    """Train in `folder`, resuming what is there; yields progress about every `report_every` seconds.

    Every `save_every` seconds the learner is saved; every `snapshot_every` seconds a copy of the network is kept
    beside it, of which a behaviour of any level can be chosen later. At first copies are kept up to twelve times as
    often, since an easy task passes a medium level in a minute.

    Args:
        config: how.
        folder: where training lives.
        command: what trains like this, for the record.
        start: where a new training begins, of the same task and hidden layers; None for random weights. One that
            resumes has begun already.
        fresh_replay: forget the transitions collected before, as when their reward is shaped in another way now.
        report_every, save_every, snapshot_every: in seconds.

    Yields:
        updates, env_steps, loss, greedy (mean return of the last ten greedy episodes), seconds, updates_per_second.

    Raises:
        RuntimeError: when another training works in the folder, or an actor dies.
        ValueError: when the folder is of other networks or another replay, or the device is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder):
        learner = Learner(config)
        config = learner.config
        mailbox = _Mailbox(folder, learner.network)  # refuses the folder of other networks
        resumes = (folder / "learner.pt").exists()
        if resumes:
            learner.load(checkpoint.load(folder / "learner.pt"))
        elif start is not None:
            learner.start_from(start)
        learner.begin_phase(command)
        if start is not None and not resumes:
            _keep_starts(learner, start, folder)
        share_out(folder, config.layout())
        replay = SharedReplay(folder, config.layout())
        if fresh_replay:
            replay.clear()
        if learner.can_act:
            mailbox.publish(learner.network)
        context = multiprocessing.get_context("spawn")
        steps_before = int(replay.env_steps.sum())
        actors = [
            context.Process(target=_act, args=(config, folder, actor, os.getpid(), steps_before), daemon=True)
            for actor in range(config.num_actors)
        ]
        for process in actors:
            process.start()
        try:
            for progress in _learn(learner, replay, mailbox, folder, report_every, save_every, snapshot_every):
                for number, process in enumerate(actors):
                    if not process.is_alive():
                        raise RuntimeError(
                            f"actor {number} died, exit code {process.exitcode}; its own error stands above"
                        )
                yield progress
        finally:
            for process in actors:
                process.terminate()
                process.join()  # before the folder is another training's
            checkpoint.save(learner.state(), folder / "learner.pt")
            if learner.updates:  # the last state is a candidate too
                _keep_snapshot(learner, replay, folder)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """No other training works in the folder meanwhile; the system frees the lock when the process dies."""
    lock = FileLock(folder / "training.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RuntimeError(f"another training is at work in {folder}; stop it, or name another --folder") from None
    try:
        yield
    finally:
        lock.release()


def _learn(
    learner: Learner,
    replay: SharedReplay,
    mailbox: _Mailbox,
    folder: Path,
    report_every: float,
    save_every: float,
    snapshot_every: float,
) -> Iterator[dict[str, Any]]:
    config = learner.config
    rng = numpy_generator(config.seed, "replay", learner.updates)
    while replay.written.sum() < config.warmup_steps:
        yield {"updates": learner.updates, "env_steps": int(replay.env_steps.sum()), "seconds": learner.seconds}
        time.sleep(min(report_every, 2.0))
    if not learner.can_act:
        sample = torch.from_numpy(replay.sample(config.warmup_steps, rng)[0])
        learner.set_normalizer(sample.mean(0), sample.std(0))
    mailbox.publish(learner.network)
    reported = saved = snapshot = time.monotonic()
    since = learner.updates
    while True:
        loss = learner.update(replay.sample(config.batch_size, rng))
        if learner.updates % 100 == 0:
            mailbox.publish(learner.network)
            waiting = time.monotonic() + report_every  # for the actors, but not without a report
            wanted = config.warmup_steps + learner.updates * config.steps_per_update
            while replay.env_steps.sum() < wanted and time.monotonic() < waiting:
                time.sleep(0.01)
        now = time.monotonic()
        if now - reported >= report_every:
            learner.seconds += now - reported
            yield {
                "updates": learner.updates,
                "env_steps": int(replay.env_steps.sum()),
                "loss": float(loss),
                "greedy": greedy_return(folder),
                "seconds": learner.seconds,
                "updates_per_second": (learner.updates - since) / (now - reported),
            }
            reported, since = now, learner.updates
        if now - saved >= save_every:
            checkpoint.save(learner.state(), folder / "learner.pt")
            saved = now
        if now - snapshot >= min(snapshot_every, max(snapshot_every / 12, (learner.seconds + now - reported) / 20)):
            _keep_snapshot(learner, replay, folder)
            snapshot = now


def _keep_snapshot(learner: Learner, replay: SharedReplay, folder: Path) -> None:
    """Keep the network as it is now, with what is known of it, for `spinrl.behaviors.shipping` to choose from."""
    kept = {
        "network": learner.network.state_dict(),
        "updates": learner.updates,
        "env_steps": int(replay.env_steps.sum()),
        "seconds": learner.seconds,
        "greedy": greedy_return(folder),
    } | learner.origin()
    checkpoint.save(kept, folder / f"snapshot-{learner.updates:08d}.pt")


def _keep_starts(learner: Learner, start: Behavior, folder: Path) -> None:
    """Keep what is shipped as snapshots too, weakest first: a short training may better neither expert nor medium."""
    for number, level in enumerate(("medium", "expert")):
        behavior = load_behavior(start.task, start.bins, level)
        assert behavior.network is not None
        kept = {
            "network": behavior.network.state_for(get_task(start.task).action_spec(learner.config.bins)),
            "updates": 0,
            "env_steps": 0,
            "seconds": 0.0,
            "greedy": behavior.card["return_mean"],  # with its own number of choices
        }
        kept |= learner.origin() | {"started_from": _source_of(behavior)}
        checkpoint.save(kept, folder / f"snapshot-{0:08d}-{number}.pt")  # sorted before those of the training


def _source_of(behavior: Behavior) -> str:
    return f"{weights_name(behavior.task, behavior.bins, behavior.level)} ({behavior.fingerprint})"


def greedy_return(folder: Path, last: int = 10) -> float | None:
    """Mean return of the last greedy episodes over all actors, None before the first."""
    returns: deque[tuple[float, float]] = deque()
    for path in folder.glob("greedy-*.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()[-last:]]
        returns.extend((record["time"], record["return"]) for record in records)
    newest = sorted(returns)[-last:]
    return float(np.mean([value for _, value in newest])) if newest else None
