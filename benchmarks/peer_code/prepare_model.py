"""Converts a checkpoint to the formats that the peers read, and computes reference vectors.

Runs in the environment of sentence-transformers:

    python prepare_model.py MODEL_FOLDER OUT_FOLDER [TEXTS.json]

Without texts, only the ONNX file is written, which needs no package of llama.cpp. With them, it
writes OUT_FOLDER/onnx/ (model.onnx and its tokenizer), model.gguf, reference.json (unit vectors of
the texts, by sentence-transformers in float32, cut at 512 tokens).
"""

import json
import shutil
import sys
from pathlib import Path

import to_gguf
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

MAX_TOKENS = 512


class Encoder(torch.nn.Module):
    """Token vectors, as fastembed expects them; it pools and normalizes itself."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.bert = AutoModel.from_pretrained(folder, dtype=torch.float32)

    def forward(self, input_ids, attention_mask, token_type_ids):  # noqa: ANN001, ANN201
        """`(B, T)` three times -> `(B, T, D)`."""
        return self.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


def write_onnx(folder: Path, out: Path) -> None:
    """Export with variable batch size and length."""
    out.mkdir(parents=True)
    for path in folder.glob("*.json"):
        shutil.copy(path, out)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    free = {name: {0: "texts", 1: "tokens"} for name in (*names, "last_hidden_state")}
    example = torch.ones((2, 8), dtype=torch.int64)
    torch.onnx.export(
        Encoder(folder).eval(),
        (example, example, torch.zeros_like(example)),
        str(out / "model.onnx"),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes=free,
        opset_version=17,
        dynamo=False,
    )


def write_gguf(folder: Path, out: Path) -> None:
    """Write a BERT in float32, with its tokenizer."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    control, normal = 3, 1  # token types of llama.cpp's
    special = {
        "unknown": "[UNK]",
        "seperator": "[SEP]",
        "padding": "[PAD]",
        "mask": "[MASK]",
        "bos": "[CLS]",
        "eos": "[SEP]",
    }  # fmt: skip - llama.cpp spells them so
    tokenizer = {
        "model": "bert",
        "tokens": [_piece(word) for word in words],
        "token_type": [control if _is_special(word) else normal for word in words],
        "add_bos_token": True,
        "add_eos_token": True,
        **{f"{name}_token_id": words.index(word) for name, word in special.items()},
    }
    more = {f"tokenizer.ggml.{key}": value for key, value in tokenizer.items()}
    to_gguf.write(folder, out, "f32", more)


def _is_special(word: str) -> bool:
    return word.startswith("[") and word.endswith("]")


def _piece(word: str) -> str:
    """Mark the words, not their continuations: the opposite of WordPiece."""
    if _is_special(word):
        return word
    return word[2:] if word.startswith("##") else "\u2581" + word


def write_reference(folder: Path, out: Path, texts: list[str]) -> None:
    """Embed with sentence-transformers, one text at a time."""
    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = MAX_TOKENS
    vectors = model.encode(texts, batch_size=1, normalize_embeddings=True)
    out.write_text(json.dumps(vectors.tolist()))


def main() -> None:
    """Write all of them."""
    folder, out, *texts = map(Path, sys.argv[1:])
    write_onnx(folder, out / "onnx")
    if texts:
        write_gguf(folder, out / "model.gguf")
        write_reference(folder, out / "reference.json", json.loads(texts[0].read_text()))


if __name__ == "__main__":
    main()
