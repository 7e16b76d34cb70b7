"""Code around every command: writing output cannot fail, and errors that a user can mend are one line."""

from __future__ import annotations

import functools
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from spinrl.errors import UserError


def entry_point(*, stopped: str = "stopped") -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """Decorate a command's ``main(arguments)``, which returns its exit code (none is 0).

    Writing to the terminal or log always succeeds. An error that the user can mend, or one of the system, is printed as
    one line with exit code 2, wherever it is raised; Ctrl-C ends with 130. Modules in the working folder can be
    imported, as with ``python -m``, but come last on the path, so that a user's folder called ``tools`` or ``harness``
    does not hide this project's.

    Args:
        stopped: what is printed after Ctrl-C.
    """

    def decorated(main: Callable[..., int | None]) -> Callable[..., int]:
        @functools.wraps(main)
        def guarded(arguments: Sequence[str] | None = None) -> int:
            steady_output()
            logging.getLogger("matplotlib").setLevel(logging.ERROR)  # e.g. of no place for its settings without HOME
            if not {"", os.getcwd()} & set(sys.path):
                sys.path.append(os.getcwd())
            try:
                return main(arguments) or 0
            except (UserError, OSError) as error:
                print(error, file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print(stopped, file=sys.stderr)
                return 130

        return guarded

    return decorated


def steady_output() -> None:
    """Make writing to standard output and error unable to fail. Call it in every process that prints; repeats are safe.

    Characters that the terminal or log cannot show (ASCII in old cron jobs and containers) are replaced. What cannot be
    written because the reader has gone (``| head``), the terminal was closed or the disk is full is dropped.
    """
    sys.stdout, sys.stderr = _steady(sys.stdout, "replace"), _steady(sys.stderr, None)


class _Steady(io.FileIO):
    """A file descriptor whose writes do not fail."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            written = super().write(data)
            if written is None:  # the terminal is in non-blocking mode
                os.set_blocking(self.fileno(), True)
                written = super().write(data)
            return written
        except BrokenPipeError:  # no reader is left, for output of C code and child processes neither
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
        except OSError:
            pass
        return memoryview(data).nbytes


def _steady(stream: TextIO, errors: str | None) -> TextIO:
    """The stream or its replacement; `errors` is its handler for unencodable characters, None keeps the present one."""
    if not isinstance(stream, io.TextIOWrapper) or stream.closed:  # replaced by other code, e.g. a notebook, or closed
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
