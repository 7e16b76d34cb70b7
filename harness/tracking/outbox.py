"""The one sender of tracking operations: in a thread during a run, or for a journal that was left behind.

The training loop only adds to the journal. While the store is unreachable the journal grows, and sending is retried
with growing pauses, in the same order.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from harness.tracking.journal import Journal, Operation
from harness.tracking.operations import MlflowSink

MAX_METRICS = 1000  # metrics per operation, the most that MLflow takes in one call
_DISK_PATIENCE = 600.0  # seconds to wait for room on a full disk
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PATIENCE = 5  # attempts at one operation that fails while the store answers other questions


T = TypeVar("T")


class Outbox:
    """Sends the operations of a journal in order.

    Args:
        sink: applies the operations; it skips those that the store has.
        journal: queue of operations.
        period: seconds between two sendings.
        max_delay: longest pause in seconds between two attempts while the store is unreachable.
        warn: callback with one line when the store becomes unreachable, is back, or refuses an operation.
    """

    def __init__(
        self,
        sink: MlflowSink,
        journal: Journal,
        *,
        period: float = 2.0,
        max_delay: float = 30.0,
        warn: Callable[[str], None] = print,
    ) -> None:
        self._sink = sink
        self.journal = journal
        self._period = period
        self._max_delay = max_delay
        self._warn = warn
        self._lock = threading.Lock()  # guards journal and buffers
        self._buffers: dict[str, list[tuple[str, float | str, int, int]]] = {}
        self._wake = threading.Event()
        self._idle = threading.Condition(self._lock)
        self._closing = False
        self._closed = False  # from here on the journal is final
        self._attempts = 0  # failed attempts at the first operation while the store was alive
        self._delay = 0.0  # pause of the back-off; 0 while the store answers
        self.busy_seconds = 0.0  # CPU time of the thread
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    def start(self) -> Outbox:
        """Send from a background thread, until `close`."""
        self._thread.start()
        return self

    @property
    def away(self) -> bool:
        """Whether the store does not answer at present."""
        return self._delay > 0

    def put(self, operation: Operation) -> None:
        """Queue an operation after the buffered metrics of its run."""
        with self._lock:
            self._seal(operation["run"])
            self.journal.add(operation)

    def put_metrics(self, run: str, metrics: list[tuple[str, float | str, int, int]]) -> None:
        """Buffer metrics (name, value, milliseconds, step) of a run; they are queued together, after a period."""
        with self._lock:
            self._buffers.setdefault(run, []).extend(metrics)

    def stage(self) -> Path:
        """A new folder for files that are deleted after sending.

        Raises:
            OSError: when the disk is full or cannot be written.
        """
        with self._lock:
            return self.journal.stage()

    def send(self, sent: Callable[[int], None] = lambda _count: None) -> Exception | None:
        """Send all waiting operations.

        Args:
            sent: callback with the number of operations sent so far.

        Returns:
            The error that stopped sending; None when nothing waits.
        """
        count = 0
        while True:
            with self._lock:
                if self._closed or not self.journal.waiting:
                    return None
                operation = self.journal.waiting[0]
            refused = None
            try:
                self._sink.apply(operation)
            except Exception as error:
                if self._sink.is_transient(error):
                    self._attempts += self._sink.is_alive()
                    if self._attempts < _PATIENCE:
                        return error
                refused = one_line(error)
                self._warn(f"tracking refused a {operation['op']}: {refused}")
            self._attempts = 0
            with self._idle:
                if not self._closed:
                    self.journal.settle(operation, refused)
                self._idle.notify_all()
            count += 1
            sent(count)

    def flush(self, timeout: float) -> bool:
        """Send now; True when all was sent, False when the store is unreachable or `timeout` seconds passed."""
        deadline = time.monotonic() + timeout
        with self._idle:
            self._seal(*self._buffers)
            self._wake.set()
            while self.journal.waiting and not self.away and (left := deadline - time.monotonic()) > 0:
                self._idle.wait(left)
            return not self.journal.waiting

    def close(self, timeout: float) -> int:
        """Send the rest. Give up when nothing could be sent for `timeout` seconds (ten times that while the store
        answers, since it may be receiving a large file).

        Returns:
            The number of operations that were not sent or were refused; the journal's file holds them.
        """
        self._closing = True
        with self._idle:
            self._seal(*self._buffers)
            waiting, since = len(self.journal.waiting), time.monotonic()
            try:
                while waiting and time.monotonic() - since < (timeout if self.away else 10 * timeout):
                    self._wake.set()  # end a long pause
                    self._idle.wait(0.2)
                    if len(self.journal.waiting) < waiting:
                        waiting, since = len(self.journal.waiting), time.monotonic()
            finally:  # also after a second Ctrl-C
                self._closed = True
                left = len(self.journal.left)
                self.patiently(self.journal.close, f"{left} operations")
                self._wake.set()
        self._thread.join(1.0)
        return left

    def patiently(self, write: Callable[[], T], what: str) -> T:
        """Call `write`, which writes `what` beside the journal; while the disk is full, wait for room.

        Raises:
            OSError: when there was no room for ten minutes, or for any other reason.
        """
        until = time.monotonic() + _DISK_PATIENCE
        warned = False
        while True:
            try:
                return write()
            except OSError as error:
                if error.errno not in _FULL or time.monotonic() > until:
                    raise
                if not warned:
                    self._warn(
                        f"{self.journal.path.parent} takes no more ({error.strerror}), and {what} would be lost: "
                        f"waiting {_DISK_PATIENCE / 60:.0f} minutes for room"
                    )
                    warned = True
                time.sleep(1.0)

    def _seal(self, *runs: str) -> None:
        """Queue the buffered metrics of runs."""
        for run in runs:
            metrics = self._buffers.pop(run, [])
            for start in range(0, len(metrics), MAX_METRICS):
                self.journal.add({"op": "batch", "run": run, "metrics": metrics[start : start + MAX_METRICS]})

    def _run(self) -> None:
        while not self._closed and not (self._closing and not self.journal.waiting):
            self._wake.wait(max(self._period, self._delay))
            self._wake.clear()
            with self._lock:
                self._seal(*self._buffers)
            start = time.thread_time()
            error = self.send()
            self.busy_seconds += time.thread_time() - start
            if error:
                self._back_off(error)
            elif self.away and not self._closed:
                self._delay = 0.0
                self._warn("tracking is back, what was kept has been sent")

    def _back_off(self, error: Exception) -> None:
        if not self.away:
            self._warn(f"tracking is away, training goes on ({one_line(root(error))})")
        with self._idle:
            self._delay = min(max(2 * self._delay, 1.0), self._max_delay)
            self._idle.notify_all()


def root(error: BaseException) -> BaseException:
    """The first cause of an exception, e.g. "connection refused" rather than the error of the layers above."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error


def one_line(error: BaseException, limit: int = 200) -> str:
    """An exception as one short line."""
    lines = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0]}"
    return text if len(text) <= limit else text[: limit - 1] + "…"
