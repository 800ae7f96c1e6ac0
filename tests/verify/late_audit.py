"""A backend whose audit ends after everything has been answered, and finds damage."""

import os
import time
from pathlib import Path
from typing import Any

from emberd.backends.base import LoadRequest
from emberd.backends.openvino.backend import OpenVINOBackend

ANSWERED = "LATE_AUDIT_ANSWERED"  # the variable that names the file which the audit waits for
DAMAGE = "what this backend computes with"


class LateAudit(OpenVINOBackend):
    """OpenVINO with that audit."""

    def load(self, request: LoadRequest) -> Any:  # noqa: ANN401 - an encoder with an audit
        """Load, and have the encoder's audit wait."""
        encoder = super().load(request)

        class Encoder:
            dimensions, compute, encode = encoder.dimensions, encoder.compute, encoder.encode

            def audit(self) -> str:
                while not Path(os.environ[ANSWERED]).exists():
                    time.sleep(0.001)
                return DAMAGE

        return Encoder()
