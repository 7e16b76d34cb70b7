"""The one sender of tracking operations: in a thread of its own during a run, or over a journal that was left behind.

The training loop only ever adds to the journal. While the store is away the journal grows, and sending is tried again
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

MAX_METRICS = 1000  # of one operation, which MLflow takes in one call
_DISK_PATIENCE = 600.0  # seconds for which a full disk is waited for
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PATIENCE = 5  # attempts at one operation that fails while the store answers other questions


T = TypeVar("T")


class Outbox:
    """Sends the operations of a journal in order.

    Args:
        sink: takes the operations; it knows those that it has.
        journal: the queue.
        period: seconds between two sendings.
        max_delay: longest pause in seconds between two attempts while the store is away.
        warn: is told in one line when the store goes away, is back, or refuses something.
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
        self._attempts = 0  # at the first operation of the queue, while the store was alive
        self._delay = 0.0  # of the back-off; 0 while the store answers
        self.busy_seconds = 0.0  # CPU time of the thread
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    def start(self) -> Outbox:
        """Send from a background thread, until `close`."""
        self._thread.start()
        return self

    @property
    def away(self) -> bool:
        """True while the store does not answer."""
        return self._delay > 0

    def put(self, operation: Operation) -> None:
        """Queue an operation behind every metric of its run that came before it."""
        with self._lock:
            self._seal(operation["run"])
            self.journal.add(operation)

    def put_metrics(self, run: str, metrics: list[tuple[str, float | str, int, int]]) -> None:
        """Buffer metrics (name, value, milliseconds, step) of a run; they are queued together, after a period."""
        with self._lock:
            self._buffers.setdefault(run, []).extend(metrics)

    def stage(self) -> Path:
        """A new folder for files that are deleted once they have been sent.

        Raises:
            OSError: when the disk does not take it.
        """
        with self._lock:
            return self.journal.stage()

    def send(self, sent: Callable[[int], None] = lambda _count: None) -> Exception | None:
        """Send all that waits.

        Args:
            sent: called with the number of operations sent so far.

        Returns:
            The error because of which the rest waits for the store; None when nothing waits.
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
        """Send now; True when all was sent, False when the store is away or `timeout` seconds passed."""
        deadline = time.monotonic() + timeout
        with self._idle:
            self._seal(*self._buffers)
            self._wake.set()
            while self.journal.waiting and not self.away and (left := deadline - time.monotonic()) > 0:
                self._idle.wait(left)
            return not self.journal.waiting

    def close(self, timeout: float) -> int:
        """Send the rest, and stop when for `timeout` seconds nothing could be sent (ten times that while the store
        answers: it may be taking in a large file).

        Returns:
            How many operations were not sent (or were refused); the journal's file holds them.
        """
        self._closing = True
        with self._idle:
            self._seal(*self._buffers)
            waiting, since = len(self.journal.waiting), time.monotonic()
            try:
                while waiting and time.monotonic() - since < (timeout if self.away else 10 * timeout):
                    self._wake.set()  # no long pauses now
                    self._idle.wait(0.2)
                    if len(self.journal.waiting) < waiting:
                        waiting, since = len(self.journal.waiting), time.monotonic()
            finally:  # a second Ctrl-C loses nothing either
                self._closed = True
                left = len(self.journal.left)
                self.patiently(self.journal.close, f"{left} operations")
                self._wake.set()
        self._thread.join(1.0)
        return left

    def patiently(self, write: Callable[[], T], what: str) -> T:
        """Do what writes `what` beside the journal; while the disk is full, wait for room, which somebody may make.

        Raises:
            OSError: when there was none for ten minutes, or for any other reason.
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
        """Queue the metrics of runs."""
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
    """What an exception goes back to: "connection refused" rather than what four layers above made of it."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error


def one_line(error: BaseException, limit: int = 200) -> str:
    """An exception as one short line."""
    lines = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0]}"
    return text if len(text) <= limit else text[: limit - 1] + "…"
