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

import torch
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

MAX_TOKENS = 512
LAYER = {  # names of transformers' BERT -> names of llama.cpp's (docs of the gguf package)
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}


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
    """Write a BERT in float32."""
    import gguf

    config = json.loads((folder / "config.json").read_text())
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {name: words.index(name) for name in ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]")}

    writer = gguf.GGUFWriter(out, "bert")
    writer.add_name("model")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_token_list([_piece(word) for word in words])
    kinds = [
        gguf.TokenType.CONTROL if word.startswith("[") and word.endswith("]") else
        gguf.TokenType.NORMAL
        for word in words
    ]  # fmt: skip
    writer.add_token_types(kinds)
    writer.add_unk_token_id(special["[UNK]"])
    writer.add_sep_token_id(special["[SEP]"])
    writer.add_pad_token_id(special["[PAD]"])
    writer.add_mask_token_id(special["[MASK]"])
    writer.add_bos_token_id(special["[CLS]"])
    writer.add_eos_token_id(special["[SEP]"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    for name, tensor in load_file(folder / "model.safetensors").items():
        if renamed := _renamed(name):
            writer.add_tensor(renamed, tensor.astype("float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _piece(word: str) -> str:
    """Mark the words, not their continuations: the opposite of WordPiece."""
    if word.startswith("[") and word.endswith("]"):
        return word
    return word[2:] if word.startswith("##") else "\u2581" + word


def _renamed(name: str) -> str | None:
    name = name.removeprefix("bert.")
    if name in EMBEDDINGS:
        return EMBEDDINGS[name]
    if not name.startswith("encoder.layer."):
        return None  # the pooler, which sentence vectors do not use, and position ids
    number, _, rest = name.removeprefix("encoder.layer.").partition(".")
    layer, _, kind = rest.rpartition(".")
    return f"blk.{number}.{LAYER[layer]}.{kind}"


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
