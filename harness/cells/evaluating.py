"""A cell's training to the end of its budget, with every evaluation and estimate that is due on the way."""

from __future__ import annotations

import math
import time

from harness.cells.events import Notice, Pictured, Report, StageProgress, StageStarted
from harness.cells.pictures import Remembered, strip_of
from harness.cells.training import CellTraining
from harness.records import RETURN
from spinrl.evaluation import EpisodeReturns, EstimationData, Estimator, episode_seeds, evaluate_episodes
from spinrl.events import stage_progress
from spinrl.policies import Policy
from spinrl.tasks import Environment


def train_and_judge(training: CellTraining, environment: Environment | None, report: Report) -> None:
    """Train, and evaluate and estimate what is due and was not yet, at every mark of the budget."""
    config = training.experiment.evaluation
    if environment is not None and training.cell.policy.starts_as_asm:
        made_before = {each.asm_share for each in training.evaluations if not each.gradient_step}
        for share in config.during_pretraining:
            if share not in made_before:
                _evaluate_asm(training, share, environment, report)
    for mark, fraction in config.marks(training.experiment.training.gradient_steps).items():
        if training.ended_at is not None and mark > training.ended_at:
            break
        if mark > training.step:
            training.advance(mark, report)
        made = {each.metric for each in training.evaluations if each.gradient_step == mark}
        if environment is not None and RETURN not in made:
            _evaluate(training, mark, fraction, environment, report)
        if mark == training.ended_at:
            fraction = 1.0
        for estimator in config.estimators:
            due = estimator.fractions is None or fraction in estimator.fractions
            if due and estimator.metric not in made:
                _estimate(training, mark, fraction, estimator, report)


def _evaluate(training: CellTraining, mark: int, fraction: float, environment: Environment, report: Report) -> None:
    """Evaluate in the simulator, on the same episode starts at every mark, and checkpoint."""
    config = training.experiment.evaluation
    marks = config.marks(training.experiment.training.gradient_steps)
    total = sum(config.episodes_at(each) for each in marks.values())
    report(StageStarted("evaluating", total, "episodes"))
    began = time.perf_counter()
    policy, episodes = training.algorithm.acting_policy(), config.episodes_at(fraction)
    watched = Remembered(environment) if config.pictures else environment
    found = _returns(training, policy, watched, 0, episodes)
    earlier = [each.mean for each in training.evaluations if each.metric == RETURN and each.gradient_step]
    if ended := fraction < 1 and training.experiment.training.ends([*earlier, math.fsum(found.returns) / episodes]):
        fraction = 1.0
        more = _returns(training, policy, environment, episodes, config.episodes_at(fraction))
        found = EpisodeReturns(found.returns + more.returns, found.discounted + more.discounted)
    training.add(mark, fraction, RETURN, found.returns, began, report, discounted=found.discounted, ended_early=ended)
    _tell_of_cut(training, environment, report)
    report(StageProgress(sum(len(each.returns) for each in training.evaluations if each.metric == RETURN)))
    if ended:
        budget, patience = training.experiment.training.gradient_steps, training.experiment.training.patience
        report(Notice(f"ended at {mark:,} of {budget:,} gradient steps: no better return in {patience} evaluations"))
    if isinstance(watched, Remembered) and fraction >= 1:
        _picture(training, watched, report)


def _picture(training: CellTraining, episode: Remembered, report: Report) -> None:
    """Tell of the strip of an episode; what cannot be drawn must not end the cell."""
    try:
        png = strip_of(training.experiment, training.cell, episode)
    except Exception as error:
        report(Notice(f"the last evaluation could not be drawn: {' '.join(str(error).split())}"))
    else:
        if png is not None:
            report(Pictured(png))


def _evaluate_asm(training: CellTraining, share: float, environment: Environment, report: Report) -> None:
    """Evaluate the policy as the ASM was after a share of its pre-training, if it was kept."""
    asm = training.asm.at(share) if training.asm else None
    if asm is None:
        return
    config = training.experiment.evaluation
    report(StageStarted("evaluating the ASM", config.episodes, "episodes"))
    began = time.perf_counter()
    found = _returns(training, training.build_policy(training.store, asm), environment, 0, config.episodes)
    spent = {"asm_seconds": asm.seconds, "start_seconds": 0.0, "train_seconds": 0.0}
    training.add(0, 0.0, RETURN, found.returns, began, report, discounted=found.discounted, asm_share=share, **spent)


def _returns(training: CellTraining, policy: Policy, environment: Environment, first: int, last: int) -> EpisodeReturns:
    """Returns of the evaluation episodes from number `first` to before `last`."""
    config = training.experiment.evaluation
    return evaluate_episodes(
        policy,
        environment,
        episode_seeds(training.cell.key.seed, last)[first:],
        action=config.action,
        steps=config.episode_steps,
        gamma=training.algorithm.config.gamma,
        capture=training.machine.capture,
    )


def _tell_of_cut(training: CellTraining, environment: Environment, report: Report) -> None:
    """Say, once, that the last evaluation cut episodes; the benchmark's all end by the number of steps."""
    if training.told_of_cut or training.cell.key.task not in training.experiment.simulators:
        return
    config = training.experiment.evaluation
    cut = sum(not environment.over([index]) for index in range(config.episodes))
    if cut:
        training.told_of_cut = True
        report(
            Notice(
                f"{cut} of {config.episodes} episodes were cut after {config.episode_steps:,} steps, before the "
                "simulator ended them; raise Evaluating.episode_steps to evaluate whole ones"
            )
        )


def _estimate(training: CellTraining, mark: int, fraction: float, estimator: Estimator, report: Report) -> None:
    """Estimate from data alone, and checkpoint."""
    data = EstimationData(
        training=training.store,
        held_out=training.held_out,
        device=training.machine.device,
    )
    began = time.perf_counter()
    action = training.experiment.evaluation.action
    progress = stage_progress(report, "estimating", estimator.unit)
    values = estimator.estimate(training.algorithm, data, seed=training.cell.key.seed, action=action, progress=progress)
    training.add(mark, fraction, estimator.metric, values, began, report)
