"""The gin files in the package, and their values for components that are made in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import attrs

from spinrl.config.fields import fields_of
from spinrl.config.gin_text import Binding, Place, Statements, add_search_path, read
from spinrl.config.registry import Component, find
from spinrl.config.resolve import Resolver
from spinrl.config.serialize import bindable, plain_changes

T = TypeVar("T", bound=Component)


def config_root() -> Path:
    """The folder that holds ``gin/``: inside the installed package, or the checkout itself."""
    here = Path(__file__).resolve().parent.parent
    packaged = here / "configs"
    return packaged if (packaged / "gin").is_dir() else here.parent


def use_packaged_configs() -> None:
    """Let ``gin/...`` name the files that come with the package, from whatever folder a program is run in."""
    add_search_path(config_root())


def fill(root: type[T], files: Sequence[str], stands_for: str, given: Mapping[str, Component | None]) -> T:
    """A component whose fields have what packaged gin files say, except where the caller says otherwise.

    Args:
        root: its class.
        files: gin files of experiments, such as ``gin/scale/laptop_training.gin``.
        stands_for: the component that `root` stands for in them. Its fields that `root` lacks are left out, and so is
            what is bound to components that only the harness knows.
        given: fields of `root`. Each field of a given component, and of components in it, that differs from its default
            is kept; the files set the others. A field that is not given has what the files say.

    Raises:
        ConfigError: with everything that is wrong.
    """
    use_packaged_configs()
    statements = read(files)
    kept = []
    for binding in statements.bindings:
        if binding.component == stands_for:
            if binding.field in fields_of(root):
                kept.append(attrs.evolve(binding, component=root.__name__))
        elif not binding.field or find(binding.component):
            kept.append(binding)
    known = Statements(kept, statements.problems)
    for name, component in given.items():
        value = None if component is None else bindable(plain_changes(component), f".{name}", known)
        known.bindings.append(Binding((), root.__name__, name, value, Place(0, 0, name)))
    return Resolver(known, root.__name__).build(root)
