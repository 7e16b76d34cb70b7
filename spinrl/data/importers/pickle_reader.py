"""Reads a published dataset, a pickled list of transitions, without unpickling it: run as a program of its own.

A pickle is a program for a stack machine that may call anything; `pickle_machine` is one that calls nothing.
Transitions leave it in blocks as soon as they are read.

    python pickle_reader.py FILE > BLOCKS

Each block is six arrays in numpy's own format, one after the other: observations (n, S), actions (n, N), rewards (n,),
next observations (n, S), dones (n,), and the number of bytes of the file read so far. A refusal is one line on standard
error and exit code 3. It imports nothing of spinrl but the machine, so that it can run under a tight memory limit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np

if __package__:
    from spinrl.data.importers.pickle_machine import Machine, PickledArray, RefusedError, kind_of, shown
else:  # run as a program, which cannot import spinrl
    sys.path.append(str(Path(__file__).parent))
    from pickle_machine import (  # type: ignore[no-redef]
        Machine,
        PickledArray,
        RefusedError,
        kind_of,
        shown,
    )

REFUSED = 3  # exit code
BLOCK = 2000  # transitions
MEMORY = 1 << 30  # bytes of address space of the program


class _Blocks:
    """Checks transitions and writes them out in blocks."""

    def __init__(self, file: BinaryIO, out: BinaryIO) -> None:
        self._file, self._out = file, out
        self._rows: list[tuple[np.ndarray, np.ndarray, float, np.ndarray, bool]] = []
        self._sizes: tuple[int, int] | None = None
        self._read = 0  # transitions

    def __call__(self, element: Any) -> None:
        where = f"transition {self._read}"
        if not isinstance(element, tuple) or len(element) != 5:
            size = f" of {len(element)}" if isinstance(element, tuple) else ""
            raise RefusedError(
                f"{where} is a {kind_of(element)}{size}, not (observation, action, reward, next observation, done)"
            )
        observation, action, reward, following, done = element
        row = (
            _vector(observation, f"the observation of {where}", "fiu"),
            _vector(action, f"the action of {where}", "iu"),
            _number(reward, f"the reward of {where}", "fiu"),
            _vector(following, f"the next observation of {where}", "fiu"),
            bool(_number(done, f"the end mark of {where}", "b", values=(0, 1))),
        )
        sizes = len(row[0]), len(row[1])
        if self._sizes is None:
            self._sizes = sizes
        if sizes != self._sizes or len(row[3]) != self._sizes[0]:
            found = f"observations of {sizes[0]} and {len(row[3])} and an action of {sizes[1]} entries"
            raise RefusedError(f"{where} has {found}, the first one {self._sizes[0]} and {self._sizes[1]}")
        self._rows.append(row)
        self._read += 1
        if len(self._rows) == BLOCK:
            self.flush()

    def flush(self) -> None:
        """Write the transitions gathered so far as a block."""
        if not self._rows:
            return
        observations, actions, rewards, followings, dones = zip(*self._rows, strict=True)
        block = (
            np.stack(observations),
            np.stack(actions),
            np.array(rewards, dtype=np.float64),
            np.stack(followings),
            np.array(dones, dtype=np.bool_),
            np.array(self._file.tell()),
        )
        self._rows.clear()
        pipe = SimpleNamespace(write=self._out.write)  # or numpy takes it for a file on a disk
        for array in block:
            np.lib.format.write_array(pipe, array, allow_pickle=False)


def _vector(value: Any, what: str, kinds: str) -> np.ndarray:
    if not isinstance(value, PickledArray):
        raise RefusedError(f"{what} is a {kind_of(value)}, not a numpy array")
    if value.values.dtype.kind not in kinds:
        wanted = "whole numbers" if "f" not in kinds else "numbers"
        raise RefusedError(f"{what} holds {value.values.dtype}, not {wanted}")
    return value.values


def _number(value: Any, what: str, kinds: str, values: Sequence[int] | None = None) -> float:
    """A Python number, a numpy scalar or a vector of one."""
    if isinstance(value, PickledArray):
        value = value.values
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in kinds + "b":
        value = value.reshape(()).item()
    if not isinstance(value, bool | int | float) or (values is not None and value not in values):
        raise RefusedError(f"{what} is {shown(value)}, not {' or '.join(map(str, values)) if values else 'a number'}")
    return float(value)


def blocks(out: BinaryIO) -> Iterator[tuple[np.ndarray, ...]]:
    """The blocks that the program wrote, read back without trust in it."""
    pipe = SimpleNamespace(read=out.read)  # or numpy takes it for a file on a disk
    while out.peek(1):  # type: ignore[attr-defined]
        yield tuple(np.lib.format.read_array(pipe, allow_pickle=False) for _ in range(6))


def main(path: str) -> int:
    """Read one file and write its blocks to standard output."""
    try:
        import resource  # not on Windows
    except ImportError:
        pass
    else:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        with Path(path).open("rb") as file:
            output = _Blocks(file, sys.stdout.buffer)
            Machine(output).run(file)
            output.flush()
        sys.stdout.buffer.flush()
    except RefusedError as error:
        print(error, file=sys.stderr)
        return REFUSED
    except MemoryError:
        print(f"it asks for more than {MEMORY >> 20} MiB at once", file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
