"""An LSTM with precomputed input gates."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from spinrl.nn.initialization import uniform_fan_in

Memory = tuple[torch.Tensor, torch.Tensor]  # hidden and cell, (B, h) each


class LSTMLayer(nn.Module):
    """One layer of the usual LSTM (gates in torch's order: input, forget, cell, output; two biases).

    Its callers make the input gates themselves with `weight_ih` and `bias`, in one product over all steps or from a
    table where few inputs are different.

    Args:
        d_in: width of an input.
        width: h, width of the hidden state.
    """

    def __init__(self, d_in: int, width: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(uniform_fan_in(4 * width, d_in, fan_in=width))
        self.weight_hh = nn.Parameter(uniform_fan_in(4 * width, width, fan_in=width))
        self.bias_ih = nn.Parameter(uniform_fan_in(4 * width, fan_in=width))
        self.bias_hh = nn.Parameter(uniform_fan_in(4 * width, fan_in=width))

    @property
    def bias(self) -> torch.Tensor:
        """The sum of both biases, (4h,)."""
        return self.bias_ih + self.bias_hh

    def input_gates(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d_in) → (..., 4h)."""
        return functional.linear(x, self.weight_ih, self.bias)

    @torch.compiler.disable  # its loop would be unrolled, step by step
    def forward(self, gates: torch.Tensor) -> torch.Tensor:
        """Hidden states of a whole sequence from its input gates: (T, B, 4h) → (T, B, h), from a zero memory."""
        dtype = torch.get_autocast_dtype(gates.device.type) if torch.is_autocast_enabled(gates.device.type) else None
        weight = self.weight_hh
        return _Recurrence.apply(gates.to(weight.dtype), weight, dtype or weight.dtype)

    def step(self, gates: torch.Tensor, memory: Memory | None) -> Memory:
        """The memory after one step with input gates (B, 4h); None stands for the zero memory before the first."""
        if memory is not None:
            gates = torch.addmm(gates, memory[0], self.weight_hh.t())
        forgotten, cell = _open(gates)
        if memory is not None:
            cell = cell + forgotten.sigmoid() * memory[1]
        return gates.chunk(4, -1)[3].sigmoid() * cell.tanh(), cell


def _open(gates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The forget gate's logits, and what the input gate lets in."""
    entered, forgotten, candidate, _ = gates.chunk(4, -1)
    return forgotten, entered.sigmoid() * candidate.tanh()


class _Recurrence(torch.autograd.Function):
    """The steps of one layer with their gradient written out.

    All that does not depend on the next step's gradient is done over the whole sequence at once, and the gradient of
    the recurrent weights is one product over T·B rows instead of T small ones added up.
    """

    @staticmethod
    def forward(ctx: Any, gates: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        steps, batch, width = gates.shape[0], gates.shape[1], weight.shape[1]
        opened = torch.empty_like(gates)  # (T, B, 4h), activated
        cells = gates.new_empty(steps, batch, width)
        hidden = torch.empty_like(cells)
        recurrent = weight.to(dtype).t()
        for t in range(steps):
            if t == 0:
                opened[0] = gates[0]
            elif dtype == gates.dtype:
                torch.addmm(gates[t], hidden[t - 1], recurrent, out=opened[t])
            else:
                torch.add(gates[t], hidden[t - 1].to(dtype) @ recurrent, out=opened[t])
            entered, forgotten, candidate, output = opened[t].chunk(4, -1)
            opened[t, :, : 2 * width].sigmoid_()
            candidate.tanh_()
            output.sigmoid_()
            torch.mul(entered, candidate, out=cells[t])
            if t > 0:
                cells[t].addcmul_(forgotten, cells[t - 1])
            torch.mul(output, cells[t].tanh(), out=hidden[t])
        ctx.save_for_backward(opened, cells, hidden, weight)
        ctx.dtype = dtype
        return hidden

    @staticmethod
    def backward(ctx: Any, grad_hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        opened, cells, hidden, weight = ctx.saved_tensors
        steps, batch, width = cells.shape
        entered, forgotten, candidate, output = opened.chunk(4, -1)  # (T, B, h) each
        tanh_cells = cells.tanh()
        before = torch.cat([torch.zeros_like(cells[:1]), cells[:-1]])
        # Gradients of the gates' logits are these factors times the gradient of the cell, or of the hidden state.
        per_cell = torch.stack(
            [
                candidate * entered * (1 - entered),
                before * forgotten * (1 - forgotten),
                entered * (1 - candidate.square()),
            ],
            dim=2,
        )  # (T, B, 3, h)
        per_hidden = tanh_cells * output * (1 - output)  # (T, B, h)
        cell_per_hidden = output * (1 - tanh_cells.square())  # (T, B, h)
        grad_gates = torch.empty_like(opened).view(steps, batch, 4, width)
        recurrent = weight.to(ctx.dtype)
        grad_cell = None
        for t in reversed(range(steps)):
            grad = grad_hidden[t]
            if t < steps - 1:
                grad = grad + grad_gates[t + 1].flatten(1).to(ctx.dtype) @ recurrent
            carried = grad * cell_per_hidden[t]
            grad_cell = carried if grad_cell is None else carried.addcmul_(grad_cell, forgotten[t + 1])
            torch.mul(grad_cell[:, None], per_cell[t], out=grad_gates[t, :, :3])
            torch.mul(grad, per_hidden[t], out=grad_gates[t, :, 3])
        grad_gates = grad_gates.flatten(2)  # (T, B, 4h)
        later = grad_gates[1:].flatten(0, 1).to(ctx.dtype)
        grad_weight = later.t() @ hidden[:-1].flatten(0, 1).to(ctx.dtype)
        return grad_gates, grad_weight.to(weight.dtype), None
