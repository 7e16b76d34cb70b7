"""Training behaviour policies: actor processes step environments, the learner updates a decoupled Q-network.

They share only the replay and the learner's weights, through memory-mapped files, so that both sides run at their own
speed and a killed run resumes from its folder.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from spinrl import checkpoint
from spinrl.behaviors.shipped import Behavior, load_behavior
from spinrl.behaviors.train.actor import Mailbox, act, greedy_return
from spinrl.behaviors.train.decqn import DecQN
from spinrl.behaviors.train.learner import Learner, source_of
from spinrl.behaviors.train.replay import SharedReplay, share_out
from spinrl.cache import file_lock
from spinrl.seeding import numpy_generator
from spinrl.tasks import get_task


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

    The learner is saved every `save_every` seconds. Every `snapshot_every` seconds a copy of the network is kept, from
    which behaviours can be chosen later; at first up to twelve times as often, since an easy task passes a medium level
    in a minute.

    Args:
        config: configuration of the training.
        folder: folder of the training.
        command: command line, for the record.
        start: behaviour with which a new training begins, of the same task and hidden layers; None for random weights.
            Ignored on resuming.
        fresh_replay: whether to forget earlier transitions, e.g. after a change of reward shaping.
        report_every, save_every, snapshot_every: periods in seconds.

    Yields:
        updates, env_steps, loss, greedy (mean return of the last ten greedy episodes), seconds, updates_per_second.

    Raises:
        RuntimeError: when another training uses the folder, or an actor dies.
        ValueError: when the folder has other network or replay sizes, or the device is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder):
        learner = Learner(config)
        config = learner.config
        mailbox = Mailbox(folder, learner.network)  # refuses the folder of other networks
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
        try:
            with _acting(config, folder, int(replay.env_steps.sum())) as actors:
                for progress in _learn(learner, replay, mailbox, folder, report_every, save_every, snapshot_every):
                    for number, process in enumerate(actors):
                        if not process.is_alive():
                            raise RuntimeError(
                                f"actor {number} died, exit code {process.exitcode}; its own error stands above"
                            )
                    yield progress
        finally:
            checkpoint.save(learner.state(), folder / "learner.pt")
            if learner.updates:  # the last state is a candidate too
                _keep_snapshot(learner, replay, folder)


@contextlib.contextmanager
def _acting(config: DecQN, folder: Path, steps_before: int) -> Iterator[list[SpawnProcess]]:
    """The actors at work; they have ended when the block is left, before the folder is another training's."""
    context = multiprocessing.get_context("spawn")
    actors = [
        context.Process(target=act, args=(config, folder, actor, os.getpid(), steps_before), daemon=True)
        for actor in range(config.num_actors)
    ]
    for process in actors:
        process.start()
    try:
        yield actors
    finally:
        for process in actors:
            process.terminate()
            process.join()


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder's lock against other trainings; the system frees it when the process dies."""
    lock = file_lock(folder / "training.lock", remedy="name another --folder")
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
    mailbox: Mailbox,
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
            needed = config.warmup_steps + learner.updates * config.steps_per_update
            while replay.env_steps.sum() < needed and time.monotonic() < waiting:
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
    """Keep a snapshot of the network and its figures, for `spinrl.behaviors.train.ship` to choose from."""
    kept = {
        "network": learner.network.state_dict(),
        "updates": learner.updates,
        "env_steps": int(replay.env_steps.sum()),
        "seconds": learner.seconds,
        "greedy": greedy_return(folder),
    } | learner.origin()
    checkpoint.save(kept, folder / f"snapshot-{learner.updates:08d}.pt")


def _keep_starts(learner: Learner, start: Behavior, folder: Path) -> None:
    """Keep the shipped behaviours as snapshots too, weakest first, since a short training may not improve on them."""
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
        kept |= learner.origin() | {"started_from": source_of(behavior)}
        checkpoint.save(kept, folder / f"snapshot-{0:08d}-{number}.pt")  # sorted before those of the training
