"""What every command shares: its options, the configs in the package, stopping in good order, provenance."""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from spinrl.config import Component, ConfigError, Resolved, import_components, load
from spinrl.config.presets import config_root as config_root
from spinrl.config.presets import use_packaged_configs as use_packaged_configs

C = TypeVar("C", bound=Component)


def at_least_one(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {number}")
    return number


def add_configuration_options(
    made: argparse.ArgumentParser,
    files: str = "a gin file; repeat to add or override",
    example: str = "IQL.expectile=0.7",
) -> None:
    """Gin files (`gin`), bindings (`bindings`) and modules to import; `files` says what the files are for."""
    made.add_argument("--gin", "--gin_file", action="append", default=[], metavar="FILE", help=files)
    made.add_argument(
        "--set",
        "--gin_bindings",
        action="append",
        default=[],
        dest="bindings",
        metavar="BINDING",
        help=f"a binding such as '{example}'; repeatable",
    )
    made.add_argument(
        "--import",
        action="append",
        default=[],
        dest="modules",
        metavar="MODULE",
        type=imported_module,
        help="a module, or a .py file, with components of your own; repeatable",
    )


def imported_module(name: str) -> str:
    """Import a module as soon as it is named, so that whatever follows knows its components."""
    try:
        import_components([name])
    except ConfigError as error:
        said = str(error).removeprefix(f"--import {name}: ")
        raise argparse.ArgumentTypeError(said) from error
    return name


def add_experiment_options(made: argparse.ArgumentParser) -> None:
    """The options of every command that works on an experiment."""
    add_configuration_options(made)
    made.add_argument("--dry-run", action="store_true", help="check everything, and print what would be done")
    made.add_argument(
        "--tracking-uri", help="MLflow store (default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in this folder)"
    )


def load_configuration(
    kind: type[C], options: argparse.Namespace, example: str, bindings: Sequence[str] = ()
) -> Resolved[C]:
    """The component that `add_configuration_options` and further `bindings` gave.

    Raises:
        ConfigError: with everything that is wrong; where no file was given, it names `example`.
    """
    if not options.gin:
        raise ConfigError([f"nothing to run: give --gin FILE, for example --gin {example}"])
    return load(kind, options.gin, [*options.bindings, *bindings])


def configuration_words(options: argparse.Namespace) -> list[str]:
    """Modules, gin files and bindings as they were given, as words of a command line."""
    given = [("--import", module) for module in options.modules]
    given += [("--gin", file) for file in options.gin]
    given += [("--set", binding) for binding in options.bindings]
    return [word for pair in given for word in pair]


@contextlib.contextmanager
def both_signals_stop() -> Iterator[None]:
    """Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) raise KeyboardInterrupt meanwhile.

    A run started in the background of a script comes with Ctrl-C ignored; it too is to be stopped in good order. Under
    nohup SIGHUP is ignored, and stays so.
    """
    handlers: dict[int, Callable[..., object]] = dict.fromkeys(
        (signal.SIGINT, signal.SIGTERM), signal.default_int_handler
    )
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # Windows has none
        handlers[signal.SIGHUP] = _hang_up
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) != signal.SIG_IGN:  # once hung up, it stays so
                signal.signal(number, handler)


def _hang_up(number: int, _frame: object) -> None:
    """Stop once: shell and kernel each send the signal when a terminal closes, and the second must not cut the end."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


PACKAGES = ("spinrl", "torch", "tensordict", "torchrl", "dm-control", "mujoco", "numpy")


def git_commit() -> str:
    """The checkout's commit, with ``-dirty`` when tracked files differ; ``unknown`` outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        dirty = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}-dirty" if dirty else commit


def versions() -> dict[str, str]:
    """``version.<package>`` of every package that the numbers depend on."""
    return {f"version.{name}": metadata.version(name) for name in PACKAGES}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    answer = subprocess.run(command, check=True, capture_output=True, timeout=10)
    return answer.stdout.decode("utf-8", "replace").strip()
