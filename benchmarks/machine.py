"""Describes the machine of a measurement, without anything private."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from emberd.backends.openvino.processor import bf16_is_faster
from emberd.backends.openvino.runtime import capabilities, make_core
from emberd.config.environment import cores
from emberd.processor import processor as flags

PACKAGES = ("emberd", "fastapi", "uvicorn", "openvino", "mlx", "tokenizers")


def facts() -> dict[str, object]:
    """Return processor, cores, memory, system, versions and date."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": _system(),
        "python": platform.python_version(),
        "emberd_environment": {name: v for name in PACKAGES if (v := _version(name))},
    }


def fastest_compute(*, gpus: bool = False) -> str:
    """Return the arithmetic in which emberd competes: bf16 where that is native and faster.

    On GPUs it is f16.
    """
    if gpus:
        return "f16"
    native = "BF16" in capabilities(make_core())
    return "bf16" if native and bf16_is_faster(flags()) else "f32"


def processor() -> str:
    """Return its name; some hypervisors hide it, hence family and model."""
    said = cpu()
    if "model name" not in said:
        return platform.processor() or platform.machine()
    return f"{said['model name']}, family {said.get('cpu family')} model {said.get('model')}"


def cpu() -> dict[str, str]:
    """Return what Linux says about the last processor; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    said = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, value in said}


def _system() -> str:
    release = ".".join(platform.release().split(".")[:2])
    return f"{platform.system()} {release} {platform.machine()}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:  # PackageNotFoundError is one
        return None
