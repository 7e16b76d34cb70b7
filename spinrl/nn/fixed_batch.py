"""Network calls whose rounding does not depend on the number of rows."""

from __future__ import annotations

from collections.abc import Callable

import torch

ROWS = 16


def in_fixed_batches(function: Callable[..., torch.Tensor], *inputs: torch.Tensor, rows: int = ROWS) -> torch.Tensor:
    """Call `function` on batches of exactly `rows` rows, the last one padded, and join the results.

    Matrix products round differently at different batch sizes, which in a chaotic simulation grows into other
    returns. With one fixed size a row's result depends on that row alone.

    Args:
        function: maps tensors of `rows` rows to a tensor of `rows` rows.
        inputs: tensors of B rows each.
        rows: the fixed batch size.

    Returns:
        B rows.
    """
    count = len(inputs[0])
    if count == rows:
        return function(*inputs)
    short = -count % rows
    padded = [torch.cat([part, part[-1:].expand(short, *part.shape[1:])]) if short else part for part in inputs]
    outputs = [function(*(part[at : at + rows] for part in padded)) for at in range(0, count + short, rows)]
    return torch.cat(outputs)[:count]
