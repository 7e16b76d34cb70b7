"""How good a policy is: returns of batched episodes in the simulator, or estimates from data alone."""

from spinrl.evaluation.estimators import EstimationData, Estimator, HeldOutLikelihood
from spinrl.evaluation.film import Film, film
from spinrl.evaluation.fitted_q import FittedQ
from spinrl.evaluation.rollout import ActionChoice, EpisodeReturns, episode_seeds, evaluate, evaluate_episodes

__all__ = [
    "ActionChoice",
    "EpisodeReturns",
    "EstimationData",
    "Estimator",
    "Film",
    "FittedQ",
    "HeldOutLikelihood",
    "episode_seeds",
    "evaluate",
    "evaluate_episodes",
    "film",
]
