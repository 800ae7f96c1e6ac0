"""A BERT with random weights and a tokenizer of a few words, for tests without downloads.

It embeds, or with a classifier it re-ranks.
"""

import json
from pathlib import Path
from typing import Final

import numpy as np

TINY_DIMENSIONS: Final = 64
TINY_ENTRIES: Final = 96
_SIZES = {
    "hidden_size": TINY_DIMENSIONS,
    "intermediate_size": 128,
    "max_position_embeddings": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": TINY_ENTRIES,
}
_CONFIG = _SIZES | {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


def tiny_bert(folder: Path, *, seed: int = 1, masked_lm: bool = False) -> None:
    """Write the model into a folder; another seed gives other weights.

    Its vectors have `TINY_DIMENSIONS` numbers. It states no pooling, so any works. With
    `masked_lm`, it has the head of a sparse model, whose vectors have `TINY_ENTRIES` numbers.
    """
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("config.json").write_text(json.dumps(_CONFIG, indent=2))
    tensors = {
        name: draw.normal(float("LayerNorm.weight" in name), 0.1, shape).astype(np.float32)
        for name, shape in _shapes(masked_lm=masked_lm).items()
    }
    save_file(tensors, folder / "model.safetensors")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "bird", "cat", "dog", "eats", "is", "the"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no secret
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def tiny_reranker(folder: Path, *, seed: int = 1) -> None:
    """Write the same with BERT's pooler and a classifier of one label, which reads pooling `cls`.

    Logits differ by whole numbers.
    """
    from safetensors.numpy import load_file, save_file

    tiny_bert(folder, seed=seed)
    classifier = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    (folder / "config.json").write_text(json.dumps({**_CONFIG, **classifier}, indent=2))
    draw, size = np.random.default_rng(seed), TINY_DIMENSIONS
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, outputs in (("pooler.dense", size), ("classifier", 1)):
        tensors[f"{name}.weight"] = draw.normal(0, 1, (outputs, size)).astype(np.float32)
        tensors[f"{name}.bias"] = draw.normal(0, 1, outputs).astype(np.float32)
    save_file(tensors, path)


def _shapes(*, masked_lm: bool) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by name."""
    size, wide = _SIZES["hidden_size"], _SIZES["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (_SIZES["vocab_size"], size),
        "embeddings.position_embeddings.weight": (_SIZES["max_position_embeddings"], size),
        "embeddings.token_type_embeddings.weight": (_SIZES["type_vocab_size"], size),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{n}" for n in range(_SIZES["num_hidden_layers"])):
        for name, rows, columns in (
            ("attention.self.query", size, size),
            ("attention.self.key", size, size),
            ("attention.self.value", size, size),
            ("attention.output.dense", size, size),
            ("intermediate.dense", wide, size),
            ("output.dense", size, wide),
        ):
            shapes[f"{layer}.{name}.weight"] = (rows, columns)
            shapes[f"{layer}.{name}.bias"] = (rows,)
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    if masked_lm:
        shapes["cls.predictions.transform.dense.weight"] = (size, size)
        shapes["cls.predictions.transform.dense.bias"] = (size,)
        shapes["cls.predictions.bias"] = (TINY_ENTRIES,)
        norms.append("cls.predictions.transform.LayerNorm")
    for norm in norms:
        shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (size,)
    return shapes
