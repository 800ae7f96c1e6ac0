"""Backends by name: the built-in ones, and plugins installed under `emberd.backends`."""

import pkgutil
from typing import TYPE_CHECKING

from emberd.backends.base import Backend, Kind
from emberd.backends.mlx.backend import sees_gpu
from emberd.errors import BackendBrokenError, BackendMissingError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "emberd.backends"

_OWN = {
    "mlx": "emberd.backends.mlx.backend:MLXBackend",
    "onnx": "emberd.backends.onnx.backend:OnnxBackend",
    "openvino": "emberd.backends.openvino.backend:OpenVINOBackend",
}
"""As in pyproject.toml. Repeated here because looking them up among the installed packages takes 40
of the 300 ms in which a model starts (mostly the import of importlib.metadata)."""


def names() -> list[str]:
    """Return the names of all installed backends, without importing any."""
    return sorted({*_OWN, *_installed()})


def resolve(name: str) -> str:
    """Return the backend that `auto` means on this machine; any other name is returned as it is."""
    if name != "auto":
        return name
    return "mlx" if sees_gpu() else "openvino"


def load(name: str) -> Backend:
    """Import a backend and create it.

    Raises:
        BackendMissingError: no backend of that name is installed.
        BackendBrokenError: it is installed, but cannot be imported or created.
    """
    target, distribution = _find(name)
    try:
        backend: Backend = pkgutil.resolve_name(target)()
    except Exception as error:
        raise BackendBrokenError(
            f"Backend {name!r} of {distribution} cannot be used: {type(error).__name__}: {error}.",
            hint=f"Reinstall {distribution}, or choose another backend: {', '.join(names())}.",
        ) from error
    lacking = [part for part in ("files", "libraries", "load") if not hasattr(backend, part)]
    if lacking:
        raise BackendBrokenError(
            f"Backend {name!r} of {distribution} lacks {' and '.join(lacking)}.",
            hint="See docs/writing-a-backend.md.",
        )
    return backend


def architectures(backend: Backend) -> frozenset[str]:
    """Return the `model_type`s that a backend says it runs; empty if it does not say."""
    return frozenset(getattr(backend, "architectures", ()))


def any_architecture(backend: Backend) -> bool:
    """Say whether a backend runs whatever its files describe."""
    return bool(getattr(backend, "any_architecture", False))


def kinds(backend: Backend) -> frozenset[Kind]:
    """Return the kinds of models that a backend runs: `embed`, unless it says more."""
    return frozenset(getattr(backend, "kinds", ("embed",)))


def devices(backend: Backend) -> tuple[str, ...]:
    """Return what a backend computes on here, such as `cpu` or `gpu`; empty if it does not say.

    Raises:
        BackendBrokenError: it cannot work on this machine.
    """
    say = getattr(backend, "devices", None)
    return tuple(say()) if say else ()


def _find(name: str) -> tuple[str, str]:
    """Return where the class is (`module:class`), and the distribution that it comes from."""
    if name in _OWN:
        return _OWN[name], "emberd"
    entry_point = _installed().get(name)
    if entry_point is None:
        raise BackendMissingError(
            f"No backend {name!r} is installed; installed are {', '.join(names())}.",
            hint=f"Install the package that provides it (its entry point is {name!r} in the group"
            f" {GROUP!r}), or set another `backend`.",
        )
    distribution = entry_point.dist.name if entry_point.dist else entry_point.module
    return f"{entry_point.module}:{entry_point.attr}", distribution


def _installed() -> "dict[str, EntryPoint]":
    """Return the entry points of the group by name."""
    from importlib.metadata import entry_points

    return {found.name: found for found in entry_points(group=GROUP)}
