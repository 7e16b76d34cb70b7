"""How good a policy is: returns of batched episodes in the simulator, or estimates from data alone."""

from spinrl.evaluation.estimators import EstimationData, Estimator, HeldOutLikelihood
from spinrl.evaluation.fitted_q import FittedQ
from spinrl.evaluation.rollout import ActionChoice, episode_seeds, evaluate

__all__ = [
    "ActionChoice",
    "EstimationData",
    "Estimator",
    "FittedQ",
    "HeldOutLikelihood",
    "episode_seeds",
    "evaluate",
]
