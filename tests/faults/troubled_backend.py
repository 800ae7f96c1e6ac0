"""Real MiniLM on openvino, in a process that some words and a file bring into trouble."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from emberd.backends.base import LoadRequest, TokenIds
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.vectors import Matrix

POISON, INFINITY = 9947, 15579  # the tokens of these words


def most_rows() -> float:
    """Return after how many rows a process is to halt."""
    try:
        return int(Path(os.environ["EMBERD_HOME"], "halt").read_text() or 0)
    except FileNotFoundError:
        return float("inf")


class Troubled(OpenVINOBackend):
    """Dies of `poison`, makes no vector of `infinity`, and dies of the file `dies` while it loads.

    The file `swap` takes the place of the weights before they are read. As long as there is a file
    `hold`, it goes on loading; as long as there is a file `halt`, it computes hardly more rows than
    that says.
    """

    def load(self, request: LoadRequest) -> Any:  # noqa: ANN401 - an encoder of one method
        """Load, unless it dies."""
        if Path(os.environ["EMBERD_HOME"], "dies").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        while Path(os.environ["EMBERD_HOME"], "hold").exists():
            time.sleep(0.01)
        swap = Path(os.environ["EMBERD_HOME"], "swap")
        if swap.exists():
            swap.replace(request.folder / "model.safetensors")
        encoder = super().load(request)

        class Encoder:
            dimensions, compute = encoder.dimensions, encoder.compute
            rows = 0  # of this process

            def encode(self, token_ids: TokenIds, mask: TokenIds) -> Matrix:
                while self.rows > most_rows():
                    time.sleep(0.01)
                self.rows += len(token_ids)
                if (token_ids == POISON).any():
                    os.kill(os.getpid(), signal.SIGKILL)
                rows = encoder.encode(token_ids, mask)
                rows[(token_ids == INFINITY).any(axis=1)] = np.nan
                return rows

        return Encoder()
