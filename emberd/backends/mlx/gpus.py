"""Which GPUs CUDA can use, and how a process is given one of them."""

import os
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
_ENVIRON = os.environ  # noqa: TID251 - the variable is CUDA's, not one of our settings


def visible_gpus(
    environ: Mapping[str, str] = _ENVIRON, dev: Path = Path("/dev")
) -> tuple[str, ...]:
    """Return the GPUs by the names that the variable has for them, the one CUDA prefers first.

    `dev` has a file for each GPU that this machine or container may use.
    """
    stated = environ.get(VISIBLE)
    if stated is None:
        return tuple(map(str, range(len([*dev.glob("nvidia[0-9]*")]))))
    names = [name.strip() for name in stated.split(",")]
    return tuple(takewhile(lambda name: name and name != "-1", names))  # as CUDA reads it


def use_only(name: str) -> None:
    """Have CUDA see this GPU alone. It looks once, so this comes before the import of MLX."""
    _ENVIRON[VISIBLE] = name
