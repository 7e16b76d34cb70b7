"""Offline reinforcement learning where one action is many discrete sub-actions at once.

Importing the package lets ``gymnasium.make("spinrl/humanoid-stand-3bins-v0")`` find the benchmark's tasks.
"""

import getpass
import os


def _name_user() -> None:
    """Give a user id without a name, as in many containers, one: torch asks for it when imported, and MLflow later.

    It goes into the environment, where `getpass` looks first and the processes of a run find it too.
    """
    try:
        getpass.getuser()
    except (OSError, KeyError, ImportError):  # what it raises differs between versions of Python
        os.environ["LOGNAME"] = f"uid-{os.getuid()}" if hasattr(os, "getuid") else "unknown"


_name_user()

from spinrl.tasks.registration import register_with_gymnasium  # noqa: E402

register_with_gymnasium()
