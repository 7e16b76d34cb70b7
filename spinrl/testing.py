"""What every policy and every algorithm must do, as checks for the tests of one's own: ``check_policy(New())``.

A check raises AssertionError with what was expected, what was found and for which action sizes.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import attrs
import torch
from tensordict import TensorDict
from tensordict.nn import InteractionType, TensorDictModuleBase, set_interaction_type

from spinrl.algorithms import Algorithm, AlgorithmConfig
from spinrl.asm import ASM, ASMEncoder
from spinrl.machine import ResolvedMachine
from spinrl.nn import CriticEnsemble, Standardizer, standardizers
from spinrl.policies import Policy, PolicyConfig, gumbel_noise
from spinrl.specs import (
    ACTION,
    ALLOWED,
    LOGITS,
    NEXT_ALLOWED,
    NEXT_OBSERVATION,
    NEXT_REWARD,
    NEXT_TERMINATED,
    OBSERVATION,
    SAMPLE_LOG_PROB,
    ActionSpec,
)

SIZE = 6  # S
SPECS = (ActionSpec([3, 3, 3]), ActionSpec([2, 5, 3]), ActionSpec([4]))
SMALL = ASMEncoder(d_model=16, num_heads=2, num_blocks=2, num_state_tokens=2, head_width=8, dropout=0.1)


@attrs.frozen
class FakeFrozenASM:
    """An untrained ASM as a policy sees a pre-trained one."""

    model: ASM
    fingerprint: str = "0123456789abcdef"


def frozen_asm(spec: ActionSpec, *, size: int = SIZE, encoder: ASMEncoder = SMALL, **fields: Any) -> FakeFrozenASM:
    """An untrained ASM of these sizes."""
    return FakeFrozenASM(encoder.build(size, spec, seed=1), **fields)


def build_policy(config: PolicyConfig, spec: ActionSpec, *, seed: int = 0, size: int = SIZE) -> Policy:
    """A policy on an untrained ASM."""
    return config.build(size, spec, asm=frozen_asm(spec, size=size), seed=seed)


def random_batch(spec: ActionSpec, batch: int = 8, *, seed: int = 0, masked: bool = False) -> TensorDict:
    """A valid batch of transitions, with masks or without."""
    generator = torch.Generator().manual_seed(seed)
    data = TensorDict(batch_size=[batch])
    data[OBSERVATION] = torch.randn(batch, SIZE, generator=generator)
    data[NEXT_OBSERVATION] = torch.randn(batch, SIZE, generator=generator)
    data[ACTION] = torch.stack([torch.randint(m, (batch,), generator=generator) for m in spec.nvec], dim=1)
    data[NEXT_REWARD] = torch.rand(batch, 1, generator=generator)
    data[NEXT_TERMINATED] = torch.rand(batch, 1, generator=generator) < 0.2
    if masked:
        data[ALLOWED] = random_masks(spec, data[ACTION], generator)
        other = torch.stack([torch.randint(m, (batch,), generator=generator) for m in spec.nvec], dim=1)
        data[NEXT_ALLOWED] = random_masks(spec, other, generator)
    return data


def random_masks(spec: ActionSpec, action: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, N, K) bool: the choices of the actions (B, N), and about half of the others."""
    allowed = torch.rand(*action.shape, spec.max_choices, generator=generator) < 0.5
    return allowed.scatter(-1, action[..., None], True)


def _require(holds: object, promise: str) -> None:
    """Raise where a promise is not kept; `assert` would be left out under ``python -O``."""
    if not bool(holds):
        raise AssertionError(promise)


def _require_close(found: torch.Tensor, expected: torch.Tensor, promise: str, **tolerance: Any) -> None:
    torch.testing.assert_close(found, expected, msg=lambda text: f"{promise}: {text}", **tolerance)


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
    _require(log_probs.shape == shape, f"log_probs must be of shape {shape}; found {tuple(log_probs.shape)}")
    invalid = ~spec.valid()
    _require(log_probs[:, ~invalid].isfinite().all(), "log_probs must be finite for choices that exist")
    _require((log_probs[:, invalid] == -torch.inf).all(), "log_probs must be -inf for choices that do not exist")
    sums = log_probs.exp().sum(-1)
    _require_close(sums, torch.ones(len(batch), spec.num_sub_actions), "probabilities must sum to one")
    joint = log_probs.gather(-1, action[..., None]).sum((-1, -2))
    _require_close(policy.log_prob(observation, action), joint, "log_prob must be the sum over sub-actions")
    # A distribution of one sample does not depend on the others of its batch.
    alone = policy.log_prob(observation[:1], action[:1])
    _require_close(alone, joint[:1], "log_prob must not depend on other rows of the batch", rtol=1e-4, atol=1e-5)


def _check_sampling(policy: Policy, spec: ActionSpec) -> None:
    observation = random_batch(spec, 4)[OBSERVATION]
    shape = (4, spec.num_sub_actions, spec.max_choices)
    noise = gumbel_noise(shape, generator=torch.Generator().manual_seed(3))
    action = policy.sample(observation, noise)
    _require(action.dtype == torch.int64, f"actions must be int64; found {action.dtype}")
    size = (4, spec.num_sub_actions)
    _require(action.shape == size, f"actions must be of shape {size}; found {tuple(action.shape)}")
    _require(torch.equal(action, policy.sample(observation, noise)), "the same noise must give the same sample")
    greedy = policy.sample(observation, torch.zeros(shape))
    _require(torch.equal(policy.mode(observation), greedy), "mode must be the sample with noise of zeros")
    # What is drawn often is what the log-probabilities say: of the first sub-action, which depends on no other.
    many = 4000
    one = observation[:1].expand(many, -1)
    noise = gumbel_noise((many, *shape[1:]), generator=torch.Generator().manual_seed(4))
    counts = policy.sample(one, noise)[:, 0].bincount(minlength=spec.max_choices)
    expected = policy.log_probs(observation[:1], action[:1])[0, 0].exp()
    off = (counts / many - expected).abs().max()
    _require(off < 5 * (0.25 / many) ** 0.5, f"samples must follow log_probs; a frequency is {off:.3f} off")
    for actions in (action, policy.sample(one, noise)):
        _require((actions >= 0).all() and (actions < torch.tensor(spec.nvec)).all(), "actions must exist")


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
            _require(torch.equal(ours, free), "allowing every choice must change nothing")
        action, logits = policy.decide(observation, given, allowed)
        _require(allowed.gather(-1, action[..., None]).all(), "a choice that is not allowed must never be made")
        _require((logits[~allowed] == -torch.inf).all(), "logits must be -inf where a choice is not allowed")
        nothing = policy.decide(observation, given, ~everything)[1]
        _require((nothing == -torch.inf).all(), "logits must be -inf where no choice is allowed")
        _require(logits.gather(-1, action[..., None]).isfinite().all(), "the choice made must have a finite logit")


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
    _require(isinstance(policy, TensorDictModuleBase), "a policy must be a TensorDict module")
    keys = ([OBSERVATION], [LOGITS, ACTION, SAMPLE_LOG_PROB])
    _require((policy.in_keys, policy.out_keys) == keys, f"in_keys and out_keys must be {keys}")
    observation = random_batch(spec)[OBSERVATION]
    with set_interaction_type(InteractionType.DETERMINISTIC):
        out = policy(TensorDict({OBSERVATION: observation}, batch_size=[len(observation)]))
    _require(torch.equal(out[ACTION], policy.mode(observation)), "a deterministic module must give the mode")
    joint = policy.log_prob(observation, out[ACTION])
    _require_close(out[SAMPLE_LOG_PROB], joint, "sample_log_prob must be the action's log_prob")
    _require_close(out[LOGITS], policy.logits(observation, out[ACTION]), "the module must give the logits")
    torch.manual_seed(0)
    first = policy(TensorDict({OBSERVATION: observation}, batch_size=[len(observation)]))
    torch.manual_seed(0)
    second = policy(TensorDict({OBSERVATION: observation}, batch_size=[len(observation)]))
    _require(torch.equal(first[ACTION], second[ACTION]), "a module must sample by torch's global generator alone")
    _require(first[SAMPLE_LOG_PROB].isfinite().all(), "sample_log_prob must be finite")


def _check_standard_units(policy: Policy, spec: ActionSpec) -> None:
    """Every observation passes a `Standardizer` once, whichever way the policy is called."""
    batch = random_batch(spec)
    observation, action = batch[OBSERVATION], batch[ACTION]
    standard, other = copy.deepcopy(policy), Standardizer(SIZE)
    for each in (*standardizers(standard), other):
        each.set(torch.full((SIZE,), 0.5), torch.full((SIZE,), 3.0))
    once = "every observation must pass one Standardizer, if the policy has one"
    _require(torch.equal(standard.logits(observation, action), policy.logits(other(observation), action)), once)
    for ours, raw in zip(standard.decide(observation, None), policy.decide(other(observation), None), strict=True):
        _require(torch.equal(ours, raw), once)


def _check_gradients_are_finite(policy: Policy, spec: ActionSpec) -> None:
    batch = random_batch(spec)
    policy.train().log_prob(batch[OBSERVATION], batch[ACTION]).sum().backward()
    trained = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
    _require(trained, "a policy must have parameters to train")
    for name, parameter in trained.items():
        finite = parameter.grad is not None and parameter.grad.isfinite().all()
        _require(finite, f"the gradient of {name} must be finite")
        moved = parameter.grad is not None and parameter.grad.any()
        _require(spec.num_sub_actions == 1 or moved or "key" in name, f"{name} must get a gradient")
    for parameter in policy.parameters():
        _require(parameter.requires_grad or parameter.grad is None, "frozen parameters must get no gradient")


def _check_seeds(config: PolicyConfig) -> None:
    spec = SPECS[0]
    state = torch.random.get_rng_state()
    same, other = build_policy(config, spec).state_dict(), build_policy(config, spec, seed=1).state_dict()
    _require(torch.equal(torch.random.get_rng_state(), state), "build must leave torch's global random state alone")
    for name, value in build_policy(config, spec).state_dict().items():
        equal = torch.equal(value, same[name]) if isinstance(value, torch.Tensor) else value == same[name]
        _require(equal, f"the same seed must give the same {name}")
    trained = [name for name, p in build_policy(config, spec).named_parameters() if p.requires_grad]
    _require(any(not torch.equal(same[name], other[name]) for name in trained), "another seed must give other weights")


def check_algorithm(config: AlgorithmConfig, policy: PolicyConfig) -> None:
    """Check everything an algorithm promises with one kind of policy, over equal, mixed and single sub-actions.

    An update trains what is to be trained alone, gives finite losses and leaves its batch; a training that is saved and
    loaded goes on bit for bit.

    Args:
        config: the algorithm's configuration.
        policy: that of the policy to train.

    Raises:
        AssertionError: naming the first promise that is broken.
    """
    for spec in SPECS:
        algorithm = build_algorithm(config, policy, spec)
        _check_update(algorithm, spec)
        _check_resuming(config, policy, spec)
    _check_masks(config, policy, SPECS[1])


def build_algorithm(
    config: AlgorithmConfig,
    policy: PolicyConfig,
    spec: ActionSpec,
    *,
    machine: ResolvedMachine | None = None,
    size: int = SIZE,
) -> Algorithm:
    """An algorithm with a policy on an untrained ASM."""
    built = build_policy(policy, spec, size=size)
    return config.build(built, size, spec, seed=0, machine=machine or ResolvedMachine())


def _check_update(algorithm: Algorithm, spec: ActionSpec) -> None:
    batch = random_batch(spec)
    untouched = batch.clone()
    before = {name: parameter.detach().clone() for name, parameter in algorithm.policy.named_parameters()}
    for _ in range(3):
        losses = algorithm.update(batch)
    named = any(name.startswith("loss_") for name in losses.keys())  # noqa: SIM118 (iterating goes over the batch)
    _require(named, "update must give losses, called loss_...")
    for name, loss in losses.items():
        sound = loss.shape == () and not loss.requires_grad and loss.isfinite()
        _require(sound, f"{name} must be one finite number without gradient")
    _require((batch == untouched).all(), "update must leave its batch as it is")
    for name, parameter in algorithm.policy.named_parameters():
        if parameter.requires_grad:
            # A single sub-action leaves nothing to relate, and a shift of all keys is never seen.
            moot = spec.num_sub_actions == 1 or "key.bias" in name
            _require(moot or not torch.equal(parameter, before[name]), f"{name} must be trained")
        else:
            _require(torch.equal(parameter, before[name]), f"frozen {name} must stay as it is")
    _require(isinstance(algorithm.acting_policy(), Policy), "acting_policy must give a Policy")


def _check_masks(config: AlgorithmConfig, policy: PolicyConfig, spec: ActionSpec) -> None:
    """Masks that allow everything change nothing; what critics say of a forbidden choice never matters."""
    plain, masked = random_batch(spec), random_batch(spec, masked=True)
    free = plain.clone()
    free[ALLOWED] = free[NEXT_ALLOWED] = torch.ones_like(masked[ALLOWED])
    slot, choice = 1, 4  # forbidden everywhere
    masked[ACTION][:, slot] %= choice
    for key in (ALLOWED, NEXT_ALLOWED):
        masked[key][:, slot, 0] = True
        masked[key].scatter_(-1, masked[ACTION][..., None], True)
        masked[key][:, slot, choice] = False

    def losses(batch: TensorDict, value: float = 0.0) -> dict[str, Any]:
        algorithm = build_algorithm(config, policy, spec)
        for critics in algorithm.modules():
            if isinstance(critics, CriticEnsemble):
                with torch.no_grad():
                    critics.biases[-1][..., critics.offsets[slot] + choice] += value
        torch.manual_seed(0)
        found = [algorithm.update(batch).to_dict() for _ in range(2)][-1]
        with torch.no_grad():
            check_forbidden_choices(algorithm.acting_policy().eval(), spec)
        return found

    assert losses(free) == losses(plain)
    restricted = losses(masked)
    assert all(loss.isfinite() for loss in restricted.values())
    assert restricted == losses(masked, 1e6)


def _check_resuming(config: AlgorithmConfig, policy: PolicyConfig, spec: ActionSpec) -> None:
    """A training that is saved and loaded goes on bit for bit, given torch's random state."""
    first = build_algorithm(config, policy, spec)
    first.update(random_batch(spec, seed=1))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = build_algorithm(config, policy, spec)
    second.load_state_dict(torch.load(file, weights_only=True))
    for algorithm in (first, second):
        torch.manual_seed(7)
        algorithm.update(random_batch(spec, seed=2))
    expected = copy.deepcopy(first.state_dict())
    for name, value in second.state_dict().items():
        if isinstance(value, torch.Tensor):
            _require(torch.equal(value, expected[name]), f"{name} must be the same after resuming")
