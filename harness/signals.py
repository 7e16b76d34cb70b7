"""Stopping in good order."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def both_signals_stop() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt meanwhile.

    A run started in the background of a script comes with Ctrl-C ignored; it too is to be stopped in good order.
    """
    previous = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
