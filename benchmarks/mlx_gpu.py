"""Compares emberd's MLX encoder on a GPU with mlx-embeddings' BERT and torch, in turns, in one run.

    python benchmarks/mlx_gpu.py [--rounds 7] [--json OUT] [--profile]

Measured from token ids in main memory to pooled vectors there, in float16, with weights of MiniLM's
sizes. Needs MLX's CUDA build, mlx-embeddings, torch with CUDA, and transformers. Every
engine's vectors are compared with torch's float32 before it is timed.
"""

import argparse
import gc
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import checkpoints
import mlx.core as mx
import numpy as np

from emberd.backends.base import LoadRequest, Precision, TokenIds
from emberd.backends.mlx.backend import MLXBackend, MLXEncoder
from emberd.vectors import Matrix

Batch = tuple[TokenIds, TokenIds]
Encode = Callable[[TokenIds, TokenIds], Matrix]


def batch(texts: int, tokens: int, padded: bool = False) -> Batch:
    """Return random token ids and mask; padded, lengths vary from three quarters to all of it."""
    draw = np.random.default_rng(texts * tokens)
    token_ids = draw.integers(5, 30_000, (texts, tokens), dtype=np.int32)
    mask = np.ones_like(token_ids)
    if padded:
        for row, length in enumerate(sorted(draw.integers(3 * tokens // 4, tokens + 1, texts))):
            mask[row, length:] = 0
    return token_ids * mask, mask


BATCHES = {
    "1 x 16": batch(1, 16),
    "8 x 64": batch(8, 64),
    "64 x 512": batch(64, 512),
    "256 x 128": batch(256, 128),
    "256 x 128, padded": batch(256, 128, padded=True),
}
LEAST_COSINE = {"4-bit": 0.5}  # other weights, another space; the others are float16's
AT_LEAST_S = 0.15  # of each engine and shape in each round
PACKAGES = ("mlx", "mlx-embeddings", "torch", "transformers", "numpy")
AHEAD = 16  # batches in a row, to see what is gained by starting one early


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    # MLX decides at the first product whether float32 may be multiplied as TF32. emberd turns that
    # off; mlx-embeddings, which is half in float32, is faster with it, so it is left on for it.
    mx.eval(mx.ones((8, 8)) @ mx.ones((8, 8)))
    with tempfile.TemporaryDirectory() as scratch:
        weights = checkpoints.tensors(checkpoints.MINILM)
        folder = checkpoints.write(checkpoints.MINILM, Path(scratch) / "minilm")
        ours = with_emberd(folder, "f32")
        engines: dict[str, Encode] = {
            "emberd": ours.encode,
            "emberd, 4-bit weights": with_emberd(folder, "4bit").encode,
            "mlx-embeddings": with_mlx_embeddings(folder),
            "torch": with_torch(weights),
        }
        exact = with_torch(weights, half=False)
        lowest = {name: check(name, encode, exact) for name, encode in engines.items()}
        result: dict[str, Any] = {
            "facts": facts(),
            "command": f"python benchmarks/mlx_gpu.py --rounds {arguments.rounds}",
            "lowest_cosine": lowest,
            "ms": measure(engines, arguments.rounds),
            "ahead_ms": measure_ahead(ours, BATCHES["256 x 128"], arguments.rounds),
            "first_ms": first_of_a_shape(ours),
        }
        report(result)
        if arguments.profile:
            result["profile_us"] = {
                name: profile(engines[name], BATCHES["256 x 128"]) for name in ("emberd", "torch")
            }
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def with_emberd(folder: Path, precision: Precision) -> MLXEncoder:
    """Return our encoder, in float16."""
    return MLXBackend().load(
        LoadRequest(
            folder=folder,
            pooling="mean",
            precision=precision,
            compute="f16",
            cache=folder / "cache",
            cache_key="",
        )
    )


def with_mlx_embeddings(folder: Path) -> Encode:
    """Return mlx-embeddings' own BERT with its own pooling, in float16."""
    found = importlib.util.find_spec("mlx_embeddings")
    assert found is not None
    # Its `__init__` imports much that this machine may lack; its BERT needs none of that.
    sys.modules["mlx_embeddings"] = importlib.util.module_from_spec(found)
    bert = importlib.import_module("mlx_embeddings.models.bert")
    model = bert.Model(bert.ModelArgs.from_dict(json.loads((folder / "config.json").read_text())))
    stored = mx.load(str(folder / "model.safetensors"))
    assert isinstance(stored, dict)
    arrays = [(name, array.astype(mx.float16)) for name, array in model.sanitize(stored).items()]
    model.load_weights(arrays, strict=False)
    model.eval()
    mx.eval(model.parameters())

    def encode(token_ids: TokenIds, mask: TokenIds) -> Matrix:
        output = model(mx.array(token_ids), attention_mask=mx.array(mask))
        return np.array(output.text_embeds.astype(mx.float32))

    return encode


def with_torch(weights: dict[str, checkpoints.Floats], *, half: bool = True) -> Encode:
    """Return transformers' BERT with torch's fused attention (SDPA), mean pooled."""
    import torch
    import transformers

    config = transformers.BertConfig(**checkpoints.MINILM)
    config._attn_implementation = "sdpa"  # noqa: SLF001 - no other way without a checkpoint
    model = transformers.BertModel(config, add_pooling_layer=False)
    stored = {name: torch.from_numpy(values) for name, values in weights.items()}
    missing = model.load_state_dict(stored, strict=False)
    assert not missing.missing_keys, missing
    model = model.eval().cuda()
    if half:
        model = model.half()

    def encode(token_ids: TokenIds, mask: TokenIds) -> Matrix:
        with torch.inference_mode():
            ids, kept = torch.from_numpy(token_ids).cuda(), torch.from_numpy(mask).cuda()
            tokens = model(input_ids=ids, attention_mask=kept).last_hidden_state.float()
            weight = kept[:, :, None].float()
            pooled = (tokens * weight).sum(dim=1) / weight.sum(dim=1)
            rows: Matrix = pooled.cpu().numpy()
            return rows

    return encode


def check(name: str, encode: Encode, exact: Encode) -> float:
    """Return the lowest cosine to torch's float32, or stop."""
    lowest = min(cosines(encode(*inputs), exact(*inputs)).min() for inputs in BATCHES.values())
    least = next((least for part, least in LEAST_COSINE.items() if part in name), 0.999)
    if not lowest >= least:
        raise SystemExit(f"{name}: not timed, as its cosine to float32 is {lowest:.5f}.")
    return float(lowest)


def cosines(a: Matrix, b: Matrix) -> Matrix:
    """Return the cosine of each pair of rows."""
    products: Matrix = (a * b).sum(axis=1)
    lengths: Matrix = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return products / lengths


def measure(engines: dict[str, Encode], rounds: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Return ms per batch for each shape and engine: the median of the rounds' medians."""
    seen: dict[str, dict[str, list[float]]] = {
        shape: {name: [] for name in engines} for shape in BATCHES
    }
    for turn in range(rounds):
        names = list(engines)
        for shape, inputs in BATCHES.items():
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                seen[shape][name].append(median_ms(partial(engines[name], *inputs)))
    return {
        shape: {
            name: {"median": statistics.median(each), "rounds": each} for name, each in of.items()
        }
        for shape, of in seen.items()
    }


def median_ms(run: Callable[[], object]) -> float:
    """Return how long it takes, after two uncounted runs."""
    run(), run()
    gc.disable()
    took: list[float] = []
    while sum(took) < AT_LEAST_S or len(took) < 5:
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    gc.enable()
    return 1e3 * statistics.median(took)


def measure_ahead(encoder: MLXEncoder, inputs: Batch, rounds: int) -> dict[str, float]:
    """Return ms per batch of many: one after another, and each started before the last ends."""

    def in_turn() -> None:
        for _ in range(AHEAD):
            encoder.encode(*inputs)

    def ahead() -> None:
        finish = encoder.start(*inputs)
        for _ in range(AHEAD - 1):
            following = encoder.start(*inputs)
            finish()
            finish = following
        finish()

    seen: dict[str, list[float]] = {"in turn": [], "ahead": []}
    for _ in range(rounds):
        seen["in turn"].append(median_ms(in_turn) / AHEAD)
        seen["ahead"].append(median_ms(ahead) / AHEAD)
    return {name: statistics.median(each) for name, each in seen.items()}


def first_of_a_shape(encoder: MLXEncoder) -> dict[str, float]:
    """Return ms of the first batch of a shape, and of the second."""
    inputs = batch(96, 224, padded=True)
    took = []
    for _ in range(2):
        began = time.perf_counter()
        encoder.encode(*inputs)
        took.append(1e3 * (time.perf_counter() - began))
    return dict(zip(("first", "second"), took, strict=True))


def facts() -> dict[str, str]:
    """Return the versions and the GPU."""
    import torch

    return {
        "date": datetime.now(UTC).date().isoformat(),
        "gpu": torch.cuda.get_device_name(),
        "python": sys.version.split()[0],
        **{name: version(name) for name in PACKAGES},
    }


def report(result: dict[str, Any]) -> None:
    """Print the table."""
    shapes = result["ms"]
    names: Sequence[str] = list(next(iter(shapes.values())))
    print(", ".join(f"{name} {value}" for name, value in result["facts"].items()))
    print(f"| ms a batch | {' | '.join(names)} | to mlx-embeddings | to torch |")
    print(f"| --- |{' ---: |' * (len(names) + 2)}")
    for shape, of in shapes.items():
        ms = {name: of[name]["median"] for name in names}
        cells = [f"{ms[name]:.2f}" for name in names]
        ratios = [f"{ms[peer] / ms['emberd']:.2f}x" for peer in ("mlx-embeddings", "torch")]
        print(f"| {shape} | {' | '.join(cells + ratios)} |")
    cosines = [f"{name} {lowest:.6f}" for name, lowest in result["lowest_cosine"].items()]
    print(f"lowest cosine to torch float32: {'; '.join(cosines)}")
    print("256 x 128, ms a batch:", {k: round(ms, 2) for k, ms in result["ahead_ms"].items()})
    print("a new shape, ms:", {k: round(ms, 1) for k, ms in result["first_ms"].items()})


def profile(encode: Encode, inputs: Batch, runs: int = 5) -> dict[str, float]:
    """Return µs per batch by kernel, and print them; torch's profiler sees MLX's kernels, too."""
    import torch

    encode(*inputs)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as recorded:
        for _ in range(runs):
            encode(*inputs)
        torch.cuda.synchronize()
    events = {event.key: event for event in recorded.key_averages()}
    took = {key: event.self_device_time_total / runs for key, event in events.items()}
    took = {key: us for key, us in sorted(took.items(), key=lambda item: -item[1]) if us >= 1}
    for key, us in took.items():
        print(f"{us:8.1f} us in {events[key].count / runs:5.1f}  {key[:110]}")
    print(f"{sum(took.values()):8.1f} us in all")
    return took


if __name__ == "__main__":
    main()
