"""emberd's own engine without a server: reads commands and writes results as lines of JSON.

    python benchmarks/in_process.py HOME MODEL

Commands: {"do": "embed", "texts": [...]}, including tokenizing; {"do": "product", "compute":
"f32" or "bf16"}, the best matrix product of OpenVINO on this machine. Times are taken here.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from emberd import __version__
from emberd.backends.openvino.runtime import capabilities, make_core, settings
from emberd.config.load import load_config
from emberd.vectors import normalize
from emberd.worker import wire
from emberd.worker.batcher import Batcher
from emberd.worker.budget import Budget
from emberd.worker.loading import Loaded, Phases, load
from emberd.worker.padding import pad_rows

# Rows, inner size and columns. The first are MiniLM's own products at several batches.
PRODUCTS = (
    (512, 384, 1536), (512, 1536, 384), (2048, 384, 1536), (2048, 1536, 384),
    (1024, 1024, 1024), (2048, 2048, 2048), (4096, 1024, 1024),
)  # fmt: skip
PRODUCT_S = 0.25


def main() -> None:
    """Load the model and run commands until stdin closes."""
    home, name = Path(sys.argv[1]), sys.argv[2]
    config = load_config(environ={"EMBERD_HOME": str(home), "HOME": str(home)})
    spec = config.catalog.get(name)
    start = wire.Start(
        version=__version__,
        spec=asdict(spec),
        hub=str(config.homes.hub),
        cache=str(config.homes.cache),
        lock=None,
    )
    began_s = time.monotonic()
    loaded = load(start, Phases(began_s, began_s), lambda _: None)
    print(json.dumps({"compute": loaded.ready.compute}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "product":
            print(json.dumps({"gflop_per_s": best_product(command["compute"])}), flush=True)
        else:
            print(json.dumps(embed(loaded, command["texts"])), flush=True)


def embed(loaded: Loaded, texts: Sequence[str]) -> dict[str, float]:
    """Tokenize, cut batches as a worker does, run and normalize them."""
    began_s = time.perf_counter()
    batcher = Batcher(Budget())  # as a worker begins
    if getattr(loaded.encoder, "packs", False):
        batcher.row_tokens = loaded.ready.max_tokens
    request = wire.Embed(
        id=0, texts=list(texts), prompt="", truncate=True, dimensions=0, encoding="raw", cache=False
    )
    found = batcher.add(request)
    lengths: list[int] = []
    while found:
        work, indices = found
        tokens = loaded.tokenizer.encode([texts[index] for index in indices])
        batcher.add_tokens(work, indices, tokens)
        lengths += [len(text.ids) for text in tokens]
        found = batcher.next_slice() if work.wants_tokens else None
    batcher.close()
    while batch := batcher.next_batch():
        rows = [[item.tokens for item in row] for row in batch.rows]
        normalize(loaded.encoder.encode(*pad_rows(rows, batch.width)))
    spent_s = time.perf_counter() - began_s
    gflop = flop(loaded, lengths) / 1e9
    return {"spent_s": spent_s, "tokens": sum(lengths), "gflop": gflop}


def best_product(compute: str) -> float | None:
    """Return the most GFLOP/s that OpenVINO reaches; None if it lacks that arithmetic here."""
    from openvino import Model
    from openvino import opset14 as op

    core = make_core()
    if {"f32": "FP32", "bf16": "BF16"}[compute] not in capabilities(core):
        return None
    draw = np.random.default_rng(0)
    best = 0.0
    for rows, inner, columns in PRODUCTS:
        left = op.parameter([rows, inner], np.float32)
        right = op.constant(draw.standard_normal((inner, columns), np.float32))
        product = op.matmul(left, right, transpose_a=False, transpose_b=False)
        compiled = core.compile_model(Model([product], [left]), "CPU", settings(compute, 0))
        request = compiled.create_infer_request()
        values = draw.standard_normal((rows, inner), np.float32)
        request.infer([values])
        times, began_s = 0, time.perf_counter()
        while time.perf_counter() - began_s < PRODUCT_S:
            request.infer([values], share_inputs=True, share_outputs=True)
            times += 1
        spent_s = time.perf_counter() - began_s
        best = max(best, 2 * rows * inner * columns * times / spent_s / 1e9)
    return best


def flop(loaded: Loaded, lengths: Sequence[int]) -> float:
    """Return the operations in a BERT's matrix products for texts of these lengths, unpadded.

    A multiplication and an addition count as two. Per layer and token: four products of D by D and
    two of D by I, and per pair of tokens two of D (scores, and values weighted by them).
    """
    config = json.loads(Path(loaded.ready.lock["folder"], "config.json").read_text())
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    per_token = 2 * (4 * hidden * hidden + 2 * hidden * config["intermediate_size"])
    return float(sum(layers * (n * per_token + 2 * 2 * n * n * hidden) for n in lengths))


if __name__ == "__main__":
    main()
