"""Cells as the jobs of one Slurm array, through submitit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import submitit

from harness.launchers import LaunchError, Slurm
from harness.remote.task import CellTask


class SlurmEngine:
    """An array of jobs.

    Args:
        config: what a job takes, and where.
        memory: bytes of a cell.
        folder: of this invocation; what jobs print lands in ``jobs`` beside it.
    """

    def __init__(self, config: Slurm, memory: float, folder: Path) -> None:
        self.logs = folder.with_name("jobs")
        self._jobs: dict[int, submitit.Job] = {}
        try:
            self._executor = submitit.AutoExecutor(folder=self.logs, cluster=config.cluster)
        except RuntimeError as error:
            raise LaunchError(
                f"no Slurm is here ({error}); run this where sbatch is, or Slurm.cluster='local'"
            ) from error
        slurm = {
            "slurm_partition": config.partition,
            "slurm_account": config.account,
            "slurm_array_parallelism": config.jobs or None,
            "slurm_additional_parameters": config.parameters,
        }
        self._executor.update_parameters(
            name="spinrl",
            timeout_min=config.minutes,
            cpus_per_task=config.cpus,
            gpus_per_node=int(config.gpus),
            mem_gb=max(1, round(memory / 2**30 + 0.5)),
            **({name: value for name, value in slurm.items() if value} if config.cluster == "slurm" else {}),
        )

    def submit(self, tasks: Sequence[CellTask]) -> None:
        # A job starts in the folder of the command, but would not find components of the user's own.
        os.environ["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        try:
            jobs = self._executor.submit_array(tasks)
        except submitit.core.utils.FailedJobError as error:
            raise LaunchError(f"Slurm refuses the jobs: {str(error).strip().splitlines()[-1]}") from error
        self._jobs = {task.number: job for task, job in zip(tasks, jobs, strict=True)}

    def ended(self) -> Mapping[int, str]:
        return {
            number: f"its job {job.job_id} ended as {job.state}; see {job.paths.stderr}"
            for number, job in self._jobs.items()
            if job.done()
        }

    def cancel(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number in self._jobs:
                self._jobs[number].cancel(check=False)

    def close(self) -> None:
        """Nothing is held."""
