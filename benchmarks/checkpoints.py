"""Checkpoints of realistic size with random weights, which are the same on every machine.

They need no download, so a machine without a network can use them too.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Sizes = dict[str, object]
Stored = Literal["F32", "BF16"]
BYTES: dict[Stored, int] = {"F32": 4, "BF16": 2}
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
# Those of the models' own config.json on the Hub, without what makes no difference to a tensor.
XLM_ROBERTA_LARGE: Sizes = {  # BAAI/bge-m3
    "model_type": "xlm-roberta",
    "vocab_size": 250002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 8194,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-05,
    "hidden_act": "gelu",
    "pad_token_id": 1,
}
NOMIC_BERT: Sizes = {  # nomic-ai/nomic-embed-text-v1.5
    "model_type": "nomic_bert",
    "vocab_size": 30528,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": 3072,
    "n_positions": 8192,
    "type_vocab_size": 2,
    "activation_function": "swiglu",
    "layer_norm_epsilon": 1e-12,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "qkv_proj_bias": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
}
MODERNBERT_BASE: Sizes = {  # answerdotai/ModernBERT-base
    "model_type": "modernbert",
    "vocab_size": 50368,
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
    "global_attn_every_n_layers": 3,
    "local_attention": 128,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "norm_eps": 1e-05,
    "hidden_activation": "gelu",
}
T5_BASE: Sizes = {  # sentence-transformers/gtr-t5-base
    "model_type": "t5",
    "vocab_size": 32128,
    "d_model": 768,
    "d_ff": 3072,
    "d_kv": 64,
    "num_layers": 12,
    "num_heads": 12,
    "n_positions": 512,
    "relative_attention_num_buckets": 32,
    "layer_norm_epsilon": 1e-06,
    "feed_forward_proj": "relu",
}
QWEN3_0_6B: Sizes = {  # Qwen/Qwen3-Embedding-0.6B
    "model_type": "qwen3",
    "vocab_size": 151669,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000,
    "rms_norm_eps": 1e-06,
    "hidden_act": "silu",
}
GEMMA_300M: Sizes = {  # google/embeddinggemma-300m, without its two Dense layers
    "model_type": "gemma3_text",
    "vocab_size": 262144,
    "hidden_size": 768,
    "num_hidden_layers": 24,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "intermediate_size": 1152,
    "max_position_embeddings": 2048,
    "query_pre_attn_scalar": 256,
    "sliding_window": 512,
    "use_bidirectional_attention": True,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rms_norm_eps": 1e-06,
    "hidden_activation": "gelu_pytorch_tanh",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor: its numbers are of a normal distribution."""

    name: str
    shape: tuple[int, ...]
    spread: float
    mean: float = 0.0


def table(name: str, rows: int, columns: int, spread: float = 1.0) -> list[Part]:
    """Return a table of vectors."""
    return [Part(f"{name}.weight", (rows, columns), spread)]


def linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> list[Part]:
    """Return a linear layer."""
    parts = table(name, outputs, inputs, 1.3 * inputs**-0.5)
    return [*parts, Part(f"{name}.bias", (outputs,), 0.1)] if bias else parts


def norm(name: str, size: int, *, bias: bool = True) -> list[Part]:
    """Return a layer norm."""
    scale = Part(f"{name}.weight", (size,), 0.1, 1.0)
    return [scale, Part(f"{name}.bias", (size,), 0.1)] if bias else [scale]


_LAYER = {
    "bert": "self.query self.key self.value output.dense output.LayerNorm",
    "xlm-roberta": "self.query self.key self.value output.dense output.LayerNorm",
    "mpnet": "attn.q attn.k attn.v attn.o LayerNorm",
}
"""The names of the parts of `attention`; the last is its norm."""


def _post_norm(sizes: Sizes) -> Iterator[Part]:
    """BERT, RoBERTa and MPNet."""
    number = _integers(sizes)
    size, wide = number["hidden_size"], number["intermediate_size"]
    yield from table("embeddings.word_embeddings", number["vocab_size"], size)
    positions = number["max_position_embeddings"]
    yield from table("embeddings.position_embeddings", positions, size, 0.3)
    if "type_vocab_size" in number:
        types = number["type_vocab_size"]
        yield from table("embeddings.token_type_embeddings", types, size, 0.3)
    else:
        yield from table("encoder.relative_attention_bias", 32, number["num_attention_heads"])
    yield from norm("embeddings.LayerNorm", size)
    *square, attention_norm = _LAYER[str(sizes["model_type"])].split()
    for layer in (f"encoder.layer.{index}" for index in range(number["num_hidden_layers"])):
        for part in square:
            yield from linear(f"{layer}.attention.{part}", size, size)
        yield from norm(f"{layer}.attention.{attention_norm}", size)
        yield from linear(f"{layer}.intermediate.dense", wide, size)
        yield from linear(f"{layer}.output.dense", size, wide)
        yield from norm(f"{layer}.output.LayerNorm", size)


def _nomic_bert(sizes: Sizes) -> Iterator[Part]:
    number = _integers(sizes)
    size, wide = number["n_embd"], number["n_inner"]
    yield from table("embeddings.word_embeddings", number["vocab_size"], size)
    yield from table("embeddings.token_type_embeddings", number["type_vocab_size"], size, 0.3)
    yield from norm("emb_ln", size)
    for layer in (f"encoder.layers.{index}" for index in range(number["n_layer"])):
        yield from linear(f"{layer}.attn.Wqkv", 3 * size, size, bias=False)
        yield from linear(f"{layer}.attn.out_proj", size, size, bias=False)
        yield from linear(f"{layer}.mlp.fc11", wide, size, bias=False)
        yield from linear(f"{layer}.mlp.fc12", wide, size, bias=False)
        yield from linear(f"{layer}.mlp.fc2", size, wide, bias=False)
        yield from norm(f"{layer}.norm1", size)
        yield from norm(f"{layer}.norm2", size)


def _modernbert(sizes: Sizes) -> Iterator[Part]:
    number = _integers(sizes)
    size, wide = number["hidden_size"], number["intermediate_size"]
    yield from table("embeddings.tok_embeddings", number["vocab_size"], size)
    yield from norm("embeddings.norm", size, bias=False)
    for index in range(number["num_hidden_layers"]):
        layer = f"layers.{index}"
        if index:
            yield from norm(f"{layer}.attn_norm", size, bias=False)
        yield from linear(f"{layer}.attn.Wqkv", 3 * size, size, bias=False)
        yield from linear(f"{layer}.attn.Wo", size, size, bias=False)
        yield from norm(f"{layer}.mlp_norm", size, bias=False)
        yield from linear(f"{layer}.mlp.Wi", 2 * wide, size, bias=False)
        yield from linear(f"{layer}.mlp.Wo", size, wide, bias=False)
    yield from norm("final_norm", size, bias=False)


def _t5(sizes: Sizes) -> Iterator[Part]:
    number = _integers(sizes)
    size, wide, heads = number["d_model"], number["d_ff"], number["num_heads"]
    inner = heads * number["d_kv"]
    yield from table("shared", number["vocab_size"], size)
    first = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    yield from table(first, number["relative_attention_num_buckets"], heads)
    for block in (f"encoder.block.{index}.layer" for index in range(number["num_layers"])):
        for part in ("q", "k", "v"):
            yield from linear(f"{block}.0.SelfAttention.{part}", inner, size, bias=False)
        yield from linear(f"{block}.0.SelfAttention.o", size, inner, bias=False)
        yield from norm(f"{block}.0.layer_norm", size, bias=False)
        yield from linear(f"{block}.1.DenseReluDense.wi", wide, size, bias=False)
        yield from linear(f"{block}.1.DenseReluDense.wo", size, wide, bias=False)
        yield from norm(f"{block}.1.layer_norm", size, bias=False)
    yield from norm("encoder.final_layer_norm", size, bias=False)


def _decoder(sizes: Sizes) -> Iterator[Part]:
    """Qwen 3 and Gemma 3."""
    number = _integers(sizes)
    size, wide, head = number["hidden_size"], number["intermediate_size"], number["head_dim"]
    queries = number["num_attention_heads"] * head
    keys = number["num_key_value_heads"] * head
    norms = ["input_layernorm", "post_attention_layernorm"]
    if sizes["model_type"] == "gemma3_text":
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    yield from table("embed_tokens", number["vocab_size"], size)
    for layer in (f"layers.{index}" for index in range(number["num_hidden_layers"])):
        for name in norms:
            yield from norm(f"{layer}.{name}", size, bias=False)
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield from linear(f"{layer}.self_attn.{part}_proj", rows, size, bias=False)
        yield from linear(f"{layer}.self_attn.o_proj", size, queries, bias=False)
        yield from norm(f"{layer}.self_attn.q_norm", head, bias=False)
        yield from norm(f"{layer}.self_attn.k_norm", head, bias=False)
        yield from linear(f"{layer}.mlp.gate_proj", wide, size, bias=False)
        yield from linear(f"{layer}.mlp.up_proj", wide, size, bias=False)
        yield from linear(f"{layer}.mlp.down_proj", size, wide, bias=False)
    yield from norm("norm", size, bias=False)


_PARTS = {
    "bert": _post_norm,
    "xlm-roberta": _post_norm,
    "mpnet": _post_norm,
    "nomic_bert": _nomic_bert,
    "modernbert": _modernbert,
    "t5": _t5,
    "qwen3": _decoder,
    "gemma3_text": _decoder,
}


def _integers(sizes: Sizes) -> dict[str, int]:
    return {key: value for key, value in sizes.items() if isinstance(value, int)}


def parts(sizes: Sizes) -> list[Part]:
    """Return the tensors by the names they have in Hugging Face's own models."""
    return list(_PARTS[str(sizes["model_type"])](sizes))


def count(sizes: Sizes) -> int:
    """Return how many numbers all tensors have together."""
    return sum(math.prod(part.shape) for part in parts(sizes))


def tensors(sizes: Sizes, seed: int = 7) -> dict[str, Floats]:
    """Return the weights.

    They are large enough that texts differ, and that attention prefers some tokens to others.
    """
    return dict(drawn(parts(sizes), seed))


def drawn(wanted: Iterable[Part], seed: int) -> Iterator[tuple[str, Floats]]:
    """Yield each tensor's name and numbers."""
    draw = np.random.default_rng(seed)
    for part in wanted:
        values = draw.standard_normal(part.shape, dtype=np.float32)
        values *= np.float32(part.spread)
        values += np.float32(part.mean)
        yield part.name, values


def write(sizes: Sizes, folder: Path, *, stored: Stored = "F32", seed: int = 7) -> Path:
    """Write a checkpoint in the layout of a Hub repository, without a tokenizer.

    Only one tensor at a time is in memory. Source of the format:
    huggingface.co/docs/safetensors, "Format".
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(sizes))
    wanted = parts(sizes)
    header: dict[str, object] = {}
    end = 0
    for part in wanted:
        start, end = end, end + math.prod(part.shape) * BYTES[stored]
        header[part.name] = {"dtype": stored, "shape": part.shape, "data_offsets": [start, end]}
    described = json.dumps(header).encode()
    described += b" " * (-len(described) % 8)  # so that tensors are aligned, as in real files
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(described).to_bytes(8, "little") + described)
        for _, values in drawn(wanted, seed):
            # bfloat16 is the upper half of a float32: cut off, not rounded, as these are random
            bits = (values.view("<u4") >> 16).astype("<u2") if stored == "BF16" else values
            file.write(bits.data)
    return folder
