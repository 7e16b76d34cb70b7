"""An ordered queue of tracking operations and the one thread that sends them.

The training loop only ever appends to a list. When the store goes away the queue is kept in memory and, so that
a kill loses nothing, in a journal file; sending is tried again with growing pauses, in the same order.
"""

from __future__ import annotations

import errno
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from harness.tracking.journal import Journal, Operation

MAX_METRICS = 1000  # of one operation, which MLflow takes in one call
_DISK_PATIENCE = 600.0  # seconds for which a full disk is waited for
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PATIENCE = 5  # attempts at one operation that fails while the store answers other questions


T = TypeVar("T")


class Store(Protocol):
    """Where operations go."""

    def apply(self, operation: Operation) -> None:
        """Carry out one operation; idempotent, as a lost answer means sending again."""

    def is_transient(self, error: Exception) -> bool:
        """Whether an exception of `apply` means "later"; any other one sets the operation aside."""

    def is_alive(self) -> bool:
        """Whether the store answers at all."""


class Outbox:
    """Sends operations in order from a background thread.

    Args:
        store: takes the operations.
        journal: where unsent operations are kept while the store is away, and left at the end.
        period: seconds between two sendings.
        max_delay: longest pause in seconds between two attempts while the store is away.
        warn: is told in one line when the store goes away and when it is back.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        period: float = 2.0,
        max_delay: float = 30.0,
        warn: Callable[[str], None] = print,
    ) -> None:
        self._store = store
        self.journal = journal
        self._period = period
        self._max_delay = max_delay
        self._warn = warn
        self._lock = threading.Lock()  # guards queue, buffers and journal
        self._queue: deque[Operation] = deque()
        self._buffers: dict[str, list[tuple[str, float | str, int, int]]] = {}
        self._wake = threading.Event()
        self._idle = threading.Condition(self._lock)
        self._closing = False
        self._journaled = False  # whether the journal holds all that is queued
        self._closed = False  # from here on the journal is final
        self._attempts = 0  # at the first operation of the queue, while the store was alive
        self._delay = 0.0  # of the back-off; 0 while the store answers
        self.rejected: list[Operation] = []
        self.busy_seconds = 0.0  # CPU time of the thread
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    @property
    def away(self) -> bool:
        """True while the store does not answer."""
        return self._delay > 0

    def put(self, operation: Operation) -> None:
        """Queue an operation behind every metric of its run that came before it."""
        with self._lock:
            self._seal(operation["run"])
            self._enqueue(operation)

    def put_metrics(self, run: str, metrics: list[tuple[str, float | str, int, int]]) -> None:
        """Buffer metrics (name, value, milliseconds, step) of a run; they are sent together."""
        with self._lock:
            self._buffers.setdefault(run, []).extend(metrics)

    def stage(self) -> Path:
        """A new folder for files that are deleted once they have been sent.

        Raises:
            OSError: when the disk does not take it.
        """
        with self._lock:
            return self.journal.stage()

    def flush(self, timeout: float) -> bool:
        """Send now; True when all was sent, False when the store is away or `timeout` seconds passed."""
        deadline = time.monotonic() + timeout
        with self._idle:
            for run in list(self._buffers):
                self._seal(run)
            self._wake.set()
            while self._queue and not self.away and (left := deadline - time.monotonic()) > 0:
                self._idle.wait(left)
            return not self._queue

    def close(self, timeout: float) -> int:
        """Send the rest, and stop when for `timeout` seconds nothing could be sent (ten times that while the store
        answers: it may be taking in a large file).

        Returns:
            How many operations were not sent (or were refused); the journal holds them.
        """
        self._closing = True
        with self._idle:
            for run in list(self._buffers):
                self._seal(run)
            waiting, since = len(self._queue), time.monotonic()
            try:
                while self._queue and time.monotonic() - since < (timeout if self.away else 10 * timeout):
                    self._wake.set()  # no long pauses now
                    self._idle.wait(0.2)
                    if len(self._queue) < waiting:
                        waiting, since = len(self._queue), time.monotonic()
            finally:  # a second Ctrl-C loses nothing either
                self._closed = True
                left_over = [*self.rejected, *self._queue]
                if left_over:  # which nothing else holds
                    self.patiently(lambda: self.journal.write(left_over), f"{len(left_over)} operations")
                else:
                    self.journal.discard()
                self._queue.clear()
                self._wake.set()
        self._thread.join(1.0)
        return len(left_over)

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

    def __len__(self) -> int:
        """How many operations wait to be sent or were refused."""
        return len(self._queue) + len(self.rejected)

    def _enqueue(self, operation: Operation) -> None:
        # A text that replaces one of the same name takes the place of the earlier where that was not sent: the table of
        # all returns, which grows, is written anew every half minute. The first in the queue may be on its way.
        waiting, name = len(self._queue), _replaced(operation)
        if name:
            rest = (each for each in itertools.islice(self._queue, 1, None) if _replaced(each) != name)
            self._queue = deque([*itertools.islice(self._queue, 1), *rest])
        grew = len(self._queue) == waiting
        self._queue.append(operation)
        if self.away:
            self._journal([operation] if grew else [])

    def _seal(self, run: str) -> None:
        metrics = self._buffers.pop(run, [])
        for start in range(0, len(metrics), MAX_METRICS):
            self._enqueue({"op": "batch", "run": run, "metrics": metrics[start : start + MAX_METRICS]})

    def _run(self) -> None:
        while not (self._closing and not self._queue):
            self._wake.wait(max(self._period, self._delay))
            self._wake.clear()
            with self._lock:
                for run in list(self._buffers):
                    self._seal(run)
            start = time.thread_time()
            self._drain()
            self.busy_seconds += time.thread_time() - start

    def _drain(self) -> None:
        while self._queue:
            operation = self._queue[0]
            try:
                self._store.apply(operation)
            except Exception as error:
                if self._store.is_transient(error):
                    self._attempts += self._store.is_alive()
                    if self._attempts < _PATIENCE:
                        self._back_off(error)
                        return
                self.rejected.append({**operation, "refused": one_line(error)})
                self._warn(f"tracking refused a {operation['op']}: {one_line(error)}")
            self._attempts = 0
            with self._idle:
                if self._queue and self._queue[0] is operation:  # close() may have taken the rest meanwhile
                    self._queue.popleft()
                self._idle.notify_all()
        if self.away:
            self._delay = 0.0
            self._keep()
            self._warn("tracking is back, what was kept has been sent")

    def _back_off(self, error: Exception) -> None:
        if not self.away:
            self._warn(f"tracking is away, training goes on ({one_line(root(error))})")
            self._keep()
        with self._idle:
            self._delay = min(max(2 * self._delay, 1.0), self._max_delay)
            self._idle.notify_all()

    def _keep(self) -> None:
        with self._lock:
            if not self._closed:
                self._journal()

    def _journal(self, added: Sequence[Operation] = ()) -> None:
        """Have the journal hold what memory holds, of which `added` came last; a full disk does not stop the training.

        What comes after something that the journal could not take is not in it either: sent alone it would hide that
        something is missing.
        """
        try:
            if added and self._journaled:
                self.journal.append(added)
            else:
                self.journal.write([*self.rejected, *self._queue])
            self._journaled = True
        except OSError:
            self._journaled = False


def _replaced(operation: Operation) -> tuple[str, str] | None:
    """The run and the name of the text that an operation writes, whatever was there before."""
    return (operation["run"], operation["artifact_file"]) if operation["op"] == "text" else None


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
