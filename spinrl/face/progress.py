"""What a training tells, shown: bars in a terminal or a notebook, and metrics of an open MLflow run.

MLflow is not imported here. A run can only be open where the caller has imported MLflow, which is then found.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

from spinrl.events import ASMReady, Fault, Metrics, Notice, StageProgress, StageStarted, Waiting

MetricsCallback = Callable[[int, dict[str, float]], Any]


class Bars:
    """One bar at a time, with the time left, for the stage that is going on.

    Args:
        shown: False shows none; True shows them in a terminal and in a notebook.
    """

    def __init__(self, shown: bool) -> None:
        # tqdm hides bars by itself where the output is no terminal, which it also takes a notebook's for.
        self._hidden = (None if "ipykernel" not in sys.modules else False) if shown else True
        self._bar: tqdm | None = None
        self._of = ("", 0)

    def start(self, stage: str, total: int, unit: str) -> None:
        """Show a stage; the one before is over. The same stage again goes on."""
        if self._bar is not None and self._of == (stage, total):
            return
        self.close()
        self._of = (stage, total)
        self._bar = tqdm(total=total, desc=stage, unit=f" {unit}", disable=self._hidden, leave=False)

    def update(self, done: int) -> None:
        """`done` units of the stage are done."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def stage(self, name: str, unit: str) -> Callable[[int, int], None]:
        """A function of (units done, in all) that shows a stage."""

        def progress(done: int, total: int) -> None:
            self.start(name, total, unit)
            self.update(done)

        return progress

    def close(self) -> None:
        """The stage is over."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


class Listener:
    """Takes the events of a training.

    Args:
        bars: for its stages.
        callback: told of every reported metric; returning False stops the training.
        stop: called then.
    """

    def __init__(self, bars: Bars, callback: MetricsCallback | None, stop: Callable[[], None]) -> None:
        self._bars, self._callback, self._stop = bars, callback, stop
        self._run = _open_run()
        self._stage = ""

    def __call__(self, event: Any) -> None:
        match event:
            case StageStarted():
                self._stage = event.stage
                self._bars.start(event.stage, event.total, event.unit)
            case StageProgress():
                self._bars.update(event.done)
            case Metrics():
                self._log(event.step, event.values)
                told = self._callback if self._stage == "training" else None
                if told is not None and told(event.step, dict(event.values)) is False:
                    self._stop()
            case ASMReady():
                self._bars.close()
            case Waiting():
                warnings.warn(f"another run is making {event.path}; waiting for it", stacklevel=2)
            case Fault() | Notice():
                warnings.warn(event.message, stacklevel=2)

    def _log(self, step: int, values: dict[str, float]) -> None:
        if self._run is None:
            return
        mlflow = sys.modules["mlflow"]
        try:
            mlflow.log_metrics(values, step=step, run_id=self._run)
        except mlflow.MlflowException as error:  # a training does not end for it
            self._run = None
            warnings.warn(f"MLflow takes no more metrics of this training: {error}", stacklevel=2)


def _open_run() -> str | None:
    """The id of the MLflow run that is open in this program."""
    mlflow: Any = sys.modules.get("mlflow")
    run = mlflow.active_run() if hasattr(mlflow, "active_run") else None
    return run.info.run_id if run else None
