"""Writes a checkpoint as GGUF, the format of llama.cpp, for the architectures that it has, too.

Tensors are renamed by the tables of the `gguf` package. What llama.cpp reads of config.json, and
how, is in src/models/*.cpp of its source; what a key means, in docs/gguf.md of ggml's. Without a
tokenizer, only tokens can be embedded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]

ARCHITECTURES = {
    "bert": "bert",
    "distilbert": "bert",
    "roberta": "bert",
    "xlm-roberta": "bert",
    "nomic_bert": "nomic-bert",
    "modernbert": "modern-bert",
    "t5": "t5encoder",
    "gemma3_text": "gemma-embedding",
    "qwen3": "qwen3",
}
"""llama.cpp's architecture for each `model_type`, but for BERT with ALiBi."""

PLACES_AFTER_PADDING = ("roberta", "xlm-roberta")  # the first token's place follows `pad_token_id`
IGNORED = ("pooler.", "embeddings.position_ids")  # sentence vectors do not use them
STORED = ("f32", "bf16", "f16", "q8_0")
WITHOUT_MEANS = ("t5encoder", "gemma-embedding", "qwen3")  # RMS norms
CAUSAL = ("qwen3",)
MEAN = 1  # a pooling of llama.cpp's
DISTILBERT_EPSILON = 1e-12  # its config.json does not say it


def architecture(config: Config) -> str:
    """Return llama.cpp's architecture for a config.json; raise KeyError if it has none."""
    if config.get("position_embedding_type") == "alibi":
        return "jina-bert-v2"
    return ARCHITECTURES[config["model_type"]]


def facts(config: Config) -> dict[str, Any]:
    """Return the keys and values that llama.cpp needs, without a tokenizer's."""

    def of(*names: str) -> Any:  # noqa: ANN401 - whatever JSON can say
        return next((config[name] for name in names if config.get(name) is not None), None)

    def real(*names: str) -> float | None:
        found = of(*names)
        return None if found is None else float(found)

    kind = architecture(config)
    layers = of("num_hidden_layers", "n_layers", "num_layers")
    norm = "layer_norm_rms_epsilon" if kind in WITHOUT_MEANS else "layer_norm_epsilon"
    epsilon = real("layer_norm_eps", "norm_eps", "rms_norm_eps", "layer_norm_epsilon")
    window = of("local_attention", "sliding_window")
    found = {
        "vocab_size": config["vocab_size"],
        "context_length": of("max_position_embeddings", "n_positions") - first_place(config),
        "embedding_length": of("hidden_size", "dim", "d_model"),
        "feed_forward_length": of("intermediate_size", "hidden_dim", "d_ff"),
        "block_count": layers,
        "pooling_type": MEAN,
        "attention.head_count": of("num_attention_heads", "n_heads", "num_heads"),
        "attention.head_count_kv": of("num_key_value_heads"),
        "attention.key_length": of("head_dim", "d_kv"),
        "attention.value_length": of("head_dim", "d_kv"),
        "attention.causal": kind in CAUSAL,
        f"attention.{norm}": epsilon or DISTILBERT_EPSILON,
        "attention.relative_buckets_count": of("relative_attention_num_buckets"),
        "attention.sliding_window": window,
        "attention.sliding_window_pattern": _local_layers(config, layers) if window else None,
        "rope.freq_base": real("rope_theta", "global_rope_theta", "rotary_emb_base"),
        "rope.freq_base_swa": real("local_rope_theta", "rope_local_base_freq"),
    }
    return {
        "general.architecture": kind,
        "tokenizer.ggml.model": "none",
        "tokenizer.ggml.token_type_count": config.get("type_vocab_size", 1),
        **{f"{kind}.{key}": value for key, value in found.items() if value is not None},
    }


def first_place(config: Config) -> int:
    """Return the row of the table of positions that a text's first token has."""
    after_padding = config["model_type"] in PLACES_AFTER_PADDING
    return config["pad_token_id"] + 1 if after_padding else 0


def _local_layers(config: Config, layers: int) -> list[bool]:
    """Return for each layer whether its tokens see only those near them."""
    if kinds := config.get("layer_types"):
        return [kind == "sliding_attention" for kind in kinds]
    return [layer % config["global_attn_every_n_layers"] != 0 for layer in range(layers)]


def values(config: Config, name: str, tensor: Any) -> Any:  # noqa: ANN401 - a NumPy array
    """Return a tensor as llama.cpp wants it, by the name that it has in the checkpoint."""
    if name.endswith("position_embeddings.weight"):
        return tensor[first_place(config) :]
    if config["model_type"] == "gemma3_text" and name.endswith("norm.weight"):
        return tensor + 1  # Gemma multiplies by 1 + w, llama.cpp by w
    return tensor


def write(folder: Path, out: Path, stored: str, more: Config | None = None) -> None:
    """Write the checkpoint in a folder; matrices are `stored` as one of `STORED`.

    `more` has keys and values of the tokenizer.
    """
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    said = facts(config) | dict(more or {})
    kind = said.pop("general.architecture")
    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    layers = said[f"{kind}.block_count"]
    names = gguf.get_tensor_name_map(numbers[kind], layers)
    writer = gguf.GGUFWriter(out, kind)
    for key, value in said.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, _type_of(value))
    for name, tensor in load_file(folder / "model.safetensors").items():
        plain = name.removeprefix("bert.")
        if plain.startswith(IGNORED):
            continue
        theirs = names.get_name(plain, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            raise ValueError(f"llama.cpp's {kind} has no tensor like {name}")
        # norms, biases and small tables stay float32, as in llama.cpp's own converter
        whole = tensor.ndim == 1 or theirs.startswith(("position_embd", "token_types"))
        whole = whole or "attn_rel_b" in theirs
        type_ = gguf.GGMLQuantizationType["F32" if whole else stored.upper()]
        full = values(config, plain, tensor.astype(np.float32))
        writer.add_tensor(theirs, gguf.quants.quantize(full, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _type_of(value: Any) -> Any:  # noqa: ANN401 - a type of the gguf package
    import gguf

    if isinstance(value, int) and not isinstance(value, bool):
        return gguf.GGUFValueType.UINT32
    return gguf.GGUFValueType.get_type(value)
