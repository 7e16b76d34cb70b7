"""What every policy must do."""

from __future__ import annotations

import copy
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import InteractionType, TensorDictModuleBase, set_interaction_type

from spinrl.nn import Standardizer, standardizers
from spinrl.policies import Policy, PolicyConfig, gumbel_noise
from spinrl.specs import (
    ACTION,
    ALLOWED,
    LOGITS,
    OBSERVATION,
    SAMPLE_LOG_PROB,
    ActionSpec,
)
from spinrl.testing.samples import SIZE, SPECS, build_policy, random_batch, require, require_close


def check_policy(config: PolicyConfig) -> None:
    """Check everything a policy promises, over equal, mixed and single sub-actions.

    Probabilities sum to one, and only choices that exist have any; given noise alone decides a sample; choices that are
    not allowed are never made; the TensorDict module, standard units, gradients and seeds are as they must be.

    Args:
        config: the policy's configuration.

    Raises:
        AssertionError: naming the first promise that is broken.
    """
    for spec in SPECS:
        policy = build_policy(config, spec).eval()
        _check_distribution(policy, spec)
        _check_sampling(policy, spec)
        check_forbidden_choices(policy, spec)
        _check_masked_distribution(policy, spec)
        _check_tensordict_module(policy, spec)
        _check_standard_units(policy, spec)
        _check_gradients_are_finite(build_policy(config, spec), spec)
    _check_seeds(config)


def _check_distribution(policy: Policy, spec: ActionSpec) -> None:
    batch = random_batch(spec)
    observation, action = batch[OBSERVATION], batch[ACTION]
    log_probs = policy.log_probs(observation, action)
    shape = (len(batch), spec.num_sub_actions, spec.max_choices)
    require(log_probs.shape == shape, f"log_probs must be of shape {shape}; found {tuple(log_probs.shape)}")
    invalid = ~spec.valid()
    require(log_probs[:, ~invalid].isfinite().all(), "log_probs must be finite for choices that exist")
    require((log_probs[:, invalid] == -torch.inf).all(), "log_probs must be -inf for choices that do not exist")
    sums = log_probs.exp().sum(-1)
    require_close(sums, torch.ones(len(batch), spec.num_sub_actions), "probabilities must sum to one")
    joint = log_probs.gather(-1, action[..., None]).sum((-1, -2))
    require_close(policy.log_prob(observation, action), joint, "log_prob must be the sum over sub-actions")
    # A distribution of one sample does not depend on the others of its batch.
    alone = policy.log_prob(observation[:1], action[:1])
    require_close(alone, joint[:1], "log_prob must not depend on other rows of the batch", rtol=1e-4, atol=1e-5)


def _check_sampling(policy: Policy, spec: ActionSpec) -> None:
    observation = random_batch(spec, 4)[OBSERVATION]
    shape = (4, spec.num_sub_actions, spec.max_choices)
    noise = gumbel_noise(shape, generator=torch.Generator().manual_seed(3))
    action = policy.sample(observation, noise)
    require(action.dtype == torch.int64, f"actions must be int64; found {action.dtype}")
    size = (4, spec.num_sub_actions)
    require(action.shape == size, f"actions must be of shape {size}; found {tuple(action.shape)}")
    require(torch.equal(action, policy.sample(observation, noise)), "the same noise must give the same sample")
    greedy = policy.sample(observation, torch.zeros(shape))
    require(torch.equal(policy.mode(observation), greedy), "mode must be the sample with noise of zeros")
    # What is drawn often is what the log-probabilities say: of the first sub-action, which depends on no other.
    many = 4000
    one = observation[:1].expand(many, -1)
    noise = gumbel_noise((many, *shape[1:]), generator=torch.Generator().manual_seed(4))
    counts = policy.sample(one, noise)[:, 0].bincount(minlength=spec.max_choices)
    expected = policy.log_probs(observation[:1], action[:1])[0, 0].exp()
    off = (counts / many - expected).abs().max()
    require(off < 5 * (0.25 / many) ** 0.5, f"samples must follow log_probs; a frequency is {off:.3f} off")
    for actions in (action, policy.sample(one, noise)):
        require((actions >= 0).all() and (actions < torch.tensor(spec.nvec)).all(), "actions must exist")


def check_forbidden_choices(policy: Policy, spec: ActionSpec) -> None:
    """What is not allowed is never chosen, and allowing everything changes nothing."""
    observation = random_batch(spec, 64)[OBSERVATION]
    shape = (64, spec.num_sub_actions, spec.max_choices)
    generator = torch.Generator().manual_seed(5)
    noise = gumbel_noise(shape, generator=generator)
    everything = torch.ones(shape, dtype=torch.bool)
    allowed = torch.rand(shape, generator=generator) < 0.5
    for slot, choices in enumerate(spec.nvec):  # one choice at least
        allowed[torch.arange(64), slot, torch.randint(choices, (64,), generator=generator)] = True
    for given in (noise, None):
        unrestricted = policy.decide(observation, given)
        for ours, free in zip(policy.decide(observation, given, everything), unrestricted, strict=True):
            require(torch.equal(ours, free), "allowing every choice must change nothing")
        action, logits = policy.decide(observation, given, allowed)
        require(allowed.gather(-1, action[..., None]).all(), "a choice that is not allowed must never be made")
        require((logits[~allowed] == -torch.inf).all(), "logits must be -inf where a choice is not allowed")
        nothing = policy.decide(observation, given, ~everything)[1]
        require((nothing == -torch.inf).all(), "logits must be -inf where no choice is allowed")
        require(logits.gather(-1, action[..., None]).isfinite().all(), "the choice made must have a finite logit")


def _check_masked_distribution(policy: Policy, spec: ActionSpec) -> None:
    """With masks, a policy is what it is without them, given that no forbidden choice is made."""
    batch = random_batch(spec, masked=True)
    observation, action, allowed = batch[OBSERVATION], batch[ACTION], batch[ALLOWED]
    possible = allowed & spec.valid()
    log_probs = policy.log_probs(observation, action, allowed)
    rest = policy.log_probs(observation, action).masked_fill(~possible, -torch.inf)
    torch.testing.assert_close(log_probs, rest - rest.logsumexp(-1, keepdim=True))
    assert (log_probs[~possible] == -torch.inf).all()
    everything = torch.ones_like(allowed)
    assert torch.equal(policy.log_prob(observation, action, everything), policy.log_prob(observation, action))
    mode = policy.mode(observation, allowed)
    torch.testing.assert_close(
        policy.log_probs(observation, None, allowed), policy.log_probs(observation, mode, allowed)
    )
    # All joint actions of one observation.
    joint = torch.cartesian_prod(*(torch.arange(choices) for choices in spec.nvec)).view(-1, spec.num_sub_actions)
    many = len(joint)
    chances = policy.log_prob(
        observation[:1].expand(many, -1), joint, allowed[:1].expand(many, -1, -1)
    ).exp()  # (many,)
    torch.testing.assert_close(chances.sum(), torch.tensor(1.0))
    inside = possible[:1].expand(many, -1, -1).gather(-1, joint[..., None]).all((1, 2))
    assert torch.equal(chances > 0, inside)
    given = policy(TensorDict({OBSERVATION: observation, ALLOWED: allowed}, batch_size=[len(observation)]))
    assert possible.gather(-1, given[ACTION][..., None]).all()
    torch.testing.assert_close(given[SAMPLE_LOG_PROB], policy.log_prob(observation, given[ACTION], allowed))
    _check_forbidden_logits_get_no_gradient(policy, batch, possible)


def _check_forbidden_logits_get_no_gradient(policy: Policy, batch: TensorDict, possible: torch.Tensor) -> None:
    made, logits = [], policy.logits

    def remember(*arguments: Any) -> torch.Tensor:
        made.append(logits(*arguments))
        made[-1].retain_grad()
        return made[-1]

    policy.logits = remember  # type: ignore[method-assign,assignment]
    try:
        policy.log_prob(batch[OBSERVATION], batch[ACTION], batch[ALLOWED]).sum().backward()
    finally:
        del policy.logits
    policy.zero_grad()
    gradient = made[0].grad
    assert gradient is not None and (gradient[~possible] == 0).all()
    assert gradient.isfinite().all() and gradient.any()


def _check_tensordict_module(policy: Policy, spec: ActionSpec) -> None:
    require(isinstance(policy, TensorDictModuleBase), "a policy must be a TensorDict module")
    keys = ([OBSERVATION], [LOGITS, ACTION, SAMPLE_LOG_PROB])
    require((policy.in_keys, policy.out_keys) == keys, f"in_keys and out_keys must be {keys}")
    observation = random_batch(spec)[OBSERVATION]
    with set_interaction_type(InteractionType.DETERMINISTIC):
        out = policy(TensorDict({OBSERVATION: observation}, batch_size=[len(observation)]))
    require(torch.equal(out[ACTION], policy.mode(observation)), "a deterministic module must give the mode")
    joint = policy.log_prob(observation, out[ACTION])
    require_close(out[SAMPLE_LOG_PROB], joint, "sample_log_prob must be the action's log_prob")
    require_close(out[LOGITS], policy.logits(observation, out[ACTION]), "the module must give the logits")
    torch.manual_seed(0)
    first = policy(TensorDict({OBSERVATION: observation}, batch_size=[len(observation)]))
    torch.manual_seed(0)
    second = policy(TensorDict({OBSERVATION: observation}, batch_size=[len(observation)]))
    require(torch.equal(first[ACTION], second[ACTION]), "a module must sample by torch's global generator alone")
    require(first[SAMPLE_LOG_PROB].isfinite().all(), "sample_log_prob must be finite")
    shape = (spec.num_sub_actions,)
    one = policy(TensorDict({OBSERVATION: observation[0]}))[ACTION]
    require(one.shape == shape, f"the module must take one observation too, and give it an action of shape {shape}")


def _check_standard_units(policy: Policy, spec: ActionSpec) -> None:
    """Every observation passes a `Standardizer` once, whichever way the policy is called."""
    batch = random_batch(spec)
    observation, action = batch[OBSERVATION], batch[ACTION]
    standard, other = copy.deepcopy(policy), Standardizer(SIZE)
    for each in (*standardizers(standard), other):
        each.set(torch.full((SIZE,), 0.5), torch.full((SIZE,), 3.0))
    once = "every observation must pass one Standardizer, if the policy has one"
    require(torch.equal(standard.logits(observation, action), policy.logits(other(observation), action)), once)
    for ours, raw in zip(standard.decide(observation, None), policy.decide(other(observation), None), strict=True):
        require(torch.equal(ours, raw), once)


def _check_gradients_are_finite(policy: Policy, spec: ActionSpec) -> None:
    batch = random_batch(spec)
    policy.train().log_prob(batch[OBSERVATION], batch[ACTION]).sum().backward()
    trained = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
    require(trained, "a policy must have parameters to train")
    for name, parameter in trained.items():
        finite = parameter.grad is not None and parameter.grad.isfinite().all()
        require(finite, f"the gradient of {name} must be finite")
        moved = parameter.grad is not None and parameter.grad.any()
        require(spec.num_sub_actions == 1 or moved or "key" in name, f"{name} must get a gradient")
    for parameter in policy.parameters():
        require(parameter.requires_grad or parameter.grad is None, "frozen parameters must get no gradient")


def _check_seeds(config: PolicyConfig) -> None:
    spec = SPECS[0]
    state = torch.random.get_rng_state()
    same, other = build_policy(config, spec).state_dict(), build_policy(config, spec, seed=1).state_dict()
    require(torch.equal(torch.random.get_rng_state(), state), "build must leave torch's global random state alone")
    for name, value in build_policy(config, spec).state_dict().items():
        equal = torch.equal(value, same[name]) if isinstance(value, torch.Tensor) else value == same[name]
        require(equal, f"the same seed must give the same {name}")
    trained = [name for name, p in build_policy(config, spec).named_parameters() if p.requires_grad]
    require(any(not torch.equal(same[name], other[name]) for name in trained), "another seed must give other weights")
