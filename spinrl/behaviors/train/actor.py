"""Actor processes of a behaviour training: they step environments with the latest weights and fill the replay."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from pathlib import Path

import numpy as np
import torch

from spinrl.behaviors.network import DecoupledQNetwork
from spinrl.behaviors.train.decqn import DecQN
from spinrl.behaviors.train.replay import NStepWindow, SharedReplay, open_array
from spinrl.seeding import numpy_generator
from spinrl.tasks import EPISODE_STEPS, BatchedEnvironment, get_task


class Mailbox:
    """The learner's weights in shared memory; a torn read mixes two successive updates, which is harmless."""

    def __init__(self, folder: Path, network: DecoupledQNetwork) -> None:
        size = sum(value.numel() for value in network.state_dict().values())
        self._array = open_array(folder / "weights.bin", np.float32, (size + 1,))
        self._seen = 0.0

    def publish(self, network: DecoupledQNetwork) -> None:
        """Let actors see the weights as they are now."""
        flat = torch.cat([value.detach().reshape(-1) for value in network.state_dict().values()]).cpu()
        self._array[1:] = flat.numpy()
        self._array[0] += 1

    def collect(self, network: DecoupledQNetwork) -> bool:
        """Load weights that the learner wrote since; True once there were any."""
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


def act(config: DecQN, folder: Path, actor: int, parent: int, steps_before: int) -> None:
    """Body of an actor process: step environments until the parent is gone."""
    torch.set_num_threads(1)
    task = get_task(config.task)
    replay = SharedReplay(folder, config.layout())
    network = config.network()
    mailbox = Mailbox(folder, network)
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
        observation = environment.reset(index, int(rng.integers(2**31)))
        return environment.start_in_default_pose(index) if pose else observation

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
                    with (folder / f"greedy-{actor}.jsonl").open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"time": time.time(), "return": round(float(returns[i]), 2)}) + "\n")
                following[i] = start(i)
                ages[i] = 0
                returns[i] = 0.0
        observations = following
        replay.env_steps[actor] += config.envs_per_actor
        step += 1


def greedy_return(folder: Path, last: int = 10) -> float | None:
    """Mean return of the last greedy episodes over all actors, None before the first."""
    returns: deque[tuple[float, float]] = deque()
    for path in folder.glob("greedy-*.jsonl"):
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[-last:]]
        returns.extend((record["time"], record["return"]) for record in records)
    newest = sorted(returns)[-last:]
    return float(np.mean([value for _, value in newest])) if newest else None
