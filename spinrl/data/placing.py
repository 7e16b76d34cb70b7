"""Arrays of datasets on a GPU, once for all trainings of a process."""

from __future__ import annotations

from weakref import WeakValueDictionary

import torch

MOST = 0.8  # share of a GPU's free memory that features may take; networks need the rest

_placed: WeakValueDictionary[tuple[str, str], torch.Tensor] = WeakValueDictionary()


def place(array: torch.Tensor, device: torch.device, name: str) -> torch.Tensor:
    """The array on a device: itself on the CPU, else a copy, which all share that ask for it while one still has it.

    Args:
        array: an array in memory, or mapped.
        device: where it is wanted.
        name: of its content.
    """
    if device.type == "cpu":
        return array
    copy = _placed.get((name, str(device)))
    if copy is None:
        copy = _placed[name, str(device)] = array.to(device)
    return copy


def fits(array: torch.Tensor, device: torch.device, name: str) -> bool:
    """Whether a device has room for a copy of the array, or the copy already; arguments are those of `place`."""
    if device.type == "cpu" or (name, str(device)) in _placed:
        return True
    return array.nbytes <= MOST * torch.cuda.mem_get_info(device)[0]
