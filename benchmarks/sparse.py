"""Sparse vectors beside what they cannot do without: the encoder, and one product with the table.

    .venv/bin/python benchmarks/sparse.py [minilm|bert-base] [f32|bf16] [ROUNDS]

The same random weights are loaded as a dense model and as a sparse one, with a masked language
model's head. Their batches take turns with the product of as many tokens with the table,
`tokens x hidden x 30,522`, by the same engine in the same arithmetic, in whichever of two shapes is
faster here. The bound is 1.2 times the sum of the dense batch and the product. Each time is the
least of all rounds; beside it is the ratio in processor time, which other programs on a busy
machine change less. Memory is what the process took more than before, at its peak, for one batch of
a new process.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
from safetensors.numpy import save_file

from emberd.backends.base import Encoder, LoadRequest, TokenIds
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.backends.openvino.runtime import make_core, settings

SHAPES = {"minilm": checkpoints.MINILM, "bert-base": checkpoints.BERT_BASE}
BATCHES: dict[str, Sequence[Sequence[int]]] = {  # lengths of the texts in each row
    "8 texts of 64 tokens": [[64]] * 8,
    "packed rows, 18 texts": [[60, 40, 28], [90, 30, 8], [17, 33, 50, 12, 16], [9] * 7],
    "1 text of 512 tokens": [[512]],
    "1 text of 8 tokens": [[8]],
    "32 texts of 128 tokens": [[128]] * 32,
}
BOUND = 1.2


def main() -> None:
    """Print a line for each batch."""
    name, compute, rounds = (*sys.argv[1:], *("minilm", "f32", "9")[len(sys.argv) - 1 :])[:3]
    with tempfile.TemporaryDirectory() as scratch:
        folder = write(SHAPES[name], Path(scratch, "model"))
        dense, sparse = (load(folder, kind, compute) for kind in ("embed", "sparse"))
        print(f"{name}, {compute}: milliseconds, the least of {rounds} rounds", flush=True)
        for said, lengths in BATCHES.items():
            batch = tokens_of(lengths)
            tokens = sum(map(sum, lengths))
            ways: dict[str, Callable[[], object]] = {
                "dense": partial(dense.encode_alone, *batch),
                "sparse": partial(sparse.encode_alone, *batch),
            }
            for entries in (2048, 30522):
                ways[f"product {entries}"] = product(SHAPES[name], tokens, entries, compute)
            least, cpu = measure(ways, int(rounds))
            best = min(least["product 2048"], least["product 30522"])
            busy = cpu["sparse"] / (cpu["dense"] + min(cpu["product 2048"], cpu["product 30522"]))
            bound = BOUND * (least["dense"] + best)
            verdict = "ok" if least["sparse"] <= bound else "MISSED"
            print(
                f"  {said}: sparse {least['sparse']:.1f}; dense {least['dense']:.1f}"
                f" + product {best:.1f}; ratio {BOUND * least['sparse'] / bound:.2f}"
                f" (processor time {busy:.2f}), bound {bound:.1f}: {verdict}",
                flush=True,
            )
        for said in ("8 texts of 64 tokens", "32 texts of 128 tokens"):
            grown = {kind: memory(folder, kind, compute, said) for kind in ("embed", "sparse")}
            tokens = sum(map(sum, BATCHES[said]))
            print(
                f"  memory of {said}: dense {grown['embed']:.0f} MiB, sparse"
                f" {grown['sparse']:.0f} MiB; all scores at once would take"
                f" {tokens * 30522 * 4 / 2**20:.0f} MiB",
                flush=True,
            )


def write(sizes: checkpoints.Sizes, folder: Path) -> Path:
    """Write a checkpoint with the head of a masked language model."""
    size = int(str(sizes["hidden_size"]))
    name = "cls.predictions"
    head = [
        *checkpoints.linear(f"{name}.transform.dense", size, size),
        *checkpoints.norm(f"{name}.transform.LayerNorm", size),
        checkpoints.Part(f"{name}.bias", (30522,), 0.1, -2.0),
    ]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(sizes))
    drawn = dict(checkpoints.drawn(head, 8)) | checkpoints.tensors(sizes)
    drawn["embeddings.word_embeddings.weight"] *= np.float32(size**-0.5)
    save_file(drawn, folder / "model.safetensors")
    return folder


def load(folder: Path, kind: str, compute: str) -> Any:  # noqa: ANN401 - an OpenVINO encoder
    """Load the checkpoint as a model of this kind."""
    request = LoadRequest(
        folder=folder,
        kind="sparse" if kind == "sparse" else "embed",
        pooling="max" if kind == "sparse" else "mean",
        precision="bf16" if compute == "bf16" else "f32",
        compute="bf16" if compute == "bf16" else "f32",
        cache=folder.parent / f"{kind}-{compute}",
        cache_key="key",
        streams=1,
    )
    return OpenVINOBackend().load(request)


def tokens_of(rows: Sequence[Sequence[int]]) -> tuple[TokenIds, TokenIds]:
    """Return random token ids and the mask."""
    draw, width = np.random.default_rng(3), max(map(sum, rows))
    token_ids = np.zeros((len(rows), width), np.int32)
    mask = np.zeros((len(rows), width), np.int32)
    for row, lengths in enumerate(rows):
        numbers = np.repeat(np.arange(1, len(lengths) + 1), lengths)
        mask[row, : len(numbers)] = numbers
        token_ids[row, : len(numbers)] = draw.integers(1000, 30000, len(numbers))
    return token_ids, mask


def product(
    sizes: checkpoints.Sizes, tokens: int, entries: int, compute: str
) -> Callable[[], object]:
    """Return what multiplies so many tokens by the table, so many of its entries at a time."""
    from openvino import Model
    from openvino import opset15 as op

    size = int(str(sizes["hidden_size"]))
    draw = np.random.default_rng(0)
    given = op.parameter([tokens, size], np.float32)
    matrix = draw.standard_normal((entries, size), np.float32)
    once = op.matmul(given, op.constant(matrix), transpose_a=False, transpose_b=True)
    compiled = make_core().compile_model(Model([once], [given]), "CPU", settings(compute, 0))
    request, values = compiled.create_infer_request(), draw.standard_normal((tokens, size))
    values = values.astype(np.float32)
    times = -(-30522 // entries)

    def run() -> None:
        for _ in range(times):
            request.infer([values], share_inputs=True, share_outputs=True)

    return run


def measure(
    ways: dict[str, Callable[[], object]], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the least milliseconds of each, on the clock and of processors; they take turns."""
    least, cpu = dict.fromkeys(ways, float("inf")), dict.fromkeys(ways, float("inf"))
    for turn in range(rounds + 2):
        for name, run in ways.items():
            began_s, busy_s = time.perf_counter(), time.process_time()
            run()
            if turn >= 2:
                least[name] = min(least[name], 1000 * (time.perf_counter() - began_s))
                cpu[name] = min(cpu[name], 1000 * (time.process_time() - busy_s))
    return least, cpu


def memory(folder: Path, kind: str, compute: str, said: str) -> float:
    """Return how many MiB one batch took at its peak, in a new process."""
    command = [sys.executable, __file__, "--memory", str(folder), kind, compute, said]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def measure_memory(folder: Path, kind: str, compute: str, said: str) -> None:
    """Load, run a small batch, which repacks the weights, and then one of those above."""
    encoder: Encoder = load(folder, kind, compute)
    small = tokens_of([[8]])
    encoder.encode(*small)
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    before = number_in(status, "VmRSS")
    encoder.encode(*tokens_of(BATCHES[said]))
    print((number_in(status, "VmHWM") - before) / 1024)


def number_in(status: Path, key: str) -> int:
    """Return a number of KiB."""
    line = next(line for line in status.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        measure_memory(Path(sys.argv[2]), *sys.argv[3:])
    else:
        main()
