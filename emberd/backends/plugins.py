"""Entry points `emberd.backends`: names without importing anything, one backend on demand."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from emberd.backends.base import Backend
from emberd.errors import BackendBrokenError, BackendMissingError

GROUP = "emberd.backends"


def names() -> list[str]:
    """Return the names of the installed backends, importing none of them."""
    return sorted({found.name for found in _found()})


def load(name: str) -> Backend:
    """Import and make the backend called `name`.

    Raises:
        BackendMissingError: nothing installed has that name.
        BackendBrokenError: it is installed and cannot be imported or made.
    """
    plugin = next((found for found in _found() if found.name == name), None)
    if plugin is None:
        raise BackendMissingError(
            f"No installed backend is called {name!r}; there are: {', '.join(names())}.",
            hint="Install the package that brings it, or set `backend: auto`.",
        )
    try:
        backend: Backend = plugin.load()()
    except Exception as error:
        package = plugin.dist.name if plugin.dist else plugin.module
        raise BackendBrokenError(
            f"The backend {name!r} of the package {package} is installed and cannot be used:"
            f" {type(error).__name__}: {error}.",
            hint=f"Reinstall {package}, or set `backend: auto`.",
        ) from error
    return backend


def resolve(name: str) -> str:
    """Return `name`, or for `auto` what this machine runs best.

    That is mlx on Apple silicon or where MLX sees a GPU, else openvino.
    """
    if name != "auto":
        return name
    return "mlx" if _mlx_is_fast_here() else "openvino"


def _mlx_is_fast_here() -> bool:
    if sys.platform == "darwin":
        return find_spec("mlx") is not None
    if not Path("/dev/nvidiactl").exists() or find_spec("mlx") is None:
        return False  # without importing MLX, which takes a tenth of a second
    from emberd.backends.mlx.backend import sees_gpu

    return sees_gpu()


def _found() -> Iterator[EntryPoint]:
    yield from entry_points(group=GROUP)
