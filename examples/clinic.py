"""A made-up clinic decides on dose, drug and schedule at once: from its records to a policy in an ONNX file."""

import numpy as np

import spinrl

# A row for each visit: what was measured, what was given, and how well it did. Dose and schedule hang together.
rng = np.random.default_rng(0)
patient = rng.normal(size=(12_000, 4)).astype("float32")
edges = (0, [-0.5, 0.5]), (1, [0.0]), (0, [-1.0, -0.3, 0.3, 1.0])
best = np.stack([np.digitize(patient[:, entry], at) for entry, at in edges], axis=1)
given = np.where(rng.random(best.shape) < 0.4, rng.integers(0, [3, 2, 5], best.shape), best)
outcome = (given == best).mean(axis=1)
last = np.arange(len(patient)) % 30 == 29  # of each patient's thirty visits

data = spinrl.Dataset.from_arrays(patient, given, outcome, terminals=last, choices=[3, 2, 5], name="clinic")
train, held_out = data.split(0.1, seed=0)
policy = spinrl.fit(train, policy=spinrl.SPIN(), algorithm=spinrl.IQL())
print("given", given[0], "and advised", policy.act(patient[0]))
print("as good as can be:", f"{(policy.act(patient) == best).mean():.0%} of choices, where {outcome.mean():.0%} were")
policy.save("clinic-policy")
print("exported to", policy.export("clinic-exported"))
