"""Where the gin files that come with the package are."""

from __future__ import annotations

from pathlib import Path

from spinrl.config import add_search_path


def config_root() -> Path:
    """The folder that holds ``gin/``: inside the installed package, or the checkout itself."""
    here = Path(__file__).resolve().parent
    packaged = here / "configs"
    return packaged if (packaged / "gin").is_dir() else here.parent


def use_packaged_configs() -> None:
    """Let ``gin/...`` name the files that come with the package, from whatever folder a command is run in."""
    add_search_path(config_root())
