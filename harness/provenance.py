"""Where a result came from: the commit and the versions of what computes."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

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
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
