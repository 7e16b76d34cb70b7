"""A made-up clinic decides on dose, drug and schedule at once: from its records to a policy in an ONNX file."""

import spinrl
from spinrl.tasks.clinic import clinic_log

# A row for each visit: what was measured, what was given, and how well it did.
log = clinic_log(patients=400, quality=0.6, seed=0)

data = spinrl.Dataset.from_arrays(
    log.observations, log.actions, log.rewards, terminals=log.terminals, choices=[3, 2, 5], name="clinic"
)
train, held_out = data.split(0.1, seed=0)
policy = spinrl.fit(train, policy=spinrl.SPIN(), algorithm=spinrl.IQL(), preset="quick")
print("given", log.actions[0], "and advised", policy.act(log.observations[0]))
for estimate in policy.estimate(held_out).values():
    print("from the records alone:", estimate)

# This clinic is made up, so that what its records said can be checked.
print("with new patients:", policy.evaluate("spinrl/Clinic-v0", episodes=100), f"where {data.returns.mean():.4g} was")
policy.save("clinic-policy")
print("exported to", policy.export("clinic-exported"))
