"""Checkpoints of realistic size with random weights, which are the same on every machine.

They need no download, so a machine without a network can use them too.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

Sizes = dict[str, object]
Floats = npt.NDArray[np.float32]

_BERT: Sizes = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
MINILM: Sizes = _BERT | {"num_hidden_layers": 6}
BGE_SMALL: Sizes = _BERT | {"num_hidden_layers": 12}
BERT_BASE: Sizes = _BERT | {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "intermediate_size": 3072,
}
MPNET: Sizes = {
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

_LAYER = {
    "bert": "self.query self.key self.value output.dense output.LayerNorm",
    "mpnet": "attn.q attn.k attn.v attn.o LayerNorm",
}
"""The names of the parts of `attention`; the last is its norm."""


def tensors(sizes: Sizes, seed: int = 7) -> dict[str, Floats]:
    """Return the weights by the names they have in Hugging Face's own models.

    They are large enough that texts differ, and that attention prefers some tokens to others.
    """
    draw = np.random.default_rng(seed)
    number = {key: value for key, value in sizes.items() if isinstance(value, int)}
    size, wide = number["hidden_size"], number["intermediate_size"]
    made: dict[str, Floats] = {}

    def table(name: str, rows: int, columns: int, spread: float) -> None:
        values = draw.standard_normal((rows, columns), dtype=np.float32)
        made[f"{name}.weight"] = values * np.float32(spread)

    def linear(name: str, outputs: int, inputs: int) -> None:
        table(name, outputs, inputs, spread=1.3 * inputs**-0.5)
        made[f"{name}.bias"] = 0.1 * draw.standard_normal(outputs, dtype=np.float32)

    def norm(name: str) -> None:
        made[f"{name}.weight"] = 1 + 0.1 * draw.standard_normal(size, dtype=np.float32)
        made[f"{name}.bias"] = 0.1 * draw.standard_normal(size, dtype=np.float32)

    table("embeddings.word_embeddings", number["vocab_size"], size, 1)
    table("embeddings.position_embeddings", number["max_position_embeddings"], size, 0.3)
    if "type_vocab_size" in number:
        table("embeddings.token_type_embeddings", number["type_vocab_size"], size, 0.3)
    else:
        table("encoder.relative_attention_bias", 32, number["num_attention_heads"], 1)
    norm("embeddings.LayerNorm")
    *square, attention_norm = _LAYER[str(sizes["model_type"])].split()
    for layer in (f"encoder.layer.{index}" for index in range(number["num_hidden_layers"])):
        for part in square:
            linear(f"{layer}.attention.{part}", size, size)
        norm(f"{layer}.attention.{attention_norm}")
        linear(f"{layer}.intermediate.dense", wide, size)
        linear(f"{layer}.output.dense", size, wide)
        norm(f"{layer}.output.LayerNorm")
    return made


def write(sizes: Sizes, folder: Path) -> Path:
    """Write a checkpoint in the layout of a Hub repository, without a tokenizer."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(sizes))
    save_file(tensors(sizes), folder / "model.safetensors")
    return folder
