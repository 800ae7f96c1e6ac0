"""The tiny checkpoints of `tests/reference`, transformers' vectors for them, copies to damage."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emberd.backends.base import (
    Backend,
    Compute,
    Encoder,
    Pooling,
    Precision,
    TokenIds,
)
from emberd.backends.tensors import open_tensors
from emberd.vectors import Matrix
from tests.backends.support import a_request

TINY = Path(__file__).parents[1] / "reference" / "tiny"
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "last")
MOST_TOKENS = {
    "bert": 40,
    "deberta-v2": 64,
    "distilbert": 40,
    "gemma3_text": 64,
    "gte": 64,
    "jina_bert": 300,
    "jina_bert-code": 300,
    "model2vec": 300,
    "modernbert": 64,
    "mpnet": 130,
    "new": 64,
    "nomic_bert": 64,
    "qwen3": 64,
    "roberta": 40,
    "t5": 130,
    "t5-gated": 130,
    "xlm-roberta": 40,
}
"""The longest text of each checkpoint that our own backends run."""


PACKED = pytest.mark.parametrize(
    ("prefix", "precision", "bits"),
    [
        ("model.", "4bit", 4),
        pytest.param("model.", "8bit", 8, marks=pytest.mark.slow),
        pytest.param("", "4bit", 4, marks=pytest.mark.slow),
        pytest.param("", "8bit", 8, marks=pytest.mark.slow),
    ],
)
"""Checkpoints that MLX has quantized, with a prefix before the names of their tensors or not."""


def load(
    backend: Backend,
    folder: Path,
    scratch: Path,
    *,
    pooling: Pooling | None = None,
    precision: Precision = "f32",
    compute: Compute = "f32",
    streams: int = 0,
) -> Encoder:
    """Load a checkpoint with the pooling that it states, unless another is given."""
    request = a_request(
        folder,
        scratch / "cache",
        pooling=pooling or stated(folder.name),
        precision=precision,
        compute=compute,
        cache_key=str(folder),
        streams=streams,
    )
    return backend.load(request)


def copy_of(name: str, folder: Path, *, pooling: Pooling | None = None) -> Path:
    """Copy a checkpoint; with `pooling`, it no longer states one of its own."""
    shutil.copytree(TINY / name, folder)
    if pooling:
        shutil.rmtree(folder / "1_Pooling", ignore_errors=True)  # a static model has none
    return folder


def stated(name: str) -> Pooling:
    """Which pooling a checkpoint states for itself."""
    return "last" if name == "qwen3" else "mean"


def poolings_of(name: str) -> tuple[Pooling, ...]:
    """Which poolings there are vectors for."""
    with np.load(TINY / name / "reference.npz") as arrays:
        return tuple(pooling for pooling in POOLINGS if pooling in arrays.files)


def batch_of(name: str) -> tuple[TokenIds, TokenIds]:
    """All texts as one batch, padded on the right: token ids and mask."""
    with np.load(TINY / name / "reference.npz") as arrays:
        return arrays["token_ids"], arrays["mask"]


def vectors_of(name: str, pooling: Pooling) -> Matrix:
    """What transformers makes of each text."""
    with np.load(TINY / name / "reference.npz") as arrays:
        vectors: Matrix = arrays[pooling]
        return vectors


def padded_left(token_ids: TokenIds, mask: TokenIds) -> tuple[TokenIds, TokenIds]:
    """Move the padding of each row to its other end."""
    shifts = mask.shape[1] - mask.sum(axis=1)
    rows = range(len(mask))
    return (
        np.stack([np.roll(token_ids[row], shifts[row]) for row in rows]),
        np.stack([np.roll(mask[row], shifts[row]) for row in rows]),
    )


def change_json(path: Path, **changes: object) -> None:
    """Replace values of a JSON object; None removes the key."""
    values = json.loads(path.read_text()) | changes
    kept = {key: value for key, value in values.items() if value is not None}
    path.write_text(json.dumps(kept))


def pack(folder: Path, bits: int, *, prefix: str = "") -> None:
    """Quantize as `mlx_embeddings.convert` does: in the files, in groups of 64, where that fits."""
    import mlx.core as mx

    arrays = {}
    for name, values in load_file(folder / "model.safetensors").items():
        layer = prefix + name.removesuffix(".weight")
        if values.ndim == 2 and values.shape[1] % 64 == 0:
            packed = mx.quantize(mx.array(values), group_size=64, bits=bits, stream=mx.cpu)
            for part, array in zip(("weight", "scales", "biases"), packed, strict=True):
                arrays[f"{layer}.{part}"] = array
        else:
            arrays[prefix + name] = mx.array(values)
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, metadata={"format": "mlx"})
    change_json(folder / "config.json", quantization={"group_size": 64, "bits": bits})


def pack_with_heads(folder: Path, bits: int, *, prefix: str = "") -> None:
    """Quantize as `pack` does, with the heads in the file of the encoder: conversions do that."""
    import mlx.core as mx

    pack(folder, bits, prefix=prefix)
    heads = sorted(folder.glob("*_Dense/model.safetensors"))
    if not heads:
        return
    path = folder / "model.safetensors"
    arrays: Any = mx.load(str(path))
    for index, head in enumerate(heads):
        weight = mx.array(open_tensors(head)["linear.weight"].floats())  # NumPy has no bfloat16
        packed = mx.quantize(weight, group_size=64, bits=bits, stream=mx.cpu)
        for part, array in zip(("weight", "scales", "biases"), packed, strict=True):
            arrays[f"dense.{index}.{part}"] = array
        head.unlink()
    mx.eval(arrays)
    path.unlink()
    mx.save_safetensors(str(path), arrays)


def add_dense(
    folder: Path, *, activation: str, inputs: int, outputs: int, bias: bool = True, index: int = 2
) -> tuple[Matrix, Matrix]:
    """Add a Dense step of random weights after pooling; return weight and bias."""
    draw = np.random.default_rng(index)
    weight = draw.normal(0, 0.2, (outputs, inputs)).astype(np.float32)
    shift = draw.normal(0, 0.2, outputs).astype(np.float32) * bias
    step = folder / f"{index}_Dense"
    step.mkdir()
    tensors = {"linear.weight": weight} | ({"linear.bias": shift} if bias else {})
    save_file(tensors, step / "model.safetensors")
    config = {
        "in_features": inputs,
        "out_features": outputs,
        "bias": bias,
        "activation_function": f"torch.nn.modules.activation.{activation}",
    }
    (step / "config.json").write_text(json.dumps(config))
    modules = json.loads((folder / "modules.json").read_text())
    modules = [module for module in modules if not module["type"].endswith("Normalize")]
    kind = "sentence_transformers.models.Dense"
    modules.append({"idx": index, "name": str(index), "path": step.name, "type": kind})
    (folder / "modules.json").write_text(json.dumps(modules))
    return weight, shift
