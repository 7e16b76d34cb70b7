"""What surrounds every command: output that never ends it, and errors of the machine in one line."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from spinrl.errors import UserError


def entry_point(main: Callable[..., int | None]) -> Callable[..., int]:
    """Decorate a command's ``main(arguments)``, which returns its exit code (none is 0).

    Whatever terminal or log there is, writing to it succeeds, and what its user can mend is one line and exit code 2,
    wherever that is found out. Modules in the working folder are found, as by ``python -m``, but after everything
    else: a folder of the user's that is called ``tools`` or ``harness`` hides none of ours.
    """

    @functools.wraps(main)
    def guarded(arguments: Sequence[str] | None = None) -> int:
        steady_output()
        if not {"", os.getcwd()} & set(sys.path):
            sys.path.append(os.getcwd())
        try:
            return main(arguments) or 0
        except UserError as error:
            print(error, file=sys.stderr)
            return 2

    return guarded


def steady_output() -> None:
    """Have standard output and error take everything from now on; in every process that prints. Twice is as once.

    Characters that the terminal or log cannot show (ASCII in old cron jobs and containers) are replaced. What cannot be
    written since the reader has gone (``| head``), the terminal was closed or the log's disk is full is dropped.
    """
    sys.stdout, sys.stderr = _steady(sys.stdout, "replace"), _steady(sys.stderr, None)


class _Steady(io.FileIO):
    """A file descriptor whose writes do not fail."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            written = super().write(data)
            if written is None:  # somebody left the terminal so that writing to it does not wait
                os.set_blocking(self.fileno(), True)
                written = super().write(data)
            return written
        except BrokenPipeError:  # nobody will ever read: neither what C code and child processes write
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
        except OSError:
            pass
        return memoryview(data).nbytes


def _steady(stream: TextIO, errors: str | None) -> TextIO:
    """The stream, or one in its place; `errors` says what becomes of characters without a code, None as it is."""
    if not isinstance(stream, io.TextIOWrapper) or stream.closed:  # somebody else's, of a notebook say, or none
        return stream
    stream.reconfigure(errors=errors)
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if type(raw) is not io.FileIO or raw.fileno() not in (1, 2):  # ours already, a Windows console, or captured
        return stream
    stream.flush()
    steady = _Steady(raw.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        steady if stream.write_through else io.BufferedWriter(steady),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
