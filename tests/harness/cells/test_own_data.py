"""The user's own data through the real chain: without a simulator, with one, and every fault before anything runs."""

import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pytest

from harness import run as command
from harness.cells.events import Notice
from harness.cells.identity import study_key
from harness.cells.run_cell import run_cell
from harness.experiment import Experiment
from harness.planning.preflight import check
from harness.tracking.read_back import load_results
from spinrl.config import load
from spinrl.data import (
    Episode,
    SourceRecord,
    Store,
    StoreError,
    StoreStorage,
    StoreWriter,
    imported_folder,
    standardizer,
)
from spinrl.evaluation import HeldOutLikelihood
from spinrl.machine import Machine
from spinrl.specs import ActionSpec
from spinrl.tasks.clinic import CHOICES, MEASURED, clinic_log
from tests.tasks.own_environment import counter_masks
from tools import export_policy, import_dataset

SPEC = ActionSpec((3, 2))
COUNTER = (
    "Experiment.simulators={'counter': @Gymnasium()}",
    "Gymnasium.id='Counter-v0'",
    "Gymnasium.module='tests.tasks.own_environment'",
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture(autouse=True)
def _logged():
    log("counter")


def log(task, episodes=20, masked=False):
    rng = np.random.default_rng(0)
    with StoreWriter(
        imported_folder(task),
        task=task,
        bins=None,
        action_spec=SPEC,
        observation_size=4,
        tier="logged",
        sources=[SourceRecord(behavior="logged")],
        extras=("allowed",) if masked else (),
    ) as writer:
        for episode in range(episodes):
            actions = rng.integers(0, SPEC.nvec, (5, 2))
            allowed = counter_masks(np.arange(6)) if masked else None
            if masked:
                actions = np.where(allowed[:5], rng.random((5, 2, 3)), -1.0).argmax(-1)
            last = np.arange(5) == 4
            writer.append(
                Episode(
                    observations=rng.uniform(-1, 1, (6, 4)).astype(np.float32),
                    actions=actions,
                    rewards=actions[:, 0].astype(float),
                    terminated=last & (episode % 2 == 0),
                    truncated=last & (episode % 2 == 1),
                    allowed=allowed,
                )
            )


def run(*bindings, task="counter", files=()):
    given = [part for binding in (f"Experiment.tasks=['{task}']", *bindings) for part in ("--set", binding)]
    more = [part for file in files for part in ("--gin", file)]
    return command.main(["--gin", "gin/own_data.gin", *more, "--smoke", "--jobs", "1", *given])


@pytest.mark.slow
def test_without_a_simulator_there_are_estimates(capsys):
    assert run() == 0
    table, meta = load_results(None, "own_data-smoke")
    assert set(table["policy"]) == {"factored", "autoregressive", "saint", "spin"}
    assert set(table["metric"]) == {"fitted_q", "log_likelihood"} and not meta.references
    by_metric = table.groupby("metric")["fraction"].unique().map(sorted)
    assert by_metric.to_dict() == {"fitted_q": [1.0], "log_likelihood": [0.5, 1.0]}
    assert table.groupby(["policy", "metric", "fraction"])["episode"].nunique().eq(2).all()  # a tenth of twenty
    assert (table["bins"] == 0).all() and np.isfinite(table["return"]).all()

    output = capsys.readouterr().out
    assert "counter logged spin-iql s0: estimated log likelihood -" in output
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("own_data-smoke").experiment_id])
    spin = next(each for each in runs if each.data.tags.get("policy") == "spin")
    assert {"eval/fitted_q_mean", "eval/log_likelihood_mean", "eval/log_likelihood_std"} <= set(spin.data.metrics)
    assert not any("return" in name for name in spin.data.metrics)
    parent = next(each for each in runs if each.data.tags["spinrl.role"] == "experiment")
    assert "log_likelihood/logged spin" in parent.data.metrics
    report = Path(client.download_artifacts(parent.info.run_id, "report/report.md", ".")).read_text()
    assert "## Estimates" in report and "## Learning curves" not in report

    assert export_policy.main([spin.info.run_id, "--out", "exported", "--format", "safetensors"]) == 0
    card = json.loads(Path("exported/card.json").read_text())
    assert card["control_values"] == [[0, 1, 2], [0, 1]]  # the choices themselves: nothing else is known of them
    assert card["metric"] in ("fitted_q", "log_likelihood") and not card["exported_returns"]
    assert card["compared_on"] == "observations of its dataset"
    assert card["trained_with_allowed"] is False
    assert card["data_licence"] == "as the imported data has it (logged)"


def test_with_a_simulator_returns_stand_beside_the_estimates():
    assert run(*COUNTER, "Experiment.policies=[@Factored()]") == 0
    table, _ = load_results(None, "own_data-smoke")
    returns = table[table["metric"] == "return"]
    assert len(returns) == 2 * 2 and returns["return"].between(0, 10).all()
    assert {"fitted_q", "log_likelihood"} < set(table["metric"])


MASKED = (
    "Experiment.simulators={'masked': @Gymnasium()}",
    *COUNTER[1:],
    "Gymnasium.options={'masked': True, 'stops': False}",
)


@pytest.mark.parametrize(
    ("in_data", "in_simulator", "said"),
    [
        (True, False, "the data has masks of allowed choices, and its simulator gives none"),
        (False, True, "its simulator gives masks of allowed choices, and the data has none"),
        (True, True, ""),
        (False, False, ""),
    ],
)
def test_masks_that_only_the_data_or_the_simulator_has_are_said_before(in_data, in_simulator, said):
    log("masked", masked=in_data)
    command.use_packaged_configs()
    given = ["Experiment.tasks=['masked']", "Experiment.policies=[@Factored()]", *MASKED[:-1]]
    options = f"Gymnasium.options={{'masked': {in_simulator}, 'stops': True}}"
    experiment = load(Experiment, ["gin/own_data.gin"], [*given, options]).value
    notices = check(experiment, experiment.cells())
    assert len(notices) == bool(said) and all(said in each for each in notices)


@pytest.mark.parametrize(
    ("algorithm", "policies", "starts"),
    [
        ("iql", "[@SPIN(), @Autoregressive()]", "{}"),
        ("awac", "[@SAINT()]", "{'saint': @Imitation()}"),
        ("bcq", "[@Factored(), @Autoregressive()]", "{'factored': @Imitation()}"),
    ],
)
def test_training_on_masked_data_makes_no_forbidden_choice(algorithm, policies, starts):
    """Neither in the simulator, which fails at one, nor in the estimates; with the starts of policy and critics."""
    log("masked", masked=True)
    bindings = (
        *MASKED,
        "Experiment.tasks=['masked']",
        f"Experiment.policies={policies}",
        f"Experiment.warm_starts={starts}",
    )
    command.use_packaged_configs()
    files = ["gin/own_data.gin", f"gin/algorithms/{algorithm}.gin"]
    experiment = load(Experiment, files, bindings).value.smoke()
    for cell in experiment.cells():
        evaluations = run_cell(experiment, cell, Machine(threads=1, compile=False).resolve(), lambda _: None)
        assert {each.metric for each in evaluations} == {"return", "fitted_q", "log_likelihood"}
        assert all(np.isfinite(each.returns).all() for each in evaluations)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_an_exported_policy_says_that_it_was_trained_with_masks():
    log("masked", masked=True)
    bindings = (*MASKED, "Experiment.policies=[@Factored()]", "Evaluating.estimators=[]", "Machine.compile=False")
    assert run(*bindings, "Experiment.machine=@Machine()", task="masked") == 0
    client = mlflow.MlflowClient()
    (cell,) = client.search_runs(
        [client.get_experiment_by_name("own_data-smoke").experiment_id], "tags.`spinrl.role` = 'cell'"
    )
    assert export_policy.main([cell.info.run_id, "--out", "exported", "--format", "safetensors"]) == 0
    assert json.loads(Path("exported/card.json").read_text())["trained_with_allowed"] is True


@pytest.mark.parametrize(("steps", "cut"), [(1000, True), (1200, False)])
def test_episodes_of_an_own_simulator_may_be_longer_than_the_benchmarks_and_a_cut_is_said_once(steps, cut):
    longer = (*COUNTER, "Gymnasium.options={'length': 1100, 'stops': False}", "Experiment.policies=[@Factored()]")
    sizes = (
        f"Evaluating.episode_steps={steps}",
        "Evaluating.final_episodes=1",
        "Evaluating.episodes=1",
        "Evaluating.fractions=[0.5, 1.0]",
    )
    bindings = (
        "Experiment.tasks=['counter']",
        "Evaluating.estimators=[]",
        "Training.gradient_steps=2",
        "MonteCarloCritics.steps=2",
        *longer,
        *sizes,
    )
    command.use_packaged_configs()
    experiment = load(Experiment, ["gin/own_data.gin"], bindings).value
    (cell,), events = experiment.cells(), []
    evaluations = run_cell(experiment, cell, Machine(threads=1).resolve(), events.append)
    assert len(evaluations) == 2 and evaluations[0].mean > 0
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert len(notices) == cut
    assert not cut or re.match("1 of 1 episodes were cut after 1,000 steps.*Evaluating.episode_steps", notices[0])


def test_nothing_is_trained_on_what_is_held_out(monkeypatch):
    """Not by the ASM, nor by the policy, nor by the Q of the estimate, and no observation of it is standardised by."""
    opened, standardized, judged = [], [], []
    initialize, estimate, units = StoreStorage.__init__, HeldOutLikelihood.estimate, standardizer.standard_units

    def remember_store(self, store, *args, **options):
        opened.append(store)
        initialize(self, store, *args, **options)

    def remember_data(self, algorithm, data, **options):
        judged.append(data.held_out)
        return estimate(self, algorithm, data, **options)

    monkeypatch.setattr(StoreStorage, "__init__", remember_store)
    monkeypatch.setattr(HeldOutLikelihood, "estimate", remember_data)
    monkeypatch.setattr(standardizer, "standard_units", lambda store: standardized.append(store) or units(store))
    bindings = ("Experiment.tasks=['counter']", "Experiment.held_out=0.25", "Experiment.policies=[@SPIN()]")
    command.use_packaged_configs()
    experiment = load(Experiment, ["gin/own_data.gin"], bindings).value.smoke()
    (cell,) = experiment.cells()
    run_cell(experiment, cell, Machine(threads=1).resolve(), lambda _: None)
    assert len(opened) >= 3 and standardized and judged

    def episodes(store):  # by their observations, of which no two are alike
        return {episode.observations.tobytes() for episode in store.episodes()}

    everything, held_out = episodes(Store.open(imported_folder("counter"))), episodes(judged[0])
    assert len(held_out) == 5 and held_out < everything
    for store in (*opened, *standardized):
        assert episodes(store) == everything - held_out


def test_the_likelihood_needs_something_held_out(capsys):
    assert run("Experiment.held_out=0.0") == 2
    assert "held_out has to be over 0 for HeldOutLikelihood" in capsys.readouterr().err


FAULTS = {
    "no such dataset": ((), "clinic", "no imported dataset is called 'clinic'.*tools.import_dataset"),
    "nothing to judge by": (("Evaluating.estimators=[]",), "counter", "'counter' has no simulator; give it one"),
    "another simulator": (
        ("Experiment.simulators={'counter': @Gymnasium()}", "Gymnasium.id='CartPole-v1'"),
        "counter",
        r"the simulator of counter takes actions of \[2\] choices and gives 4 .*the dataset has \[3, 2\] and 4",
    ),
    "a simulator that fails": (
        (*COUNTER, "Gymnasium.options={'fails': 'step'}"),
        "counter",
        "Counter-v0 cannot take the step .*LookupError: the patient is not there",
    ),
    "a simulator that fails later": (
        (*COUNTER, "Gymnasium.options={'fails': 'third step', 'stops': False}"),
        "counter",
        "Counter-v0 cannot take the step .*LookupError: the patient is not there",
    ),
    "no such simulator": (
        ("Experiment.simulators={'counter': @Gymnasium()}", "Gymnasium.id='Nothing-v0'"),
        "counter",
        "cannot make 'Nothing-v0'",
    ),
    "a simulator of nothing": (
        ("Experiment.simulators={'clinic': @Gymnasium()}", "Gymnasium.id='Nothing-v0'"),
        "counter",
        r"simulators: each key is a name of tasks \(counter\), got 'clinic'",
    ),
    "other bins": (("Experiment.bins=[3]",), "counter", "expected bins 3, found None"),
    "behaviours of its own": (
        ("Experiment.recipes={'logged': @Tier()}", "Tier.sources=[@Source()]", "Source.behavior='expert'"),
        "counter",
        "no task is called 'counter'.*for your own data see gin/own_data.gin",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_before_anything_runs(fault, capsys, tmp_path):
    bindings, task, reason = FAULTS[fault]
    assert run(*bindings, task=task) == 2
    errors = " ".join(capsys.readouterr().err.split())
    assert re.search(reason, errors), errors
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_a_single_episode_and_a_cache_that_cannot_be_written_are_refused_before_anything_runs(dry, capsys, monkeypatch):
    log("stream", episodes=1)
    arguments = ["--gin", "gin/own_data.gin", "--set", "Experiment.tasks=['stream']", *dry]
    assert command.main(arguments) == 2
    assert re.search(r"has one episode.*Experiment\.held_out_by='rows'", capsys.readouterr().err)

    def read_only(**_where):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert "cannot be written (Permission denied); set SPINRL_HOME" in error
    assert f"Imported.store='{imported_folder('{task}')}'" in error


def test_a_given_split_is_held_out_whole(tmp_path):
    files = [tmp_path / f"{name}.csv" for name in ("train", "test")]
    for seed, file in enumerate(files):
        clinic_log(patients=8, seed=seed).to_csv(file)
    columns = {"observations": MEASURED, "actions": CHOICES, "rewards": ["outcome"], "terminals": ["last"]}
    given = [part for name, names in columns.items() for part in ("--column", f"{name}={','.join(names)}")]
    options = ["--choices", "3,2,5", "--ends", "terminal", "--name", "clinic"]
    assert import_dataset.main([*map(str, files), *given, *options]) == 0

    command.use_packaged_configs()

    def experiment(*bindings):
        shared = ("Experiment.tasks=['clinic']", "Experiment.policies=[@Factored()]")
        return load(Experiment, ["gin/own_data.gin"], [*shared, *bindings]).value

    cells = experiment().cells()
    (notice,) = check(experiment(), cells)
    assert "trained on all of train, test" in notice and "held_out_sources=['test']" in notice
    held = experiment("Experiment.held_out_sources=['test']", "Experiment.held_out=0")
    assert check(held, cells) == [] and study_key(held, cells) != study_key(experiment(), cells)
    plan = held.dataset(cells[0])
    training, held_out = plan.store(), plan.held_out()
    assert training.metadata.episodes == held_out.metadata.episodes == 8
    assert plan.held_out_share == len(held_out) / plan.transitions
    with pytest.raises(StoreError, match="can name 'train', 'test'"):
        check(experiment("Experiment.held_out_sources=['validation']"), cells)


@pytest.mark.slow
def test_a_single_long_episode_is_judged_by_its_last_rows():
    log("stream", episodes=1)
    bindings = ("Experiment.held_out_by='rows'", "Experiment.held_out=0.4")
    assert run(*bindings, task="stream", files=["gin/policies/factored.gin"]) == 0
    table, _ = load_results(None, "own_data-smoke")
    assert set(table["metric"]) == {"fitted_q", "log_likelihood"} and np.isfinite(table["return"]).all()


def test_own_data_under_a_benchmark_tasks_name_is_not_judged_by_that_task(capsys):
    log("cheetah-run")
    assert run(task="cheetah-run") == 2
    error = capsys.readouterr().err
    assert "the simulator of cheetah-run takes actions of [3, 3, 3, 3, 3, 3] choices" in error and "[3, 2]" in error
