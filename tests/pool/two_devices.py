"""A backend that says there are two devices; both are this processor, with one thread each."""

import os
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from emberd.backends.base import LoadRequest
from emberd.backends.openvino.backend import OpenVINOBackend, OpenVINOEncoder

CONFIG = """
default: tiny
models:
  tiny:
    sources: [{{path: {folder}}}]
    dimensions: 64
    pooling: mean
    backend: two-devices
    replicas: {replicas}
"""


class TwoDevices(OpenVINOBackend):
    """OpenVINO on `left` and on `right`."""

    def load(self, request: LoadRequest) -> OpenVINOEncoder:
        """See `backends.base.Backend.load`."""
        encoder = super().load(replace(request, threads=1, streams=1))
        devices = ("left", "right")
        encoder.devices = [request.device] if request.device else devices  # type: ignore[attr-defined]
        return encoder


class OneDeviceAProcess(TwoDevices):
    """Stays on the device that it was loaded on first; `right` has other vectors."""

    _in_use: ClassVar[str] = ""

    def load(self, request: LoadRequest) -> OpenVINOEncoder:
        """See `backends.base.Backend.load`."""
        OneDeviceAProcess._in_use = self._in_use or request.device or "left"
        encoder = super().load(request)
        encode = encoder.encode
        sign = np.float32(-1 if self._in_use == "right" else 1)
        encoder.encode = lambda *arrays: sign * encode(*arrays)  # type: ignore[method-assign]
        return encoder


def install(plugins: Path) -> dict[str, str]:
    """Install the backend as `two-devices`; return the environment in which it is found."""
    info = plugins / "two_devices-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: two-devices\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[emberd.backends]\ntwo-devices = tests.pool.two_devices:TwoDevices\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(plugins), str(Path(__file__).parents[2])])}
