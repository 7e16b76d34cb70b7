"""A stack machine for pickles that calls nothing: it only builds numbers, text, tuples and numpy arrays.

It knows the instructions for these, makes no array larger than its bytes in the file, and refuses all else by name.
The file may refer back to a window of the latest objects only, so that memory does not grow with the file. It imports
nothing of spinrl, so that `pickle_reader` can run under a tight memory limit.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np

_WINDOW = 20_000  # latest objects that may be referred back to; a transition makes some twenty
_CORE = "numpy._core.multiarray"
_KNOWN = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    (_CORE, "_reconstruct"),
    (_CORE, "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}
_TYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
_MARK = object()


class RefusedError(Exception):
    """The file holds something that no dataset needs; the message is one line."""


class _Name:
    """A function or class that numpy's pickles name. Never looked up."""

    def __init__(self, module: str, name: str) -> None:
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) not in _KNOWN:
            raise RefusedError(f"it asks for {module}.{name}, which no dataset needs; do not unpickle this file")
        self.name = name


class _Type:
    """A numpy type under construction."""

    def __init__(self, code: Any, *_flags: Any) -> None:
        if not isinstance(code, str) or code not in _TYPES:
            raise RefusedError(f"it holds an array of type {shown(code)}; only numbers are read")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            raise RefusedError("it holds an array whose type is not a plain number")
        self.dtype = self.dtype.newbyteorder(state[1])


class PickledArray:
    """A numpy array under construction: a view of bytes that stand in the file."""

    def __init__(self, values: np.ndarray | None = None) -> None:
        self._values = values

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise RefusedError("it holds an array that numpy did not write")
        _version, shape, kind, _fortran, content = state
        self._values = _values(content, kind, shape)

    @property
    def values(self) -> np.ndarray:
        if self._values is None:
            raise RefusedError("it holds an array without content")
        return self._values


def _values(content: Any, kind: Any, shape: Any) -> np.ndarray:
    if not isinstance(content, bytes) or not isinstance(kind, _Type):
        raise RefusedError("it holds an array of Python objects; only numbers are read")
    if not isinstance(shape, tuple) or len(shape) > 1 or any(type(size) is not int for size in shape):
        raise RefusedError("it holds an array that is neither a vector nor a number")
    if (shape[0] if shape else 1) * kind.dtype.itemsize != len(content):
        raise RefusedError(f"it holds an array of shape {shape} with {len(content)} bytes")
    return np.frombuffer(content, kind.dtype)


class Machine:
    """Runs the instructions of one pickle.

    Args:
        consume: callback with each element of the pickled list, in order.
    """

    def __init__(self, consume: Callable[[Any], None]) -> None:
        self._consume = consume
        self._stack: list[Any] = []
        self._list = object()  # stands for the one list, whose elements are not kept
        self._begun = False
        self._memo: dict[int, Any] = {}
        self._memoized = 0
        self._do: dict[str, Callable[[Any], None]] = {
            "MARK": lambda _: self._stack.append(_MARK),
            "NONE": lambda _: self._stack.append(None),
            "NEWTRUE": lambda _: self._stack.append(True),
            "NEWFALSE": lambda _: self._stack.append(False),
            "EMPTY_TUPLE": lambda _: self._stack.append(()),
            "TUPLE1": lambda _: self._tuple(1),
            "TUPLE2": lambda _: self._tuple(2),
            "TUPLE3": lambda _: self._tuple(3),
            "TUPLE": lambda _: self._stack.append(tuple(self._to_mark())),
            "EMPTY_LIST": lambda _: self._new_list(()),
            "LIST": lambda _: self._new_list(self._to_mark()),
            "APPEND": lambda _: self._extend([self._pop()]),
            "APPENDS": lambda _: self._extend(self._to_mark()),
            "GLOBAL": lambda names: self._stack.append(_Name(*names.split(" ", 1))),
            "STACK_GLOBAL": self._stack_global,
            "REDUCE": self._reduce,
            "BUILD": self._build,
            "MEMOIZE": lambda _: self._remember(self._memoized),
            "STOP": self._stop,
        }
        for name in ("INT", "LONG", "LONG1", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"):
            self._do[name] = self._stack.append
        for name in ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"):
            self._do[name] = self._stack.append
        self._do["BYTEARRAY8"] = lambda content: self._stack.append(bytes(content))
        for name in ("GET", "BINGET", "LONG_BINGET"):
            self._do[name] = self._recall
        for name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._do[name] = self._remember
        for name in ("PROTO", "FRAME"):
            self._do[name] = lambda _: None

    def run(self, file: BinaryIO) -> None:
        """Run all of it.

        Raises:
            RefusedError: for anything but a list of tuples of numbers and vectors, cut-off files included.
        """
        instructions = pickletools.genops(file)
        while True:
            try:
                instruction, argument, _ = next(instructions)
            except StopIteration:
                if file.read(1):
                    raise RefusedError("something follows the end of its list; a file holds one list") from None
                return
            except (ValueError, OverflowError) as error:
                raise RefusedError(f"it is cut off, or no pickle ({error})") from None
            if instruction.name not in self._do:
                raise RefusedError(f"it uses the instruction {instruction.name}, which no dataset needs")
            try:
                self._do[instruction.name](argument)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise RefusedError(f"its instructions make no sense ({instruction.name}: {error})") from None

    def _pop(self) -> Any:
        top = self._stack.pop()
        if top is _MARK:
            raise RefusedError("its instructions make no sense (expected a value, found a mark)")
        return top

    def _to_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise RefusedError("its instructions make no sense (there is no mark)")
        values = self._stack[at + 1 :]
        del self._stack[at:]
        return values

    def _tuple(self, size: int) -> None:
        values = tuple(self._pop() for _ in range(size))
        self._stack.append(values[::-1])

    def _new_list(self, elements: Sequence[Any]) -> None:
        if self._begun:
            raise RefusedError("it holds a list within the list, where transitions are tuples")
        if self._stack:
            raise RefusedError("it is not a list of transitions")
        self._begun = True
        self._stack.append(self._list)
        self._extend(elements)

    def _extend(self, elements: Sequence[Any]) -> None:
        if self._stack[-1:] != [self._list] or len(self._stack) != 1:
            raise RefusedError("it is not a list of transitions")
        for element in elements:
            self._consume(element)

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise RefusedError("its instructions make no sense (a name that is no text)")
        self._stack.append(_Name(module, name))

    def _reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise RefusedError("it calls something that is no function")
        match function.name, arguments:
            case "_reconstruct", (_Name(name="ndarray"), *_):
                self._stack.append(PickledArray())
            case "dtype", (code, *_):
                self._stack.append(_Type(code))
            case "scalar", (kind, content):
                self._stack.append(_values(content, kind, ()))
            case "_frombuffer", (content, kind, shape, _order):
                self._stack.append(PickledArray(_values(content, kind, shape)))
            case "encode", (str(text), "latin1"):
                self._stack.append(text.encode("latin1"))
            case _:
                raise RefusedError(f"it calls {function.name} as numpy does not")

    def _build(self, _: Any) -> None:
        state, under_construction = self._pop(), self._stack[-1]
        if not isinstance(under_construction, PickledArray | _Type):
            raise RefusedError("it sets the state of something that is no array")
        under_construction.build(state)

    def _remember(self, index: Any) -> None:
        value = self._stack[-1]
        if value is _MARK:
            raise RefusedError("its instructions make no sense (it refers to a mark)")
        self._memoized += 1
        self._memo[index] = value
        if len(self._memo) > _WINDOW:
            del self._memo[next(iter(self._memo))]

    def _recall(self, index: Any) -> None:
        if index not in self._memo:
            raise RefusedError(f"it refers back to something that is not among the {_WINDOW} objects last used")
        value = self._memo.pop(index)
        self._memo[index] = value  # now the last used one, so that objects that all arrays refer to stay
        self._stack.append(value)

    def _stop(self, _: Any) -> None:
        if self._stack != [self._list]:
            raise RefusedError("it is not a list of transitions")


def kind_of(value: Any) -> str:
    """The type of a value, for messages."""
    return {"PickledArray": "numpy array", "NoneType": "None"}.get(type(value).__name__, type(value).__name__)


def shown(value: Any) -> str:
    """A value for a message. Tuples are only named: a few bytes can hold endlessly nested ones."""
    return repr(value)[:50] if isinstance(value, str | int | float | bytes) else f"a {kind_of(value)}"
