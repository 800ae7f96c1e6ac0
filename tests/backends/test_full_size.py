"""At the sizes of the real models, with random weights, both backends give the same vectors."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from emberd.backends.base import Pooling
from emberd.backends.mlx.backend import MLXBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from tests.backends.support import a_request, batch_of
from tests.cosines import cosines

BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "norm": "attention.output.LayerNorm",
}
MPNET_LAYER = {
    "query": "attention.attn.q",
    "key": "attention.attn.k",
    "value": "attention.attn.v",
    "output": "attention.attn.o",
    "norm": "attention.LayerNorm",
}
BGE_SMALL: dict[str, object] = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
MPNET: dict[str, object] = {
    "model_type": "mpnet",
    "vocab_size": 30527,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 514,
    "relative_attention_num_buckets": 32,
    "layer_norm_eps": 1e-05,
    "hidden_act": "gelu",
}
TEXTS = [[2000 + 7 * n for n in range(length)] for length in (9, 4, 1)]


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once: these models take half a gigabyte each."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def write(config: dict[str, object], folder: Path, layer: dict[str, str]) -> None:
    """Write a checkpoint of random weights."""
    draw = np.random.default_rng(3)
    sizes = {key: value for key, value in config.items() if isinstance(value, int)}
    size, wide = sizes["hidden_size"], sizes["intermediate_size"]
    tensors: dict[str, npt.NDArray[np.float16]] = {}

    def table(name: str, rows: int, columns: int) -> None:
        values = draw.standard_normal((rows, columns), np.float32)
        tensors[f"{name}.weight"] = (values * columns**-0.5).astype(np.float16)

    def offsets(name: str, mean: int, length: int) -> None:
        tensors[name] = (mean + 0.1 * draw.standard_normal(length)).astype(np.float16)

    def linear(name: str, outputs: int, inputs: int) -> None:
        table(name, outputs, inputs)
        offsets(f"{name}.bias", 0, outputs)

    def norm(name: str) -> None:
        offsets(f"{name}.weight", 1, size)
        offsets(f"{name}.bias", 0, size)

    table("embeddings.word_embeddings", sizes["vocab_size"], size)
    table("embeddings.position_embeddings", sizes["max_position_embeddings"], size)
    if "type_vocab_size" in sizes:
        table("embeddings.token_type_embeddings", sizes["type_vocab_size"], size)
    else:
        table("encoder.relative_attention_bias", 32, sizes["num_attention_heads"])
    norm("embeddings.LayerNorm")
    for name in (f"encoder.layer.{n}" for n in range(sizes["num_hidden_layers"])):
        for part in ("query", "key", "value", "output"):
            linear(f"{name}.{layer[part]}", size, size)
        norm(f"{name}.{layer['norm']}")
        linear(f"{name}.intermediate.dense", wide, size)
        linear(f"{name}.output.dense", size, wide)
        norm(f"{name}.output.LayerNorm")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "layer", "pooling"),
    [(BGE_SMALL, BERT_LAYER, "cls"), (MPNET, MPNET_LAYER, "mean")],
    ids=["bge-small", "mpnet"],
)
def test_both_backends_agree(
    config: dict[str, object], layer: dict[str, str], pooling: Pooling, scratch: Path
) -> None:
    write(config, scratch / "model", layer)
    request = a_request(scratch / "model", scratch / "cache", pooling=pooling, compute="f32")

    ours = OpenVINOBackend().load(request).encode(*batch_of(*TEXTS))
    theirs = MLXBackend().load(request).encode(*batch_of(*TEXTS))

    assert ours.shape == (3, config["hidden_size"])
    assert cosines(ours, ours[[1, 2, 0]]).max() < 0.99
    assert cosines(ours, theirs).min() > 0.99999
