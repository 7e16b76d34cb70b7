"""Checks of inputs and the command line, shared by the torch runners of an exported policy."""

import argparse
import json
from pathlib import Path

import torch


class TorchPolicy:
    """An exported policy.

    Args:
        folder: folder of its files.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.card = json.loads((self.folder / "card.json").read_text(encoding="utf-8"))

    def decide(self, observation, noise, allowed):
        """Action, control and logits of checked inputs; noise is None for the most likely choices."""
        raise NotImplementedError

    @torch.inference_mode()
    def act(self, observation, noise=None, allowed=None):
        """Decide for a batch.

        Args:
            observation: (B, S) floats, raw.
            noise: (B, N, K) standard Gumbel noise to sample with; None for the most likely choices.
            allowed: (B, N, K) bool, False for choices that must not be made; None for all.

        Returns:
            action (B, N) int64, control (B, N) float32, logits (B, N, K) float32.

        Raises:
            ValueError: for an input of the wrong shape or kind, for numbers that are not finite, and for a sub-action
                none of whose choices is allowed.
        """
        size, nvec = self.card["observation_size"], self.card["nvec"]
        observation = tensor("observation", observation)
        numbers = not observation.is_complex() and observation.dtype != torch.bool
        if not numbers or observation.shape[1:] != (size,) or not len(observation):
            raise ValueError(
                f"observation must be numbers (B, {size}); found {observation.dtype} {tuple(observation.shape)}"
            )
        observation = observation.float()
        if not observation.isfinite().all():
            row, entry = (~observation.isfinite()).nonzero()[0].tolist()
            raise ValueError(f"observation must be finite; found {observation[row, entry]} in row {row} at {entry}")
        shape = (len(observation), len(nvec), max(nvec))
        exists = torch.arange(max(nvec)) < torch.tensor(nvec)[:, None]  # (N, K)
        allowed = exists.expand(shape) if allowed is None else tensor("allowed", allowed)
        if allowed.dtype != torch.bool or allowed.shape != shape:
            raise ValueError(f"allowed must be bools {shape}; found {allowed.dtype} {tuple(allowed.shape)}")
        possible = (allowed & exists).any(-1)
        if not possible.all():
            row, slot = (~possible).nonzero()[0].tolist()
            raise ValueError(f"allowed must leave every sub-action a choice; found none for {slot} in row {row}")
        if noise is not None:
            noise = tensor("noise", noise)
            if not noise.is_floating_point() or noise.shape != shape or not noise.isfinite().all():
                raise ValueError(f"noise must be finite floats {shape}; found {noise.dtype} {tuple(noise.shape)}")
            noise = noise.float()
        return self.decide(observation, noise, allowed.contiguous())


def tensor(name, values):
    """`values` as a tensor.

    Raises:
        ValueError: when they form no array.
    """
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array; found {type(values).__name__}: {error}") from error


def main(policy, description):
    """Print an action for every observation of a file."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("observations", help="JSON file: a list of observations, each a list of numbers")
    parser.add_argument("--sample", type=int, metavar="SEED", help="sample the actions, with this seed")
    options = parser.parse_args()
    made = policy()
    observations = torch.tensor(json.loads(Path(options.observations).read_text(encoding="utf-8")))
    nvec = made.card["nvec"]
    noise = None
    if options.sample is not None:
        generator = torch.Generator().manual_seed(options.sample)
        uniform = torch.rand((len(observations), len(nvec), max(nvec)), generator=generator)
        noise = -(-uniform.clamp_min(1e-30).log()).log()
    action, control, _ = made.act(observations, noise)
    for row in range(len(action)):
        print(f"action {action[row].tolist()} {made.card.get('control_is', 'control')} {control[row].tolist()}")
