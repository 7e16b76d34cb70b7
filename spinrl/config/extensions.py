"""Components of the user's own: modules that register them, by name or by entry point, on whatever machine.

A gin file runs no code, so what is imported is said beside it: by the option ``--import``, or by a package that names
its modules in the entry point group ``spinrl.components``.
"""

from __future__ import annotations

import functools
import importlib
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from spinrl.config.registry import Component, ConfigError

GROUP = "spinrl.components"
_OURS = ("spinrl", "harness", "tools", "__main__")  # what is in the main script is imported with it, or not at all
_IMPORTED: dict[str, str] = {}  # the folder that each module was found in, "" for one of an installed package


@functools.cache
def import_installed() -> None:
    """Import, once, the modules of the entry point group; one that fails is warned of, and done without."""
    for entry in entry_points(group=GROUP):
        try:
            _import(entry.module, f"entry point {entry.name!r} of {GROUP}")
        except ConfigError as error:
            warnings.warn(str(error), stacklevel=2)


def import_components(names: Sequence[str]) -> None:
    """Import modules that register components.

    Args:
        names: as Python imports them, from the working directory or PYTHONPATH; or paths of .py files.

    Raises:
        ConfigError: when one cannot be imported, naming its file and line.
    """
    for name in names:
        path = Path(name).expanduser()
        if name.endswith(".py"):
            if not path.is_file():
                raise ConfigError([f"--import {name}: there is no such file"])
            folder, module = str(path.resolve().parent), path.stem
        else:
            folder, module = str(Path.cwd()), name
        _import_from(folder, module, f"--import {name}")


def imported_components(used: Iterable[Component] = ()) -> list[tuple[str, str]]:
    """(module, folder) of all that was imported by name: plain data, by which another process imports the same.

    Args:
        used: components whose modules are to be among them, also if a script of the user's has imported these.
    """
    found = dict(_IMPORTED)
    for name in dict.fromkeys(type(each).__module__ for each in used):
        file = getattr(sys.modules.get(name), "__file__", None)
        if name.partition(".")[0] not in _OURS and file is not None:
            path = Path(file).resolve()
            depth = name.count(".") + (path.name == "__init__.py")
            found.setdefault(name, str(path.parents[depth]))
    return list(found.items())


def import_again(modules: Iterable[Sequence[str]]) -> None:
    """Import, in this process, what `imported_components` gave in another one.

    Raises:
        ConfigError: as `import_components`.
    """
    for module, folder in modules:
        _import_from(folder, module, f"--import {module}")


def place_in_components(error: BaseException) -> str:
    """``file:line: `` of the last line in modules imported by name that an error came through; empty where none."""
    files = {getattr(sys.modules.get(name), "__file__", None) for name in _IMPORTED}
    own = [each for each in traceback.extract_tb(error.__traceback__) if each.filename in files]
    return f"{own[-1].filename}:{own[-1].lineno}: " if own else ""


def _import_from(folder: str, name: str, said: str) -> None:
    """Import a module, looking in `folder` too; it comes last, so that no file there hides a package."""
    if folder not in sys.path:
        sys.path.append(folder)
    module = _import(name, said)
    _IMPORTED[name] = folder
    file = getattr(module, "__file__", None)
    beside = Path(folder, *name.split(".")).with_suffix(".py")
    if beside.is_file() and (file is None or not beside.samefile(file)):
        raise ConfigError([f"{said}: {name} is {file or 'built in'}, not {beside}; give your file another name"])


def _import(name: str, said: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                [f"{said}: no module {name!r} in {Path.cwd()}, on PYTHONPATH or among the installed packages"]
            ) from error
        raise ConfigError([f"{said}: {_place(error)}{type(error).__name__}: {error}"]) from error
    except Exception as error:  # a module runs whatever code it has
        text = " ".join(str(error).split())
        raise ConfigError([f"{said}: {_place(error)}{type(error).__name__}: {text}"]) from error


def _place(error: BaseException) -> str:
    """``file:line: `` of the user's own code that an error came out of."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: "
    ours = str(Path(__file__).resolve().parent.parent)
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if not each.filename.startswith((ours, "<")) and "importlib" not in each.filename]
    return f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
