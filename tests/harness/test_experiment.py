"""The grid as data: its cells, when they are evaluated, and what is refused before anything runs."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.command_line import config_root
from harness.experiment import Evaluating, Experiment
from spinrl.budget import Training
from spinrl.config import ConfigError, from_plain, load, to_plain

MAIN = config_root() / "gin" / "spin_humanoid.gin"


def experiment(*bindings, files=()):
    return load(Experiment, [MAIN, *files], bindings).value


def test_the_main_experiment_is_four_tiers_of_spin():
    cells = experiment().cells()
    assert [cell.key.tier for cell in cells] == ["medium", "medium-expert", "random-medium-expert", "expert"]
    assert {(cell.key.task, cell.key.bins, cell.key.policy, cell.key.algorithm) for cell in cells} == {
        ("humanoid-stand", 3, "spin", "iql")
    }


def test_all_policies_on_two_tasks_is_the_whole_product():
    grid = experiment(
        "Experiment.tasks=['humanoid-stand', 'cheetah-run']",
        "Experiment.seeds=[0, 1, 2]",
        files=[config_root() / "gin" / "policies" / "all.gin"],
    )
    cells = grid.cells()
    assert len(cells) == 2 * 4 * 4 * 3 == len({cell.key for cell in cells})


def test_the_paper_preset_is_the_published_method():
    paper = experiment(files=[config_root() / "gin" / "scale" / "paper.gin"])
    assert paper.preset == "paper" and paper.seeds == (0, 1, 2, 3, 4)
    assert paper.training.gradient_steps == 1_000_000 and paper.training.batch_size == 256
    assert paper.evaluation.every_steps == 5000 and paper.evaluation.episodes == 10
    assert paper.evaluation.episodes_at(1.0) == 10 and paper.machine.precision == "fp32"
    assert paper.critic_start is None and paper.training.patience is None
    encoder, pretraining, spin = paper.pretraining.encoder, paper.pretraining, paper.policies[0]
    sizes = (encoder.d_model, encoder.num_heads, encoder.num_blocks, encoder.num_state_tokens, encoder.state_width)
    assert sizes == (256, 4, 3, 1, None)
    assert (encoder.dropout, encoder.head_width) == (0.1, 128)
    assert (pretraining.batch_size, pretraining.epochs, pretraining.learning_rate) == (1024, 100, 4e-4)
    assert (pretraining.masking.share, pretraining.masking.probability) == ("fixed", 0.15)
    assert (spin.slot_queries, spin.heads, spin.query_share, spin.frozen_dropout) == (
        "random",
        "random",
        1.0,
        True,
    )
    algorithm = paper.algorithms[0]
    assert (algorithm.expectile, algorithm.inverse_temperature, algorithm.weight_clip) == (0.8, 3.0, 100.0)
    sizes = {name: sum(n for _, n in tier.split(1)) for name, tier in paper.recipes.items()}
    assert sizes == {
        "medium": 1_000_000,
        "expert": 1_000_000,
        "medium-expert": 2_000_000,
        "random-medium-expert": 200_000,
    }


def test_a_preset_changes_sizes_budgets_and_starts_only():
    """And what belongs to a budget: the sizes of steps, and how sharply IQL follows critics that have had few."""
    root = config_root() / "gin"
    algorithms = root / "algorithms" / "all.gin"
    laptop, paper = experiment(files=[algorithms]), experiment(files=[algorithms, root / "scale" / "paper.gin"])
    scaled = {"hidden": (256, 256), "learning_rate": 3e-4, "polyak_rate": 0.005}
    assert len({(each.hidden, each.learning_rate, each.polyak_rate) for each in laptop.algorithms}) == 1
    iql, awac, bcq = (attrs.evolve(each, **scaled) for each in laptop.algorithms)
    iql = attrs.evolve(iql, inverse_temperature=3.0)
    assert (iql, awac, attrs.evolve(bcq, factored_dropout=False)) == paper.algorithms  # as in the public code
    assert len(paper.algorithms) == 3
    assert laptop.evaluation.action == paper.evaluation.action == "sample"
    assert laptop.evaluation.fractions == paper.evaluation.fractions
    for name, tier in laptop.recipes.items():
        assert tier.sources == paper.recipes[name].sources


def test_the_configuration_travels_as_plain_data():
    assert from_plain(to_plain(experiment())) == experiment()


EXPERIMENTS = sorted((config_root() / "gin" / "experiments").glob("*.gin"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_runs_at_both_scales(path):
    """As it is at laptop scale, and at the paper's with one more file."""
    laptop = load(Experiment, [path], []).value
    paper = load(Experiment, [path, config_root() / "gin" / "scale" / "paper.gin"], []).value
    assert (laptop.preset, paper.preset) == ("laptop", "paper")
    assert laptop.name == paper.name == path.stem and len(laptop.seeds) == (5 if path.stem == "ranking" else 3)
    assert [cell.key.policy for cell in laptop.cells()] != [] and paper.training.gradient_steps == 1_000_000


VARIANTS = (
    "Experiment.policies={'spin-warm': @SPIN(), 'spin-cold': @cold/SPIN()}",
    "cold/SPIN.slot_queries='random'",
    "Experiment.pretrainings={'spin-cold': @short/Pretraining()}",
    "short/Pretraining.steps=7",
)


def test_variants_of_one_class_have_names_and_may_have_an_asm_of_their_own():
    grid = experiment(*VARIANTS, "Experiment.tiers=['expert']")
    warm, cold = grid.cells()
    assert (warm.key.policy, cold.key.policy) == ("spin-warm", "spin-cold")
    assert (warm.policy.slot_queries, cold.policy.slot_queries) == ("mask_tokens", "random")
    assert warm.pretraining == grid.pretraining and cold.pretraining.steps == 7
    assert from_plain(to_plain(grid)) == grid
    assert [cell.pretraining.steps for cell in grid.smoke().cells()] == [5, 5]


@given(st.integers(1, 100_000), st.integers(1, 5000))
def test_every_fraction_is_evaluated_once_and_the_last_is_the_budget(steps, every):
    marks = Evaluating(every_steps=every).marks(steps)
    assert list(marks) == sorted(marks)
    assert max(marks) == steps and marks[steps] == 1.0
    assert all(1 <= step <= steps and 0 < fraction <= 1 for step, fraction in marks.items())
    assert set(range(every, steps, every)) <= set(marks)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("Experiment.tasks=['humanoid-stnad']", "did you mean 'humanoid-stand'"),
        ("Experiment.bins=[1]", "from 2 to 100"),
        ("Experiment.bins=[101]", "from 2 to 100"),
        ("Experiment.tiers=['exprt']", "did you mean 'expert'"),
        ("Experiment.tiers=['expert', 'expert']", "each value once"),
        ("Experiment.policies=[@SPIN(), @SPIN()]", "give each a name"),
        ("Experiment.pretrainings={'sipn': @Pretraining()}", "each key is a name of policies"),
        ("Evaluating.fractions=[0.5]", "end with 1.0"),
        ("Evaluating.fractions=[0.5, 0.1, 1.0]", "rising numbers"),
        ("Evaluating.during_pretraining=[0.5, 0.1]", "rising numbers"),
        ("Experiment.warm_starts={'spn': @Imitation()}", "each key is a name of policies"),
        ("Training.gradient_steps=0", "at least 1"),
        ("Evaluating.episode_steps=1001", "episodes of humanoid-stand end after 1000 steps"),
        ("Experiment.algorithms=[@SPIN()]", "must be"),
    ],
)
def test_faults_name_the_binding(binding, message):
    with pytest.raises(ConfigError, match=message) as caught:
        experiment(binding)
    (problem,) = caught.value.problems
    assert "\n" not in problem and binding.split("=")[0].split(".")[1] in problem


def test_the_smoke_grid_is_the_same_grid_at_tiny_sizes():
    whole = experiment()
    smoke = whole.smoke()
    assert smoke.preset == "smoke" and [c.key for c in smoke.cells()] == [c.key for c in whole.cells()]
    assert smoke.training.gradient_steps < 100
    assert attrs.asdict(smoke.policies[0]) == attrs.asdict(whole.policies[0])


def test_a_cached_spin_at_the_papers_sizes_has_an_asm_that_knows_the_masked_action():
    root = config_root() / "gin"
    grid = experiment(files=[root / "scale" / "paper.gin", root / "policies" / "spin_cached.gin"])
    (cell, *_) = grid.cells()
    assert cell.policy.cached and cell.pretraining.masking.share == "per_sample"


@pytest.mark.parametrize("scale", ["quick", "laptop", "workstation", "paper"])
def test_controls_stand_beside_spin_at_every_scale(scale):
    root = config_root() / "gin"
    grid = experiment(files=[root / "scale" / f"{scale}.gin", root / "policies" / "controls.gin"])
    starts = {cell.key.policy: cell.warm_start for cell in grid.cells()}
    assert grid.preset == scale and set(starts) >= {"factored", "saint", "spin"}
    assert {name for name, start in starts.items() if start} == {"factored-imitation", "saint-imitation"}
    assert starts["saint-imitation"].steps == 4000
    assert from_plain(to_plain(grid)) == grid


def test_training_ends_when_the_best_return_is_so_many_evaluations_old():
    training = Training(patience=2)
    assert not training.ends([1.0, 0.5]) and training.ends([1.0, 0.5, 1.0])
    assert not training.ends([1.0, 0.5, 1.1]) and not training.ends([1.0, 0.5, 1.1, 0.0])
    assert not Training().ends([3.0, 2.0, 1.0])
