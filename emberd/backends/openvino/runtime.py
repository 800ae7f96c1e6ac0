"""The OpenVINO library: imported lightly, asked what it can do here, set up for one model."""

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

from emberd.backends.base import LoadRequest
from emberd.errors import BackendBrokenError
from emberd.installing import pip

if TYPE_CHECKING:
    from openvino import Core

DEVICE = "CPU"
_CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}


def make_core() -> "Core":
    """Import OpenVINO and return its `Core`.

    Raises:
        BackendBrokenError: the library is missing or cannot work.
    """
    # oneDNN inside of OpenVINO keeps 1,024 kernels, each made for one shape of a batch: 1 MiB more
    # with every few new lengths, up to 370 MiB. Read once, when the library is loaded. Source:
    # uxlfoundation.github.io/oneDNN, "Primitive Cache".
    os.putenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    try:
        with _without("openvino.tools"):
            import openvino
        core = openvino.Core()
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendBrokenError(
            f"OpenVINO cannot be used: {error}.", hint=f"Run `{pip('install', 'openvino')}`."
        ) from error
    # OpenVINO keeps 5,000 of its own besides. The setting is undocumented, hence it may go.
    with suppress(RuntimeError):
        core.set_property(DEVICE, {"CPU_RUNTIME_CACHE_CAPACITY": 64})
    return core


def capabilities(core: "Core") -> list[str]:
    """Return what OpenVINO says that the processor can do, such as `FP32` and `BF16`."""
    able: list[str] = core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    return able


def choose_compute(
    request: LoadRequest, *, able: Collection[str], bf16_is_faster: bool
) -> Literal["f32", "bf16", "f16"]:
    """Return what the request wants, or what suits it for `auto`, of what the processor can do.

    `auto` is bf16 where that is native and faster (half the time, at a cosine of 0.9999 to
    float32), but f32 for a model of precision f32.

    Raises:
        BackendBrokenError: the processor lacks what is asked for; OpenVINO would silently
            use another type.
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


def settings(compute: str, threads: int) -> dict[str, Any]:
    """Return the configuration with which a model is compiled or imported."""
    chosen = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        # Pinned, the threads of all workers would sit on the same first cores (measured: two
        # workers of one thread each then share one core, and the other idles).
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": compute,
    }
    return chosen | ({"INFERENCE_NUM_THREADS": threads} if threads else {})


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Make `import name` fail meanwhile.

    `openvino/__init__.py` ends with an import of its model converter, guarded against
    ImportError. The converter drags in telemetry and a hundred modules: two thirds of the time of
    the whole import, for something that is never used here. None in `sys.modules` is Python's
    own way to say that a module cannot be imported (see "The module cache" in its reference).
    """
    absent = name not in sys.modules
    if absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[name]
