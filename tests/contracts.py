"""What every policy and every algorithm must do. A new one's test is one line: ``contracts.check_policy(New())``."""

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
    return FakeFrozenASM(encoder.build(size, spec, seed=1), **fields)


def build_policy(config: PolicyConfig, spec: ActionSpec, *, seed: int = 0, size: int = SIZE) -> Policy:
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


def check_policy(config: PolicyConfig) -> None:
    """Everything a policy promises, over equal, mixed and single sub-actions."""
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
    assert log_probs.shape == (len(batch), spec.num_sub_actions, spec.max_choices)
    invalid = ~spec.valid()
    assert (log_probs[:, invalid] == -torch.inf).all()
    assert log_probs[:, ~invalid].isfinite().all()
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(len(batch), spec.num_sub_actions))
    joint = log_probs.gather(-1, action[..., None]).sum((-1, -2))
    torch.testing.assert_close(policy.log_prob(observation, action), joint)
    # A distribution of one sample does not depend on the others of its batch.
    torch.testing.assert_close(policy.log_prob(observation[:1], action[:1]), joint[:1], rtol=1e-4, atol=1e-5)


def _check_sampling(policy: Policy, spec: ActionSpec) -> None:
    observation = random_batch(spec, 4)[OBSERVATION]
    shape = (4, spec.num_sub_actions, spec.max_choices)
    noise = gumbel_noise(shape, generator=torch.Generator().manual_seed(3))
    action = policy.sample(observation, noise)
    assert action.dtype == torch.int64
    assert torch.equal(action, policy.sample(observation, noise))
    assert torch.equal(policy.mode(observation), policy.sample(observation, torch.zeros(shape)))
    # What is drawn often is what the log-probabilities say: of the first sub-action, which depends on no other.
    many = 4000
    one = observation[:1].expand(many, -1)
    noise = gumbel_noise((many, *shape[1:]), generator=torch.Generator().manual_seed(4))
    counts = policy.sample(one, noise)[:, 0].bincount(minlength=spec.max_choices)
    expected = policy.log_probs(observation[:1], action[:1])[0, 0].exp()
    assert (counts / many - expected).abs().max() < 5 * (0.25 / many) ** 0.5
    for actions in (action, policy.sample(one, noise)):
        assert (actions >= 0).all() and (actions < torch.tensor(spec.nvec)).all()


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
            assert torch.equal(ours, free)
        action, logits = policy.decide(observation, given, allowed)
        assert allowed.gather(-1, action[..., None]).all()
        assert (logits[~allowed] == -torch.inf).all()
        assert (policy.decide(observation, given, ~everything)[1] == -torch.inf).all()
        assert logits.gather(-1, action[..., None]).isfinite().all()


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

    policy.logits = remember  # type: ignore[method-assign]
    try:
        policy.log_prob(batch[OBSERVATION], batch[ACTION], batch[ALLOWED]).sum().backward()
    finally:
        del policy.logits
    policy.zero_grad()
    gradient = made[0].grad
    assert gradient is not None and (gradient[~possible] == 0).all()
    assert gradient.isfinite().all() and gradient.any()


def _check_tensordict_module(policy: Policy, spec: ActionSpec) -> None:
    assert isinstance(policy, TensorDictModuleBase)
    assert (policy.in_keys, policy.out_keys) == ([OBSERVATION], [LOGITS, ACTION, SAMPLE_LOG_PROB])
    observation = random_batch(spec)[OBSERVATION]
    with set_interaction_type(InteractionType.DETERMINISTIC):
        out = policy(TensorDict({OBSERVATION: observation}, batch_size=[len(observation)]))
    assert torch.equal(out[ACTION], policy.mode(observation))
    torch.testing.assert_close(out[SAMPLE_LOG_PROB], policy.log_prob(observation, out[ACTION]))
    torch.testing.assert_close(out[LOGITS], policy.logits(observation, out[ACTION]))
    torch.manual_seed(0)
    first = policy(TensorDict({OBSERVATION: observation}, batch_size=[len(observation)]))
    torch.manual_seed(0)
    second = policy(TensorDict({OBSERVATION: observation}, batch_size=[len(observation)]))
    assert torch.equal(first[ACTION], second[ACTION])
    assert first[SAMPLE_LOG_PROB].isfinite().all()


def _check_standard_units(policy: Policy, spec: ActionSpec) -> None:
    """Every observation passes a `Standardizer` once, whichever way the policy is called."""
    batch = random_batch(spec)
    observation, action = batch[OBSERVATION], batch[ACTION]
    standard, other = copy.deepcopy(policy), Standardizer(SIZE)
    for each in (*standardizers(standard), other):
        each.set(torch.full((SIZE,), 0.5), torch.full((SIZE,), 3.0))
    assert torch.equal(standard.logits(observation, action), policy.logits(other(observation), action))
    for ours, raw in zip(standard.decide(observation, None), policy.decide(other(observation), None), strict=True):
        assert torch.equal(ours, raw)


def _check_gradients_are_finite(policy: Policy, spec: ActionSpec) -> None:
    batch = random_batch(spec)
    policy.train().log_prob(batch[OBSERVATION], batch[ACTION]).sum().backward()
    trained = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert trained
    for name, parameter in trained.items():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert spec.num_sub_actions == 1 or parameter.grad.any() or "key" in name, f"{name} gets no gradient"
    for parameter in policy.parameters():
        assert parameter.requires_grad or parameter.grad is None


def _check_seeds(config: PolicyConfig) -> None:
    spec = SPECS[0]
    state = torch.random.get_rng_state()
    same, other = build_policy(config, spec).state_dict(), build_policy(config, spec, seed=1).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state), "building a policy moved the global random state"
    for name, value in build_policy(config, spec).state_dict().items():
        assert torch.equal(value, same[name]) if isinstance(value, torch.Tensor) else value == same[name]
    trained = [name for name, p in build_policy(config, spec).named_parameters() if p.requires_grad]
    assert any(not torch.equal(same[name], other[name]) for name in trained)


def check_algorithm(config: AlgorithmConfig, policy: PolicyConfig) -> None:
    """Everything an algorithm promises with one kind of policy, over equal, mixed and single sub-actions."""
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
    built = build_policy(policy, spec, size=size)
    return config.build(built, size, spec, seed=0, machine=machine or ResolvedMachine())


def _check_update(algorithm: Algorithm, spec: ActionSpec) -> None:
    batch = random_batch(spec)
    untouched = batch.clone()
    before = {name: parameter.detach().clone() for name, parameter in algorithm.policy.named_parameters()}
    for _ in range(3):
        losses = algorithm.update(batch)
    assert any(name.startswith("loss_") for name in losses.keys())  # noqa: SIM118 (iterating goes over the batch)
    for name, loss in losses.items():
        assert loss.shape == () and not loss.requires_grad and loss.isfinite(), name
    assert (batch == untouched).all(), "update changed its batch"
    for name, parameter in algorithm.policy.named_parameters():
        if parameter.requires_grad:
            # A single sub-action leaves nothing to relate, and a shift of all keys is never seen.
            moot = spec.num_sub_actions == 1 or "key.bias" in name
            assert moot or not torch.equal(parameter, before[name]), f"{name} is never trained"
        else:
            assert torch.equal(parameter, before[name]), f"frozen {name} changed"
    assert isinstance(algorithm.acting_policy(), Policy)


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
            assert torch.equal(value, expected[name]), f"{name} differs after resuming"
