"""The command that installs a package into the Python that runs emberd."""

import shlex
import sys
from importlib import util


def pip(command: str, *words: str) -> str:
    """Return the shell command that runs pip's `command` for this very Python.

    Another `pip` on the PATH would install elsewhere. Environments made by uv have no pip; there,
    uv does the same from outside.
    """
    if util.find_spec("pip"):
        return shlex.join([sys.executable, "-m", "pip", command, *words])
    return shlex.join(["uv", "pip", command, "--python", sys.executable, *words])
