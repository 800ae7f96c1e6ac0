"""What a request's vectors become: the bytes of each, in the encodings and dtypes asked for."""

import orjson

from emberd import vectors
from emberd.vectors import Matrix
from emberd.worker.loading import Loaded
from emberd.worker.steps import measure_steps
from emberd.worker.wire import BETWEEN, Embed


def as_bytes(rows: Matrix, request: Embed, loaded: Loaded) -> list[bytes]:
    """Return a fragment for each row of `(N, D)`; see `wire.Embed`."""
    if request.encoding == "steps":
        return [orjson.dumps(measure_steps(loaded))] * len(rows)
    fragments = vectors.encode(rows, request.encoding, request.dtype, request.step)
    for encoding, dtype in request.also:
        assert encoding != "steps"
        further = vectors.encode(rows, encoding, dtype, request.step)
        fragments = [BETWEEN.join(both) for both in zip(fragments, further, strict=True)]
    return fragments
