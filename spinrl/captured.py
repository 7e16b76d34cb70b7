"""Work of a GPU that is recorded once, as a CUDA graph, and replayed: small networks keep a GPU waiting for launches.

Source: torch's notes on CUDA graphs (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import torch

T = TypeVar("T")
WARM_UP = 3  # calls before the capture: what is made on first use (optimizers' states, handles, kernels) must be there
STREAMS = 32  # that torch has of a priority

_recorded_on: WeakValueDictionary[int, torch.cuda.CUDAGraph] = WeakValueDictionary()  # by the stream's address


class Captured(Generic[T]):
    """A function of tensors of fixed shapes, captured once it has been called a few times, and replayed from then on.

    Captured or not, each call computes once and draws the same random numbers. The function may draw from torch's
    global generator and from `generators`. It must not wait for the device, as `.item()` and shapes that depend on data
    do: such a function is called as it is, and `on_refusal` is told why. What a call returns, the next one overwrites.

    Args:
        function: to be captured; what it reads besides its arguments has to stay where it is in memory.
        on: False calls the function as it is, always.
        generators: of the device, that the function draws from.
        on_refusal: told in one line why the function cannot be captured; a warning says so where there is none.
    """

    def __init__(
        self,
        function: Callable[..., T],
        *,
        on: bool,
        generators: Sequence[torch.Generator] = (),
        on_refusal: Callable[[str], object] = warnings.warn,
    ) -> None:
        self.function = function
        self.on = on
        self._generators = generators
        self._on_refusal = on_refusal
        self._calls = 0
        self._inputs: tuple[torch.Tensor, ...] = ()
        self._recorded: tuple[torch.cuda.CUDAGraph, T] | None = None

    def __call__(self, *inputs: torch.Tensor) -> T:
        if not self.on:
            return self.function(*inputs)
        self._calls += 1
        if self._calls < WARM_UP:
            return _aside(partial(self.function, *inputs))
        if self._calls == WARM_UP:
            result, wait = _watched(partial(_aside, partial(self.function, *inputs)))
            if wait is not None:
                self._refuse(f"it waits for the device at {wait}")
            return result
        if self._recorded is None:
            try:
                self._inputs = tuple(given.clone() for given in inputs)
                self._recorded = _record(partial(self.function, *self._inputs), self._generators)
            except RuntimeError as error:
                self._refuse(" ".join(str(error).split("\n")[0].split()))
                return self.function(*inputs)
        graph, outputs = self._recorded
        for place, given in zip(self._inputs, inputs, strict=True):
            place.copy_(given)
        graph.replay()
        return outputs

    def _refuse(self, reason: str) -> None:
        self.on = False
        self._on_refusal(f"not captured, and slower for it: {reason}")


def _aside(call: Callable[[], T]) -> T:
    """Call on a side stream, which torch asks for before a capture; the current one waits for it."""
    here, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(here)
    with torch.cuda.stream(side), warnings.catch_warnings():
        # Optimizers that can be captured warn of steps that are not.
        warnings.filterwarnings("ignore", "This instance was constructed with capturable")
        result = call()
    here.wait_stream(side)
    return result


def _watched(call: Callable[[], T]) -> tuple[T, str | None]:
    """The result of a call, and the line at which it first waited for the device, if it did.

    Found out beforehand, since a capture that fails leaves torch's generators and streams as nobody wants them.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            result = call()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    waits = [each for each in told if "called a synchronizing CUDA operation" in str(each.message)]
    return result, f"{waits[0].filename}:{waits[0].lineno}" if waits else None


def _record(call: Callable[[], T], generators: Sequence[torch.Generator]) -> tuple[torch.cuda.CUDAGraph, T]:
    """Capture a call without doing what it says, and where its result will be.

    Raises:
        RuntimeError: when it cannot be captured; what the generators draw next and the current stream are as they were.
    """
    graph = torch.cuda.CUDAGraph()
    drawn = (torch.cuda.default_generators[torch.cuda.current_device()], *generators)
    # The graph draws on from the very states that others draw from, so that these know what it drew.
    copies = [each.clone_state() for each in drawn]
    try:
        for each in generators:
            graph.register_generator_state(each)
        with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, stream=_stream_of_its_own(graph)):
            outputs = call()
    except BaseException:
        for each, copy in zip(drawn, copies, strict=True):  # a capture that fails leaves states that cannot be used
            each.graphsafe_set_state(copy)
        raise
    return graph, outputs


def _stream_of_its_own(graph: torch.cuda.CUDAGraph) -> torch.cuda.Stream:
    """A stream to capture on, on which nothing else runs and no graph that is still there was captured.

    A graph's matrix products go on using the workspace of that stream. Two at a time would write into it together, and
    the first that goes takes it along (https://github.com/pytorch/pytorch/issues/193402).

    Raises:
        RuntimeError: when there are too many graphs.
    """
    for number in range(2 * STREAMS):  # torch gives them in turn; nothing else asks for this priority
        if number == STREAMS:
            gc.collect()  # graphs of trainings that are over
        stream = torch.cuda.Stream(priority=-1)
        if stream.cuda_stream not in _recorded_on:
            _recorded_on[stream.cuda_stream] = graph
            return stream
    raise RuntimeError(f"{STREAMS} are captured in this process, and there is no room for another")


def adam(
    parameters: Iterable[torch.nn.Parameter], learning_rate: float, *, capture: bool, scheduled: bool = False
) -> torch.optim.Adam:
    """Torch's fused Adam, whose steps can be captured where `capture` says so.

    Args:
        parameters: to optimize; on a GPU where they are to be captured.
        learning_rate: at the start.
        capture: whether the steps are captured.
        scheduled: whether a scheduler changes the rate, which then has to be where a captured step reads it.
    """
    rate: float | torch.Tensor = learning_rate
    if capture and scheduled:
        rate = torch.tensor(learning_rate, device="cuda")
    return torch.optim.Adam(parameters, lr=rate, fused=True, capturable=capture)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state of an optimizer of `adam`, from a training that was captured or one that was not.

    Raises:
        ValueError: when it is not that of this optimizer.
    """
    own = [(group["capturable"], group["lr"]) for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, (capturable, place) in zip(optimizer.param_groups, own, strict=True):
        rate = float(group["lr"])
        group["capturable"] = capturable
        group["lr"] = place.fill_(rate) if isinstance(place, torch.Tensor) else rate
