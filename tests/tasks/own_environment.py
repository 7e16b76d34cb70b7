"""An environment of one's own, as a user would register it."""

import gymnasium
import numpy as np


class Counter(gymnasium.Env):
    """Rewards the first sub-action's choice, and ends after `length` steps, or if it `stops`, where the second is 1.

    It fails where it is told to: when it is made, at a reset, in a step or in the third one. If it is `masked`, it also
    fails at choices that `counter_masks` forbids. Its pictures are as red as steps were taken, and as green as the
    return so far.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, as Gymnasium has it

    def __init__(
        self,
        length: int = 5,
        start: int = 0,
        fails: str = "",
        stops: bool = True,
        masked: bool = False,
        render_mode: str | None = None,
    ):
        self.length, self.fails, self.stops, self.masked = length, fails, stops, masked
        self.render_mode = render_mode
        self._fail_in("make")
        self.action_space = gymnasium.spaces.MultiDiscrete([3, 2], start=[start, start])
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2, 2), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._fail_in("reset")
        self.steps, self.total = 0, 0
        return self._observe(), self._info()

    def step(self, action):
        assert self.action_space.contains(np.asarray(action))
        assert not self.masked or counter_masks(self.steps)[[0, 1], action].all(), "a forbidden choice"
        self._fail_in("step")
        self.steps, self.total = self.steps + 1, self.total + int(action[0])
        if self.steps == 3:
            self._fail_in("third step")
        reward = float("nan") if self.fails == "reward" else float(action[0])
        return self._observe(), reward, bool(self.stops and action[1] == 1), self.steps >= self.length, self._info()

    def render(self):
        self._fail_in("render")
        return np.full((4, 6, 3), [self.steps, self.total, 0], np.uint8)

    def _info(self):
        return {"action_mask": counter_masks(self.steps)} if self.masked else {}

    def _fail_in(self, call):
        if self.fails == call:
            raise LookupError("the patient\nis not there")

    def _observe(self):
        return self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)


def counter_masks(steps):
    """(..., 2, 3) bool: what a masked `Counter` allows after so many steps, an integer or an array of them.

    The first sub-action may not be the number of steps modulo 3; the second may be 1 after odd numbers of steps.
    """
    steps = np.asarray(steps)[..., None]
    first = np.arange(3) != steps % 3
    second = (np.arange(3) == 0) | ((np.arange(3) == 1) & (steps % 2 == 1))
    return np.stack([first, second], axis=-2)


class Ward(gymnasium.Env):
    """Ten steps in whatever spaces it is given; it checks each action, and always gives half a point.

    It may say which choices are allowed, by its `info` or by a method, and observe something that is given.
    """

    def __init__(self, action=None, observation=None, array_reward=False, observed=None, mask=None, mask_by="info"):
        self.action_space = gymnasium.spaces.MultiDiscrete([3, 2]) if action is None else action
        self.observation_space = gymnasium.spaces.Box(-9, 9, (4,), np.float64) if observation is None else observation
        self.reward = np.array([0.5]) if array_reward else 0.5
        self.observed, self.info = observed, {} if mask is None or mask_by != "info" else {"action_mask": mask}
        if mask_by == "method":
            self.action_masks = lambda: mask

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observed or self.observation_space.sample(), self.info

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} {getattr(action, 'dtype', '')}"
        return self.observation_space.sample(), self.reward, False, False, self.info


if "Counter-v0" not in gymnasium.registry:
    gymnasium.register("Counter-v0", Counter)
    gymnasium.register("Ward-v0", Ward, max_episode_steps=10, disable_env_checker=True)
