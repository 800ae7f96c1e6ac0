"""How packages get into the Python that runs emberd, whichever way it was installed."""

import shlex
import sys
from importlib import util


def pip(command: str, *words: str) -> str:
    """Return what to type so that pip's `command` works on this very Python.

    Another `pip` on the PATH would install where emberd does not look. An environment that uv made
    has no pip of its own; uv does the same from outside.
    """
    if util.find_spec("pip"):
        return shlex.join([sys.executable, "-m", "pip", command, *words])
    return shlex.join(["uv", "pip", command, "--python", sys.executable, *words])
