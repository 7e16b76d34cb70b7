"""Tables that look like real ones: saturating learning curves with noise between seeds and between episodes."""

import math
from itertools import product

import numpy as np
import pandas as pd

from harness.records import CellKey, Evaluation
from harness.reporting.returns import Reference, ReportMeta, to_frame

FRACTIONS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
TIERS = ("medium", "medium-expert", "random-medium-expert", "expert")
ENDS = {"medium": 240.0, "medium-expert": 560.0, "random-medium-expert": 380.0, "expert": 600.0}
# share of the tier's end, share of the budget to get there, ASM seconds, seconds a step
POLICIES = {
    "factored": (0.9, 0.35, 0.0, 0.01),
    "autoregressive": (0.88, 0.3, 0.0, 0.05),
    "saint": (0.95, 0.25, 0.0, 0.09),
    "spin": (1.0, 0.02, 60.0, 0.03),
}
TASKS = ("humanoid-stand", "cheetah-run")
META = ReportMeta(experiment="synthetic", references={(task, 3): Reference(4.54, 650.0) for task in TASKS})


def table(
    policies: tuple[str, ...] = tuple(POLICIES),
    tiers: tuple[str, ...] = TIERS,
    seeds: int = 2,
    steps: int = 2000,
    tasks: tuple[str, ...] = TASKS[:1],
    fractions: tuple[float, ...] = FRACTIONS,
) -> pd.DataFrame:
    """A tidy table of the given policies, tiers and tasks; a policy called ``spin-asm-20%`` learns like ``spin``."""
    rng = np.random.default_rng(0)
    results = []
    for task, policy in product(tasks, policies):
        share, reach, asm_seconds, step_seconds = POLICIES[policy.partition("-")[0]]
        for tier in tiers:
            for seed in range(seeds):
                key = CellKey(task=task, bins=3, tier=tier, policy=policy, algorithm="iql", seed=seed)
                end = share * ENDS[tier] * rng.normal(1, 0.03)
                for count, fraction in enumerate(fractions, 1):
                    mean = 5 + end * (1 - math.exp(-2 * fraction / reach))
                    evaluation = Evaluation(
                        gradient_step=round(steps * fraction),
                        fraction=fraction,
                        returns=tuple(np.clip(rng.normal(mean, 0.15 * mean, size=4), 0, 1000)),
                        asm_seconds=asm_seconds,
                        train_seconds=steps * fraction * step_seconds,
                        evaluation_seconds=7.0 * count,
                    )
                    results.append((key, evaluation))
    return to_frame(results, preset="laptop")
