"""The OpenVINO library: a light import, what it can do here, and its settings for a model."""

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from emberd.backends.base import LoadRequest
from emberd.errors import BackendBrokenError
from emberd.installing import pip

if TYPE_CHECKING:
    from openvino import CompiledModel, Core

DEVICE = "CPU"
_OPSETS = 17  # in the versions of OpenVINO that are pinned; a later one would be imported
_CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}


def make_core() -> "Core":
    """Import OpenVINO and return its `Core`.

    Raises:
        BackendBrokenError: the library is missing or cannot work.
    """
    # oneDNN inside OpenVINO caches 1,024 kernels, one for each shape of batch: 1 MiB more with
    # every few new lengths, up to 370 MiB. The setting is read once, when the library is loaded.
    # Source: uxlfoundation.github.io/oneDNN, "Primitive Cache".
    os.putenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    try:
        with _without("openvino.tools"), _without_operations():
            import openvino
        core = openvino.Core()
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendBrokenError(
            f"OpenVINO cannot be used: {error}.", hint=f"Run `{pip('install', 'openvino')}`."
        ) from error
    # OpenVINO caches 5,000 of its own as well. The setting is undocumented, so it may disappear.
    with suppress(RuntimeError):
        core.set_property(DEVICE, {"CPU_RUNTIME_CACHE_CAPACITY": 64})
    return core


def capabilities(core: "Core") -> list[str]:
    """Return what the processor can do according to OpenVINO, such as `FP32` and `BF16`."""
    able: list[str] = core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    return able


def cores_of(model: "CompiledModel") -> int:
    """Return how many cores a compiled model uses."""
    cores: int = model.get_property("INFERENCE_NUM_THREADS")
    return cores


def choose_compute(
    request: LoadRequest, *, able: Collection[str], bf16_is_faster: bool
) -> Literal["f32", "bf16", "f16"]:
    """Return the arithmetic that the request names, or the best for `auto`.

    `auto` is bf16 where that is native and faster (half the time, at a cosine of 0.9999 to
    float32), but f32 for models of precision f32.

    Raises:
        BackendBrokenError: the processor does not support it; OpenVINO would silently use
            another type.
    """
    if request.compute == "auto":
        wanted = request.precision != "f32" and "BF16" in able and bf16_is_faster
        return "bf16" if wanted else "f32"
    if _CAPABILITIES[request.compute] not in able:
        has = ", ".join(name for name, flag in _CAPABILITIES.items() if flag in able)
        raise BackendBrokenError(
            f"This processor has no native {request.compute} arithmetic in OpenVINO; it has {has}.",
            hint="Set `compute: auto`.",
        )
    return request.compute


def settings(compute: str, threads: int, *, streams: int = 1) -> dict[str, Any]:
    """Return the OpenVINO configuration to compile or import a model with.

    `streams` share the threads; 0 `threads` means one on each core.
    """
    chosen = {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": str(streams),
        # If pinned, the threads of all workers would share the same first cores (measured: two
        # workers of one thread each share one core, and the other idles).
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": compute,
    }
    return chosen | ({"INFERENCE_NUM_THREADS": threads} if threads else {})


@contextmanager
def _without_operations() -> Iterator[None]:
    """Leave out of `import openvino` what only building a graph needs; it can be imported later.

    `openvino/__init__.py` imports all 17 versions of its operations: 40 Python modules. Empty ones
    stand in for them as long as it runs.
    """
    names = [f"opset{version}" for version in range(1, _OPSETS + 1)]
    first = "openvino" not in sys.modules
    if first:
        sys.modules.update({f"openvino.{name}": ModuleType(name) for name in names})
    try:
        yield
    finally:
        package = sys.modules.get("openvino")
        for name in names if first else ():
            del sys.modules[f"openvino.{name}"]
            if hasattr(package, name):
                delattr(package, name)


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Make `import name` fail within the context.

    `openvino/__init__.py` ends with an import of its model converter, guarded against
    ImportError. The converter drags in telemetry and a hundred modules: two thirds of the time of
    the whole import, for something that is never used here. None in `sys.modules` is Python's
    documented way to make an import fail (see "The module cache" in its reference).
    """
    absent = name not in sys.modules
    if absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[name]
