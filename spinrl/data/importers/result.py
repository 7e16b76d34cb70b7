"""The result of an import, and the optional packages that some imports need."""

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
        store: store that was written.
        notes: interpretations of the data, one line each.
        warnings: possible faults of the data, one line each.
    """

    store: Store
    notes: Sequence[str]
    warnings: Sequence[str] = ()


def require(module: str, what: str) -> Any:
    """An optional package.

    Args:
        module: name of the module.
        what: feature that needs it, for the message.

    Raises:
        StoreError: when it is missing; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise StoreError(f'{what} needs {module.split(".")[0]}: pip install "spinrl[data]"') from None
