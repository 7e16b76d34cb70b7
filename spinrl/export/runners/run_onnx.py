"""Act with the policy in this folder. Needs onnxruntime and numpy; spinrl is not needed.

    python run_onnx.py example.json                 # greedy actions and control values, a line each
    python run_onnx.py example.json --sample 7      # sampled, with a seed

From Python:

    from run_onnx import Policy
    action, control, logits = Policy().act(observations)
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent


class Policy:
    """The exported policy.

    Args:
        folder: folder of its files.
        threads: CPU threads of the network; 0 for onnxruntime's choice.
    """

    def __init__(self, folder=HERE, threads=1):
        self.card = json.loads((Path(folder) / "card.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.sessions = {
            name: onnxruntime.InferenceSession(str(Path(folder) / f"{name}.onnx"), options)
            for name in ("greedy", "sample")
        }

    def act(self, observation, noise=None, allowed=None):
        """Decide for a batch.

        Args:
            observation: (B, S) floats, raw.
            noise: (B, N, K) standard Gumbel noise to sample with, for example `numpy.random.Generator.gumbel`; None
                for the most likely choices.
            allowed: (B, N, K) bool, False for choices that must not be made; None for all.

        Returns:
            action (B, N) int64, control (B, N) float32, logits (B, N, K) float32.

        Raises:
            ValueError: for an input of the wrong shape or kind, for numbers that are not finite, and for a sub-action
                none of whose choices is allowed.
        """
        size, nvec = self.card["observation_size"], self.card["nvec"]
        observation = np.asarray(observation)
        if observation.dtype.kind not in "fiu" or observation.shape[1:] != (size,) or not len(observation):
            raise ValueError(f"observation must be numbers (B, {size}); found {observation.dtype} {observation.shape}")
        observation = observation.astype(np.float32)
        if not np.isfinite(observation).all():
            row, entry = np.argwhere(~np.isfinite(observation))[0]
            raise ValueError(f"observation must be finite; found {observation[row, entry]} in row {row} at {entry}")
        shape = (len(observation), len(nvec), max(nvec))
        exists = np.arange(max(nvec)) < np.asarray(nvec)[:, None]  # (N, K)
        if allowed is None:
            allowed = np.broadcast_to(exists, shape)
        allowed = np.asarray(allowed)
        if allowed.dtype != bool or allowed.shape != shape:
            raise ValueError(f"allowed must be bools {shape}; found {allowed.dtype} {allowed.shape}")
        possible = (allowed & exists).any(-1)
        if not possible.all():
            row, slot = np.argwhere(~possible)[0]
            raise ValueError(f"allowed must leave every sub-action a choice; found none for {slot} in row {row}")
        inputs = {"observation": observation, "allowed": np.ascontiguousarray(allowed)}
        if noise is None:
            return tuple(self.sessions["greedy"].run(None, inputs))
        noise = np.asarray(noise)
        if noise.dtype.kind != "f" or noise.shape != shape or not np.isfinite(noise).all():
            raise ValueError(f"noise must be finite floats {shape}; found {noise.dtype} {noise.shape}")
        return tuple(self.sessions["sample"].run(None, {**inputs, "noise": noise.astype(np.float32)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("observations", help="JSON file: a list of observations, each a list of numbers")
    parser.add_argument("--sample", type=int, metavar="SEED", help="sample the actions, with this seed")
    options = parser.parse_args()
    policy, observations = Policy(), json.loads(Path(options.observations).read_text(encoding="utf-8"))
    nvec = policy.card["nvec"]
    noise = None
    if options.sample is not None:
        noise = np.random.default_rng(options.sample).gumbel(size=(len(observations), len(nvec), max(nvec)))
    action, control, _ = policy.act(observations, noise)
    for row in range(len(action)):
        print(f"action {action[row].tolist()} {policy.card.get('control_is', 'control')} {control[row].tolist()}")


if __name__ == "__main__":
    main()
