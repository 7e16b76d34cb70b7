"""Cells as the jobs of one Slurm array, through submitit."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import submitit

from harness.launchers import Slurm
from harness.launching.outcome import LaunchError
from harness.launching.task import CellTask

ASK_SECONDS = 15.0  # between two queries, so as not to load the Slurm controller
_IDS = "slurm-jobs"


class SlurmEngine:
    """An array of jobs.

    Args:
        config: partition and resources of a job.
        memory: memory of a cell in bytes.
        folder: folder of this invocation; the jobs' output goes to ``jobs`` beside it.

    Raises:
        LaunchError: when no jobs can be submitted from here.
    """

    def __init__(self, config: Slurm, memory: float, folder: Path) -> None:
        self._logs = folder.with_name("jobs")
        self._folder = folder
        self._on_slurm = config.cluster == "slurm"
        self._jobs: dict[int, submitit.Job] = {}
        self._asked = -ASK_SECONDS
        self._queued: set[str] = set()
        logging.getLogger("submitit").setLevel(logging.ERROR)
        try:
            self._executor = submitit.AutoExecutor(folder=self._logs, cluster=config.cluster)
        except RuntimeError as error:
            hint = "run this where sbatch is, or set Slurm.cluster='local'"
            raise LaunchError(f"no Slurm is here ({error}); {hint}") from error
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
            mem_gb=max(1, round(memory / 2**30 + 0.49)),
            **({name: value for name, value in slurm.items() if value} if self._on_slurm else {}),
        )
        self._cancel_left_over()

    def submit(self, tasks: Sequence[CellTask]) -> None:
        # A job starts in the folder of the command, but without the user's own components on its path. That folder does
        # not come first, since the user's may have a `harness` or `tools` of their own.
        os.environ["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        os.environ["PYTHONSAFEPATH"] = "1"
        try:
            jobs = self._executor.submit_array(tasks)
        except submitit.core.utils.FailedJobError as error:
            raise LaunchError(f"Slurm refused the jobs: {str(error).strip().splitlines()[-1]}") from error
        self._jobs = {task.number: job for task, job in zip(tasks, jobs, strict=True)}
        if self._on_slurm:
            (self._folder / _IDS).write_text(" ".join({job.job_id.partition("_")[0] for job in jobs}), encoding="utf-8")

    def ended(self) -> Mapping[int, str]:
        if not self._on_slurm:
            over = [number for number, job in self._jobs.items() if job.done()]
        else:
            self._ask()
            over = [number for number, job in self._jobs.items() if job.job_id not in self._queued]
        return {
            number: f"its job {self._jobs[number].job_id} ended before the cell did; see {self._log(number)}"
            for number in over
        }

    def cancel(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number in self._jobs:
                self._jobs[number].cancel(check=False)

    def close(self, *, well: bool) -> None:
        if well:  # otherwise the jobs' output is kept
            shutil.rmtree(self._logs, ignore_errors=True)

    def _log(self, number: int) -> Path:
        return self._jobs[number].paths.stderr

    def _ask(self) -> None:
        """Update which jobs wait or run. submitit uses sacct, which needs accounting; squeue works everywhere."""
        if time.monotonic() - self._asked < ASK_SECONDS:
            return
        self._asked = time.monotonic()
        ids = ",".join({job.job_id.partition("_")[0] for job in self._jobs.values()})
        command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={ids}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            self._queued = set(answer.stdout.split())
        elif "Invalid job id" in answer.stderr:  # all have ended and left Slurm's memory
            self._queued = set()
        elif not self._queued:  # no answer from Slurm so far: assume that all are queued
            self._queued = {job.job_id for job in self._jobs.values()}

    def _cancel_left_over(self) -> None:
        """Cancel jobs of a killed earlier invocation, which would do the same work twice."""
        for ids in self._folder.parent.glob(f"*/{_IDS}"):
            subprocess.run(["scancel", *ids.read_text(encoding="utf-8").split()], capture_output=True, check=False)
            shutil.rmtree(ids.parent, ignore_errors=True)
