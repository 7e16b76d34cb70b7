"""What an import gives, and the packages that some imports need."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import attrs

from spinrl.data.store.metadata import StoreError
from spinrl.data.store.store import Store


@attrs.frozen
class ImportResult:
    """A finished import.

    Attributes:
        store: what was written.
        notes: what the data left open and how it was taken, a line each.
        warnings: what may be wrong with the data, a line each.
    """

    store: Store
    notes: Sequence[str]
    warnings: Sequence[str] = ()


def require(module: str, what: str) -> Any:
    """An optional package.

    Args:
        module: its name.
        what: needs it.

    Raises:
        StoreError: when it is missing, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise StoreError(f'{what} needs {module.split(".")[0]}: pip install "spinrl[data]"') from None
