"""What a cell learns before its training begins: its policy by imitation, and its critics."""

from __future__ import annotations

from harness.cells.events import STARTS, Fault, Metrics, Report, StartReady, Waiting, stage_progress
from harness.experiment import Cell
from spinrl.algorithms import Algorithm, SupervisedStart
from spinrl.asm import FrozenASM
from spinrl.config import to_plain
from spinrl.data import ReplayLoader, Store


def make_start(
    start: SupervisedStart,
    cell: Cell,
    algorithm: Algorithm,
    store: Store,
    loader: ReplayLoader,
    asm: FrozenASM | None,
    report: Report,
    *,
    standardized: bool,
) -> float:
    """Give the networks of an algorithm one start; the seconds that it once took.

    Raises:
        DivergedError, CheckpointError, StoreError: in one line each.
    """
    tell = stage_progress(report, STARTS[start.kind], "steps")

    def progress(step: int, values: dict[str, float]) -> None:
        tell(step, start.steps)
        report(Metrics(step, values))

    started = start.make(
        algorithm,
        store,
        loader.buffer.__getitem__,
        seed=cell.key.seed,
        policy={"config": to_plain(cell.policy), "asm": asm.fingerprint if asm else None},
        standardized=standardized,
        progress=progress,
        on_wait=lambda path: report(Waiting(path)),
        on_damage=lambda message: report(Fault(message)),
    )
    curve = tuple(Metrics(step, values) for step, values in started.curve)
    report(StartReady(start.kind, started.seconds, curve))
    return started.seconds
