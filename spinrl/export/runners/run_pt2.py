"""Act with the policy in this folder. Needs torch; spinrl is not needed.

    python run_pt2.py example.json                 # greedy actions and control values, a line each
    python run_pt2.py example.json --sample 7      # sampled, with a seed

From Python:

    from run_pt2 import Policy
    action, control, logits = Policy().act(observations)
"""

from pathlib import Path

import torch
from torch_policy import TorchPolicy, main

HERE = Path(__file__).resolve().parent


class Policy(TorchPolicy):
    """The programs that torch.export wrote; see `TorchPolicy`."""

    def __init__(self, folder=HERE):
        super().__init__(folder)
        self.programs = {name: torch.export.load(self.folder / f"{name}.pt2").module() for name in ("greedy", "sample")}

    def decide(self, observation, noise, allowed):
        if noise is None:
            return self.programs["greedy"](observation, allowed)
        return self.programs["sample"](observation, allowed, noise)


if __name__ == "__main__":
    main(Policy, __doc__)
