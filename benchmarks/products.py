"""The best matrix products of this machine, for the shapes of a model's layers.

    python benchmarks/products.py THREADS

Reads commands and writes results as lines of JSON: {"compute": "bf16", "sizes": [384, 1536],
"rows": 2048, "streams": 1, "seconds": 0.3} multiplies so many rows by matrices of 384 x 1536 and
1536 x 384 in turn, so that what lies between them stays in that arithmetic, as it does in a model.
The answer is GFLOP/s, or null where the processor lacks the arithmetic.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from emberd.backends.openvino.runtime import DEVICE, capabilities, make_core, settings

MATRICES = 4
NAMES = {"f32": "FP32", "bf16": "BF16"}


class Products:
    """Compiles each product once."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._core = make_core()
        self._compiled: dict[tuple[object, ...], Any] = {}

    def speed(
        self, compute: str, sizes: tuple[int, int], rows: int, streams: int, seconds: float
    ) -> float | None:
        """Return GFLOP/s of `streams` at once, which share the threads."""
        if NAMES[compute] not in capabilities(self._core):
            return None
        key = (compute, sizes, rows, streams)
        if key not in self._compiled:
            self._compiled[key] = self._compile(compute, sizes, rows, streams)
        requests, values = self._compiled[key]
        for request in requests:
            request.infer([values])
        with ThreadPoolExecutor(streams) as threads:
            until_s = time.perf_counter() + seconds
            per_s = sum(threads.map(lambda request: _repeat(request, values, until_s), requests))
        inner, columns = sizes
        return 2 * rows * inner * columns * MATRICES * per_s / 1e9

    def _compile(self, compute: str, sizes: tuple[int, int], rows: int, streams: int) -> Any:  # noqa: ANN401
        from openvino import Model
        from openvino import opset14 as op

        draw = np.random.default_rng(0)
        given = op.parameter([rows, sizes[0]], np.float32)
        x = given
        for number in range(MATRICES):
            inner, columns = sizes if number % 2 == 0 else sizes[::-1]
            matrix = draw.standard_normal((columns, inner), np.float32) * inner**-0.5
            x = op.matmul(x, op.constant(matrix), transpose_a=False, transpose_b=True)
        config = settings(compute, self._threads, streams=streams)
        compiled = self._core.compile_model(Model([x], [given]), DEVICE, config)
        requests = [compiled.create_infer_request() for _ in range(streams)]
        return requests, draw.standard_normal((rows, sizes[0]), np.float32)


def _repeat(request: Any, values: np.ndarray, until_s: float) -> float:  # noqa: ANN401
    """Return how often a second it ran, at least once; others may end later."""
    began_s = time.perf_counter()
    times = 0
    while not times or time.perf_counter() < until_s:
        request.infer([values], share_inputs=True, share_outputs=True)
        times += 1
    return times / (time.perf_counter() - began_s)


def main() -> None:
    """Run commands until stdin closes."""
    products = Products(int(sys.argv[1]))
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        asked["sizes"] = tuple(asked["sizes"])
        print(json.dumps({"gflop_per_s": products.speed(**asked)}), flush=True)


if __name__ == "__main__":
    main()
