"""Registering with libraries as soon as they are imported, by whoever imports them first: none is imported for it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def on_import(name: str, register: Callable[[], None]) -> None:
    """Call `register` now, where the module `name` is imported already, or else right behind its import."""
    if name in sys.modules:
        register()
    elif not any(isinstance(finder, _OnImport) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _OnImport(name, register))


class _OnImport(MetaPathFinder):
    """Has a module found as ever, and something of ours registered behind its import.

    It stays until the module has been imported: others only ask whether there is one (`importlib.util.find_spec`).

    Args:
        name: of the module.
        register: called once it has been imported.
    """

    def __init__(self, name: str, register: Callable[[], None]) -> None:
        self.name = name
        self._register = register
        self._asking = False

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name or self._asking:
            return None
        self._asking = True  # the other finders are asked
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                self._register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
