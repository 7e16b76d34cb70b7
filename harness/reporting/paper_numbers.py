"""The numbers of the SPIN paper (ICLR 2026, arXiv 2601.04441) that reports show for comparison, all under IQL.

They are averages over five seeds at the paper's budget; those by tier are also averages over the paper's tasks. Columns
are this project's policies, rows its tiers, tasks and bin counts.
"""

from __future__ import annotations

import pandas as pd

ALGORITHM, BINS = "iql", 3  # algorithm and bins of all tables but `CARDINALITY`, which varies the bins
POLICIES = ("factored", "autoregressive", "saint", "spin")
EARLY_FRACTION = 0.01  # share of the budget for `SHARE_OF_BEST`
CARDINALITY_TASK, CARDINALITY_TIER = "dog-trot", "medium-expert"


def _table(rows: dict[str | int, tuple[float, ...]]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(POLICIES))


# Average return over tasks and seeds.
RETURNS = _table(
    {
        "medium": (341.8, 334.7, 343.0, 345.2),
        "medium-expert": (724.7, 717.2, 733.3, 753.2),
        "random-medium-expert": (388.3, 395.6, 438.9, 499.2),
        "expert": (778.1, 770.3, 773.1, 778.7),
        "average": (558.2, 554.5, 572.1, 594.1),
    }
)

# Minutes on one A40, ASM pre-training included, to 95% of factored-IQL's asymptotic return.
MINUTES = _table(
    {
        "medium": (48.2, 114.3, 174.6, 45.5),
        "medium-expert": (257.3, 285.8, 308.4, 62.0),
        "random-medium-expert": (85.1, 95.8, 100.2, 38.4),
        "expert": (167.5, 288.7, 261.8, 77.4),
        "total": (558.1, 784.6, 845.0, 223.3),
    }
)

# Return at 1% of the budget in percent of the best asymptotic return.
SHARE_OF_BEST = _table(
    {
        "cheetah-run": (30.3, 40.9, 46.1, 90.6),
        "finger-spin": (0.37, 0.70, 0.39, 68.5),
        "humanoid-stand": (2.2, 3.1, 9.3, 93.4),
        "quadruped-walk": (34.1, 38.1, 39.0, 78.6),
        "average": (16.7, 20.7, 23.7, 82.8),
    }
)

# Return on dog-trot, medium-expert, by the choices of each of its 38 sub-actions.
CARDINALITY = _table(
    {
        3: (472.3, 526.5, 635.1, 647.0),
        10: (483.8, 457.4, 529.1, 629.5),
        30: (485.0, 557.4, 562.5, 703.9),
        "average": (480.4, 513.8, 575.6, 660.1),
    }
)

# Minutes to target of the same trainings; the paper gives one row for all three, a total as in its table by tier.
_UNKNOWN = (float("nan"),) * len(POLICIES)
CARDINALITY_MINUTES = _table(
    {3: _UNKNOWN, 10: _UNKNOWN, 30: _UNKNOWN, "total": (545.8, 692.6, 291.6, 237.0)},
)
