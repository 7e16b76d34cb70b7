"""A small dataset of one's own, and a short training on it."""

import numpy as np

import spinrl

CHOICES = [3, 2, 5]
PLAIN = spinrl.Machine(precision="fp32", compile=False, threads=1)
STEPS, ASM_STEPS, START_STEPS, FITTED_Q_STEPS = 24, 6, 8, 10


def arrays(rows=300):
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(rows, 4)).astype(np.float32),
        "actions": np.stack([rng.integers(0, choices, rows) for choices in CHOICES], axis=1),
        "rewards": rng.random(rows),
        "terminals": np.arange(rows) % 15 == 14,
    }


def fit(train, policy=None, **options):
    given = {"training": spinrl.Training(gradient_steps=STEPS, report_every=4), "machine": PLAIN, "progress": False}
    return spinrl.fit(
        train,
        policy=policy or spinrl.Factored(),
        algorithm=spinrl.IQL(),
        pretraining=spinrl.Pretraining(epochs=None, steps=ASM_STEPS),
        critic_start=spinrl.MonteCarloCritics(steps=START_STEPS),
        **given | options,
    )
