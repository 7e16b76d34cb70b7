"""A policy of the public reference code is evaluated as ours are, and refused where it is not what was said."""

import attrs
import pytest
import torch

from harness.experiment import Evaluating, Experiment
from harness.exporting.reference import reference_cell
from spinrl import reference
from spinrl.algorithms import BCQ, IQL
from spinrl.asm import ASMEncoder, FrozenASM, Pretraining
from spinrl.data import Source, Tier
from spinrl.errors import UserError
from spinrl.evaluation import episode_seeds, evaluate
from spinrl.policies import SPIN, Factored
from spinrl.tasks import TASKS, BatchedEnvironment

TASK = TASKS["finger-spin"]
SPEC = TASK.action_spec(3)
ENCODER = ASMEncoder(d_model=8, num_heads=2, num_blocks=1, head_width=8)


def experiment(policy=Factored(hidden=[16, 16]), **given):  # noqa: B008  # frozen
    return Experiment(
        tasks=["finger-spin"],
        tiers=["expert"],
        policies=[policy],
        algorithms=given.pop("algorithms", [IQL()]),
        recipes={tier: Tier(sources=[Source(behavior=tier)]) for tier in ("expert", "medium")},
        pretraining=Pretraining(encoder=ENCODER),
        evaluation=Evaluating(episodes=2, episode_steps=40),
        seeds=[0, 1],
        **given,
    )


def factored_checkpoint(path):
    """A file as the reference's training leaves it, and our policy of the same weights."""
    policy = Factored(hidden=[16, 16]).build(TASK.observation_size, SPEC, seed=1)
    ours = policy.state_dict()
    theirs = {name.replace("trunk", "shared"): ours[name] for name in ours if name.startswith("trunk")}
    for slot in range(SPEC.num_sub_actions):
        theirs[f"heads.{slot}.weight"] = ours["heads.weight"][slot].t()
        theirs[f"heads.{slot}.bias"] = ours["heads.bias"][slot, 0]
    torch.save({"actor_state_dict": theirs, "step": 5}, path)
    return policy.eval()


def spin_checkpoint(path):
    """The same for SPIN: every weight of the blocks, queries and heads is the file's."""
    asm = FrozenASM.untrained(ENCODER, TASK.observation_size, SPEC, seed=7)
    policy = SPIN().build(TASK.observation_size, SPEC, asm=asm, seed=1)
    ours = {name: value for name, value in policy.state_dict().items() if torch.is_tensor(value)}
    theirs = {"slot_embeddings": ours["slot_queries"]}
    names = {inner: outer for outer, inner in reference._BLOCK.items()}
    for name, value in ours.items():
        parts = name.split(".")
        if name.startswith("encoder.state_encoder"):
            theirs[name.removeprefix("encoder.")] = value
        elif name.startswith("encoder.blocks"):
            theirs[f"blocks.{parts[2]}.mab.{names[parts[3]]}.{parts[4]}"] = value
    for slot in range(SPEC.num_sub_actions):
        theirs[f"heads.{slot}.0.weight"] = ours["heads.hidden_weight"][slot].t()
        theirs[f"heads.{slot}.0.bias"] = ours["heads.hidden_bias"][slot, 0]
        theirs[f"heads.{slot}.3.weight"] = ours["heads.weight"][slot].t()
        theirs[f"heads.{slot}.3.bias"] = ours["heads.bias"][slot, 0]
    torch.save({"actor_state_dict": theirs}, path)
    return policy.eval()


@pytest.mark.parametrize("write, config", [(factored_checkpoint, Factored(hidden=[16, 16])), (spin_checkpoint, SPIN())])
def test_its_policy_acts_in_the_simulator_as_it_did(write, config, tmp_path):
    same = write(tmp_path / "theirs.pt")
    cell = reference_cell(tmp_path / "theirs.pt", experiment(config))
    environment = BatchedEnvironment(TASK, 3, 2)
    returns = evaluate(same, environment, episode_seeds(0, 2), action="sample", steps=40)
    environment.close()
    assert list(cell.final.returns) == returns
    assert cell.key.label() == f"finger-spin/3 expert {type(config).__name__.lower()}-iql s0"
    assert (cell.gradient_steps, cell.dataset_fingerprint, cell.asm_fingerprint) == (None, None, None)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"tiers": ["expert", "medium"]}, "one policy.* has 2 cells: finger-spin/3 expert .*, finger-spin/3 medium"),
        ({"standardize_observations": True}, "--set Experiment.standardize_observations=False"),
        ({"algorithms": [BCQ()]}, "gin/algorithms/iql.gin"),
        ({"policies": [Factored(hidden=[8, 8])]}, "does not fit a FactoredPolicy of the sizes"),
        ({"tasks": ["cheetah-run"]}, "does not fit a FactoredPolicy"),
    ],
)
def test_another_experiment_than_the_checkpoints_is_refused(changes, reason, tmp_path):
    factored_checkpoint(tmp_path / "theirs.pt")
    with pytest.raises(UserError, match=reason) as refusal:
        reference_cell(tmp_path / "theirs.pt", attrs.evolve(experiment(), **changes))
    assert "\n" not in str(refusal.value)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "theirs.pt").write_text("weights")
    with pytest.raises(UserError, match=r"theirs\.pt"):
        reference_cell(tmp_path / "theirs.pt", experiment())
