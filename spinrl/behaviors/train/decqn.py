"""The configuration of DecQN, which trains behaviour policies."""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs
from attrs.validators import ge, gt, in_, le, lt, optional

from spinrl.behaviors.network import DecoupledQNetwork
from spinrl.behaviors.train.replay import ReplayLayout
from spinrl.behaviors.train.shaping import ShapingConfig
from spinrl.config.registry import Component, register
from spinrl.machine import available_cores, choose_device
from spinrl.tasks import EPISODE_STEPS, get_task


@register
@attrs.frozen(kw_only=True)
class DecQN(Component):
    """Decoupled Q-learning over bins (Seyde et al., ICLR 2023): double Q, n-step returns, LayerNorm MLP.

    Attributes:
        task: name of the task.
        bins: choices per sub-action.
        seed: seed of initial weights, exploration and episodes.
        hidden: widths of the hidden layers.
        critics: number of Q-networks; the minimum of their values is the target (Fujimoto et al., ICML
            2018), which keeps values from growing where many sub-actions are maximised over. The first one acts.
        learning_rate: learning rate of Adam.
        final_learning_rate: value to which it falls geometrically over `decay_updates`; None keeps it constant.
        decay_updates: number of updates until the learning rate is the final one.
        batch_size: transitions per update.
        gamma: discount per control step.
        n_step: rewards summed before bootstrapping.
        polyak_rate: rate at which the target network follows.
        max_gradient_norm: gradients are clipped to this norm.
        reward_scale: rewards are multiplied by this in the targets.
        shaping: bonus added to the training reward, or none.
        num_actors: number of actor processes; 0 is one for each core but the learner's. It may change on resuming.
        envs_per_actor: environments that each actor steps in lock-step.
        epsilon: share of random sub-actions of the most exploring environment; the others fall geometrically.
        min_epsilon: share of random sub-actions of the least exploring environment.
        hold_steps: mean length of a random sub-action, in control steps, in every second environment.
        default_pose_share: share of training episodes that start in the model's reference pose.
        training_episode_steps: length of exploring episodes, in control steps.
        warmup_steps: environment steps with random actions before the first update; they fix the normalisation.
        replay_capacity: transitions kept.
        steps_per_update: environment steps per update below which the learner waits for the actors.
        device: device of the learner's networks: auto (a GPU if there is one), cpu or cuda. Actors are on the CPU.
        compile: compile the loss with torch.compile, which needs a C++ compiler; about 1.3 times as fast on a CPU.
    """

    kind: ClassVar[str] = "behavior_training"

    task: str
    bins: int = attrs.field(default=3, validator=[ge(2), le(100)])
    seed: int = 0
    hidden: tuple[int, ...] = attrs.field(default=(256, 256), converter=tuple)
    critics: int = attrs.field(default=1, validator=ge(1))
    learning_rate: float = attrs.field(default=3e-4, validator=gt(0))
    final_learning_rate: float | None = attrs.field(default=None, validator=optional(gt(0)))
    decay_updates: int = attrs.field(default=300_000, validator=ge(1))
    batch_size: int = attrs.field(default=128, validator=ge(1))
    gamma: float = attrs.field(default=0.99, validator=[gt(0), lt(1)])
    n_step: int = attrs.field(default=3, validator=ge(1))
    polyak_rate: float = attrs.field(default=0.005, validator=[gt(0), le(1)])
    max_gradient_norm: float = attrs.field(default=40.0, validator=gt(0))
    reward_scale: float = attrs.field(default=0.1, validator=gt(0))
    shaping: ShapingConfig | None = None
    num_actors: int = attrs.field(default=0, validator=ge(0))
    envs_per_actor: int = attrs.field(default=8, validator=ge(2))
    epsilon: float = attrs.field(default=0.4, validator=[gt(0), le(1)])
    min_epsilon: float = attrs.field(default=0.005, validator=[gt(0), le(1)])
    hold_steps: float = attrs.field(default=4.0, validator=ge(1))
    default_pose_share: float = attrs.field(default=0.5, validator=[ge(0), le(1)])
    training_episode_steps: int = attrs.field(default=500, validator=[ge(1), le(EPISODE_STEPS)])
    warmup_steps: int = attrs.field(default=20_000, validator=ge(1000))
    replay_capacity: int = attrs.field(default=1_000_000, validator=ge(1000))
    steps_per_update: float = attrs.field(default=2.0, validator=ge(0))
    device: Literal["auto", "cpu", "cuda"] = attrs.field(default="auto", validator=in_(("auto", "cpu", "cuda")))
    compile: bool = False

    def on_this_machine(self) -> DecQN:
        """The configuration with `device` and `num_actors` resolved: the learner uses a GPU if there is one.

        Raises:
            ValueError: when CUDA is asked for and torch finds none.
        """
        actors = self.num_actors or max(1, available_cores() - 1)
        return attrs.evolve(self, device=choose_device(self.device, "DecQN.device"), num_actors=actors)

    def layout(self) -> ReplayLayout:
        """Sizes of the shared replay."""
        task = get_task(self.task)
        return ReplayLayout(
            num_actors=self.num_actors,
            capacity=self.replay_capacity,
            observation_size=task.observation_size,
            num_sub_actions=task.num_sub_actions,
        )

    def learning_rate_at(self, updates: int) -> float:
        """The learning rate after so many updates."""
        if self.final_learning_rate is None:
            return self.learning_rate
        share = min(updates / self.decay_updates, 1.0)
        return self.learning_rate ** (1.0 - share) * self.final_learning_rate**share

    def network(self) -> DecoupledQNetwork:
        """A fresh network of this configuration's sizes."""
        task = get_task(self.task)
        return DecoupledQNetwork(task.observation_size, task.action_spec(self.bins), self.hidden)
