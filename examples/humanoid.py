"""From the benchmark's data to a video: a humanoid learns to stand up from episodes that others played.

    python examples/humanoid.py --out stand.mp4

The episodes are collected in the simulator first. With the laptop's sizes it takes about ten minutes on two cores.
"""

import argparse

import spinrl

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--task", default="humanoid-stand", help="of the benchmark (default: %(default)s)")
parser.add_argument("--tier", default="medium-expert", help="whose episodes they are (default: %(default)s)")
parser.add_argument("--transitions", type=int, default=200_000, help="of the dataset (default: %(default)s)")
parser.add_argument("--steps", type=int, default=5000, help="of the training (default: %(default)s)")
parser.add_argument("--pretraining-steps", type=int, default=4000, help="of SPIN's ASM (default: %(default)s)")
parser.add_argument("--episode-steps", type=int, default=1000, help="of an episode (default: %(default)s)")
parser.add_argument("--out", default="stand.mp4", help="the video (default: %(default)s)")
options = parser.parse_args()

data = spinrl.Dataset.from_task(options.task, options.tier, transitions=options.transitions)
print(data)

# Fields that are left open have the laptop preset's values.
policy = spinrl.fit(
    data,
    policy=spinrl.SPIN(),
    algorithm=spinrl.IQL(),
    training=spinrl.Training(gradient_steps=options.steps),
    pretraining=spinrl.Pretraining(epochs=None, steps=options.pretraining_steps),
)
print(policy.evaluate(episodes=10, steps=options.episode_steps), f"where the data has {data.returns.mean():.4g}")
film = policy.render(options.out, steps=options.episode_steps)
print(f"filmed {film.steps} steps in {film.video}, and eight of them in {film.strip}")
