"""How good a policy is: returns of batched episodes in the simulator."""

from spinrl.evaluation.rollout import ActionChoice, episode_seeds, evaluate

__all__ = ["ActionChoice", "episode_seeds", "evaluate"]
