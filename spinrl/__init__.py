"""Offline reinforcement learning in combinatorial action spaces.

Importing the package lets ``gymnasium.make("spinrl/humanoid-stand-3bins-v0")`` find the benchmark's tasks.
"""

from spinrl.tasks.registration import register_with_gymnasium

register_with_gymnasium()
