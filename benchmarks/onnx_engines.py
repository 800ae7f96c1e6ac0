"""Compares the engines that could run a repository's `onnx/model.onnx`, on this machine.

    pip install onnxruntime==1.32.0     # not a dependency of emberd: only to compare with
    python benchmarks/onnx_engines.py FOLDER [--native FOLDER]

The engines take turns, batch by batch, so that a busy machine slows all of them down. What is
printed is how often onnxruntime's time contains theirs: the median of the rounds, and between which
numbers half of the rounds were. `--native` is the same model in safetensors, for emberd's own
arithmetic. Pooling is the mean.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from emberd.backends.base import Backend, Compute, LoadRequest, TokenIds, encode_alone
from emberd.backends.onnx.backend import OnnxBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.models.local import ONNX_FILE
from emberd.vectors import Matrix, lowest_cosine

SHAPES = ((1, 12), (1, 128), (4, 128), (16, 128), (1, 512))  # texts, tokens
ROUNDS = 15
WARM = 2
TOKENS = 1000  # ids below, which every vocabulary has

Run = Callable[[TokenIds, TokenIds], Matrix]


def main() -> None:
    """Print a row for each shape and engine."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--native", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        engines = {"onnxruntime f32": _onnxruntime(asked.folder / ONNX_FILE)}
        for compute in ("f32", "bf16"):
            engines[f"onnx {compute}"] = _emberd(OnnxBackend(), asked.folder, compute, cache)
        if asked.native:
            engines["native f32"] = _emberd(OpenVINOBackend(), asked.native, "f32", cache)
        print("texts x tokens | engine | times as fast as onnxruntime (quartiles) | lowest cosine")
        for texts, tokens in SHAPES:
            _compare(engines, texts, tokens, asked.rounds)


def _compare(engines: dict[str, Run], texts: int, tokens: int, rounds: int) -> None:
    draw = np.random.default_rng(3)
    token_ids = draw.integers(5, TOKENS, (texts, tokens), np.int32)
    mask = np.ones_like(token_ids)
    mask[1::2, tokens * 3 // 4 :] = 0  # every other text is shorter
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    vectors: dict[str, Matrix] = {}
    for number in range(WARM + rounds):
        order = [*engines] if number % 2 else [*reversed(engines)]
        for name in order:
            began_s = time.perf_counter()
            vectors[name] = engines[name](token_ids, mask)
            if number >= WARM:
                seconds[name].append(time.perf_counter() - began_s)
    base, *others = engines
    for name in others:
        ratios = [theirs / ours for theirs, ours in zip(seconds[base], seconds[name], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        cosine = lowest_cosine(vectors[base], vectors[name])
        print(f"{texts} x {tokens} | {name} | {middle:.2f} ({low:.2f}-{high:.2f}) | {cosine:.7f}")


def _onnxruntime(path: Path) -> Run:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = {each.name for each in session.get_inputs()}
    output = next(
        each.name
        for each in session.get_outputs()
        if each.type == "tensor(float)" and len(each.shape) == 3
    )

    def run(token_ids: TokenIds, mask: TokenIds) -> Matrix:
        given = {
            "input_ids": token_ids.astype(np.int64),
            "attention_mask": mask.astype(np.int64),
            "token_type_ids": np.zeros(token_ids.shape, np.int64),
        }
        (tokens,) = session.run([output], {name: given[name] for name in wanted})
        pooled: Matrix = (tokens * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        return pooled.astype(np.float32)

    return run


def _emberd(backend: Backend, folder: Path, compute: Compute, cache: str) -> Run:
    name = f"{type(backend).__name__}-{compute}"
    encoder = backend.load(
        LoadRequest(
            folder=folder.absolute(),
            precision="f32",
            pooling="mean",
            compute=compute,
            cache=Path(cache),
            cache_key=name,
        )
    )
    return lambda token_ids, mask: encode_alone(encoder, token_ids, mask)


if __name__ == "__main__":
    main()
