"""How good a policy is: returns of batched episodes in the simulator, or estimates from data alone."""

from spinrl.evaluation.estimators import Estimate, EstimationData, Estimator, HeldOutLikelihood
from spinrl.evaluation.film import Film, film
from spinrl.evaluation.fitted_q import FittedQ
from spinrl.evaluation.logged import ASMBehavior, ImitatedBehavior, LoggedBehavior, LoggedPropensities
from spinrl.evaluation.rollout import ActionChoice, EpisodeReturns, episode_seeds, evaluate, evaluate_episodes
from spinrl.evaluation.weighted import PerDecisionWIS, WeightedDoublyRobust

__all__ = [
    "ASMBehavior",
    "ActionChoice",
    "EpisodeReturns",
    "Estimate",
    "EstimationData",
    "Estimator",
    "Film",
    "FittedQ",
    "HeldOutLikelihood",
    "ImitatedBehavior",
    "LoggedBehavior",
    "LoggedPropensities",
    "PerDecisionWIS",
    "WeightedDoublyRobust",
    "episode_seeds",
    "evaluate",
    "evaluate_episodes",
    "film",
]
