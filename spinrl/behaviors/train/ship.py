"""Chooses the expert and medium snapshots of a training folder, and ships their weights and cards."""

from __future__ import annotations

import bisect
import functools
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from safetensors.torch import save as save_safetensors

from spinrl import checkpoint
from spinrl.behaviors.network import DecoupledQNetwork
from spinrl.behaviors.shipped import BehaviorError, weights_name
from spinrl.behaviors.train.decqn import DecQN
from spinrl.config.serialize import to_plain
from spinrl.machine import available_cores
from spinrl.nn.fixed_batch import in_fixed_batches
from spinrl.seeding import child_seed
from spinrl.tasks import EPISODE_STEPS, Environment, ParallelEnvironment, get_task


@attrs.frozen(kw_only=True)
class Candidate:
    """A snapshot that could be shipped, with its returns in the simulator."""

    path: Path
    updates: int
    env_steps: int
    seconds: float
    returns: tuple[float, ...]
    started_from: str | None = None
    phases: Sequence[dict[str, Any]] = ()
    configuration: dict[str, Any] | None = None

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))


def greedy_returns(network: DecoupledQNetwork, environment: Environment, steps: int = EPISODE_STEPS) -> list[float]:
    """Returns of greedy episodes with fixed seeds, one in each environment."""
    episodes = environment.num_envs
    observations = np.stack([environment.reset(i, child_seed(0, "behavior", i)) for i in range(episodes)])
    returns = np.zeros(episodes)
    with torch.inference_mode():
        for _ in range(steps):
            actions = in_fixed_batches(network, torch.from_numpy(observations)).argmax(-1).numpy()
            observations, rewards = environment.step(actions)
            returns += rewards
    return returns.tolist()


def _judge(config: DecQN, environment: Environment, path: Path) -> Candidate:
    state = checkpoint.load(path)
    network = config.network()
    network.load_state_dict(_half(state["network"]))  # judged as it will be shipped
    return Candidate(
        path=path,
        updates=state["updates"],
        env_steps=state["env_steps"],
        seconds=state["seconds"],
        returns=tuple(greedy_returns(network, environment)),
        **{key: state[key] for key in ("started_from", "phases", "configuration") if key in state},
    )


def _half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # The normalisation stays fp32: offsets of far-off observations would lose too much.
    return {key: value if key.startswith("observation_") else value.half() for key, value in state.items()}


def choose(config: DecQN, folder: Path, *, episodes: int = 20, shortlist: int = 4) -> dict[str, Candidate]:
    """The expert and medium snapshots of a training folder, each judged over `episodes` greedy episodes.

    Expert is the best among the last snapshot and those with the highest running greedy return. Medium is an earlier
    snapshot with about a third of its return. The running return lags when a task is learnt in minutes, so medium is
    found by bisection over measured returns of snapshots.

    Raises:
        FileNotFoundError: when there is no snapshot to choose from.
    """
    running = {}
    for path in sorted(folder.glob("snapshot-*.pt")):
        greedy = checkpoint.load(path)["greedy"]
        if greedy is not None:
            running[path] = greedy
    if not running:
        raise FileNotFoundError(f"{folder} holds no snapshot with a greedy return yet; let the training go on")
    environment = ParallelEnvironment(get_task(config.task), config.bins, episodes, available_cores())
    try:
        return _choose(running, functools.cache(functools.partial(_judge, config, environment)), shortlist)
    finally:
        environment.close()


def _choose(running: dict[Path, float], judge: Callable[[Path], Candidate], shortlist: int) -> dict[str, Candidate]:
    best = {*sorted(running, key=lambda path: -running[path])[:shortlist], max(running)}
    expert = max(map(judge, best), key=lambda candidate: candidate.mean)
    third = expert.mean / 3
    before = [path for path in running if path <= expert.path]
    judged = []

    def reaches_third(path: Path) -> bool:
        judged.append(judge(path))
        return judged[-1].mean >= third

    crossing = bisect.bisect_left(before, True, key=reaches_third)
    judged += map(judge, before[max(crossing - 1, 0) : crossing + 1])  # the snapshots on either side of the crossing
    return {"expert": expert, "medium": min(judged, key=lambda each: abs(each.mean - third))}


def learning_curve(folder: Path, points: int = 24) -> list[dict[str, Any]]:
    """The running greedy return of a training folder, at up to `points` of its snapshots."""
    curve = []
    for path in sorted(folder.glob("snapshot-*.pt")):
        state = checkpoint.load(path)
        if state["greedy"] is not None and state["updates"]:
            hours, greedy = round(state["seconds"] / 3600, 3), round(state["greedy"], 1)
            curve.append({key: state[key] for key in ("updates", "env_steps")} | {"hours": hours, "return": greedy})
    chosen = np.unique(np.linspace(0, len(curve) - 1, min(points, len(curve))).round().astype(int))
    return [curve[index] for index in chosen]


def ship(
    config: DecQN,
    candidate: Candidate,
    level: str,
    target: Path,
    *,
    command: str,
    trials: Sequence[dict[str, Any]] = (),
    notes: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a candidate's weights (fp16 safetensors) and card into `target`. Ship the expert first: it may be refused.

    Args:
        config: configuration of its training.
        candidate: snapshot in its training's folder.
        level: "expert" or "medium".
        target: folder of the shipped files.
        command: command that trained it, for a snapshot of an earlier version, which does not record it.
        trials: other trials, each with at least `what` and `return`; trials on the present card are kept.
        notes: text for the card.
        overwrite: whether to replace an expert of higher mean return.

    Returns:
        The path of the card.

    Raises:
        BehaviorError: when a better expert is shipped, or `target` cannot be written; existing files stay.
    """
    name = weights_name(config.task, config.bins, level)
    weights_file, card_file = target / f"{name}.safetensors", target / f"{name}.json"
    before = _card_of_before(card_file)
    if level == "expert" and not overwrite and before.get("return_mean", -math.inf) > candidate.mean:
        raise BehaviorError(
            f"{card_file} tells of an expert of {before['return_mean']:.1f}, this one returns {candidate.mean:.1f}: "
            "nothing is shipped; add --overwrite to replace it"
        )
    content = save_safetensors(
        {key: value.contiguous() for key, value in _half(checkpoint.load(candidate.path)["network"]).items()}
    )
    known = before.get("trials", [])
    card = {
        **_card(config, candidate, level, command, content),
        "trials": [*known, *(trial for trial in trials if trial not in known)],
    } | ({"notes": notes} if notes else {})
    try:
        _write_together(target, {weights_file: content, card_file: (json.dumps(card, indent=1) + "\n").encode()})
    except OSError as error:
        raise BehaviorError(f"{name} is not shipped, {error}; --ship-only ships it later, --ship elsewhere") from error
    return card_file


def _card(config: DecQN, candidate: Candidate, level: str, command: str, weights: bytes) -> dict[str, Any]:
    """What a card says of a candidate, its training, and the file of its weights."""
    task = get_task(config.task)
    return {
        "task": config.task,
        "bins": config.bins,
        "level": level,
        "observation_size": task.observation_size,
        "hidden": list(config.hidden),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "return_mean": round(candidate.mean, 2),
        "return_std": round(float(np.std(candidate.returns)), 2),
        "returns": [round(value, 2) for value in candidate.returns],
        "published_expert_return": task.expert_return(config.bins),
        "started_from": candidate.started_from,
        "updates": candidate.updates,
        "env_steps": candidate.env_steps,
        "training_hours": round(candidate.seconds / 3600, 2),
        "phases": list(candidate.phases) or [{"from_updates": 0, "command": command}],
        "configuration": candidate.configuration or to_plain(config),
        "learning_curve": learning_curve(candidate.path.parent),
    }


def _write_together(folder: Path, files: Mapping[Path, bytes]) -> None:
    """Write files of a folder so that either all of them are new, or none."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as beside:
        for path, data in files.items():
            (Path(beside) / path.name).write_bytes(data)
        for path in files:
            os.replace(Path(beside) / path.name, path)


def _card_of_before(path: Path) -> dict[str, Any]:
    """The card that will be replaced, empty if there is none."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BehaviorError(f"{path} is damaged: {error}; delete it to ship another") from error
