"""A tiny sparse model of each architecture, and what sentence-transformers makes of some texts.

Each is the encoder of `tiny/` with a masked language model's head of random weights. Writes
`sparse/NAME/` in the layout of a Hub repository; `reference.json` there has texts and what
SparseEncoder makes of them in float32, as indices and values. The layouts differ: `bert` and
`roberta` list Transformer and SpladePooling, `modernbert` and `xlm-roberta` list nothing, and
`distilbert` is laid out as OpenSearch's models are: a Router that gives queries the weights of a
table, and `log1p_relu` for documents. `bge-m3` has a linear layer instead of the head; what
FlagEmbedding makes of its output was written down here.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from make_rerankers import SEED, TEXTS, model_limit
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer

HERE = Path(__file__).parent
MODULES = "sentence_transformers.sparse_encoder.models"
NAMES = ("bert", "distilbert", "modernbert", "roberta", "xlm-roberta")
LISTED = ("bert", "roberta")
ROUTED = "distilbert"
TABLE = "query_0_SparseStaticEmbedding"
POOLING = "document_1_SpladePooling"


def main() -> None:
    """Write all of them."""
    for name in NAMES:
        folder = make(name)
        encoder = SparseEncoder(str(folder), device="cpu", local_files_only=True)
        encoder.max_seq_length = model_limit(folder)
        encode = encoder.encode_document if name == ROUTED else encoder.encode
        found = {
            "documents": rows(encode(list(TEXTS), batch_size=1, convert_to_sparse_tensor=False))
        }
        if name == ROUTED:
            found["queries"] = rows(
                encoder.encode_query(list(TEXTS), convert_to_sparse_tensor=False)
            )
        write(folder, found)
    folder = make_bge_m3()
    write(folder, {"documents": rows(weigh(folder))})


def make(name: str) -> Path:
    """Write the model and what describes it."""
    source, folder = HERE / "tiny" / name, empty(name)
    torch.manual_seed(SEED)
    config = AutoConfig.from_pretrained(source)
    model = AutoModelForMaskedLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(SEED)
    weights = load_file(source / "model.safetensors")
    prefix = f"{model.base_model_prefix}."
    state = model.state_dict()
    for key, tensor in state.items():
        known = weights.get(key.removeprefix(prefix), weights.get(key))
        if known is not None:
            tensor.copy_(known)
    for key, tensor in state.items():
        if key.startswith(prefix):
            continue
        if key.endswith(("norm.weight", "LayerNorm.weight")):
            tensor.fill_(1.0)
        elif key.endswith(("decoder.bias", "predictions.bias", "projector.bias", "lm_head.bias")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) - 1.5)
        elif "decoder.weight" not in key and "projector.weight" not in key:  # those are tied
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.4)
    model.save_pretrained(folder)
    copy_tokenizer(source, folder)
    if name in LISTED:
        steps = [("", "MLMTransformer"), ("1_SpladePooling", "SpladePooling")]
        write_modules(folder, steps)
        stated = {"pooling_strategy": "max", "word_embedding_dimension": config.vocab_size}
        write_json(folder / "1_SpladePooling" / "config.json", stated)
    if name == ROUTED:
        lay_out_as_opensearch(folder, config.vocab_size)
    return folder


def lay_out_as_opensearch(folder: Path, entries: int) -> None:
    """Write a Router, and a table for queries with a weight for most tokens."""
    write_modules(folder, [("", "Router")])
    types = {"": "MLMTransformer", POOLING: "SpladePooling", TABLE: "SparseStaticEmbedding"}
    write_json(
        folder / "router_config.json",
        {
            "types": {path: f"{MODULES}.{kind}" for path, kind in types.items()},
            "structure": {"query": [TABLE], "document": ["", POOLING]},
            "parameters": {"default_route": "document", "allow_empty_key": True},
        },
    )
    write_json(
        folder / POOLING / "config.json",
        {
            "pooling_strategy": "max",
            "activation_function": "log1p_relu",
            "word_embedding_dimension": entries,
        },
    )
    generator = torch.Generator().manual_seed(SEED)
    weight = torch.relu(torch.randn(entries, generator=generator) + 1.0) * 3
    (folder / TABLE).mkdir()
    save_file({"weight": weight}, folder / TABLE / "model.safetensors")
    write_json(folder / TABLE / "config.json", {"frozen": False})
    copy_tokenizer(folder, folder / TABLE)


def make_bge_m3() -> Path:
    """Write the encoder of XLM-RoBERTa with a linear layer beside it, as BGE-M3 has it."""
    source, folder = HERE / "tiny" / "xlm-roberta", empty("bge-m3")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(source / name, folder)
    copy_tokenizer(source, folder)
    generator = torch.Generator().manual_seed(SEED)
    size = AutoConfig.from_pretrained(source).hidden_size
    layer = {
        "weight": torch.randn(1, size, generator=generator) * 0.4,
        "bias": torch.zeros(1),
    }
    save_file(layer, folder / "sparse_linear.safetensors")
    return folder


def weigh(folder: Path) -> torch.Tensor:
    """Return what FlagEmbedding's `BGEM3FlagModel` gives: `(N, V)`.

    A token's weight is relu of the layer; a token that occurs more than once has its largest, and
    cls, eos, pad and unk have none.
    """
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    layer = load_file(folder / "sparse_linear.safetensors")
    special = tokenizer.convert_tokens_to_ids(["<s>", "</s>", "<pad>", "<unk>"])
    vectors = torch.zeros(len(TEXTS), model.config.vocab_size)
    for row, text in enumerate(TEXTS):
        given = tokenizer(
            text, truncation=True, max_length=model_limit(folder), return_tensors="pt"
        )
        tokens = model(**given).last_hidden_state[0]
        weights = torch.relu(tokens @ layer["weight"].T + layer["bias"])[:, 0]
        for token, weight in zip(given["input_ids"][0].tolist(), weights, strict=True):
            if token not in special:
                vectors[row, token] = torch.maximum(vectors[row, token], weight)
    return vectors


def rows(vectors: torch.Tensor) -> list[dict[str, Any]]:
    """Return each row as the indices and values of what is not zero."""
    found = []
    for row in vectors:
        indices = torch.nonzero(row)[:, 0].tolist()
        found.append({"indices": indices, "values": [float(row[index]) for index in indices]})
    return found


def empty(name: str) -> Path:
    """Return a new folder."""
    folder = HERE / "sparse" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy what tokenizes."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder)


def write_modules(folder: Path, steps: list[tuple[str, str]]) -> None:
    """Write modules.json."""
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": f"{MODULES}.{kind}"}
        for index, (path, kind) in enumerate(steps)
    ]
    if steps[0][1] == "Router":
        listed[0]["type"] = "sentence_transformers.models.Router"
    write_json(folder / "modules.json", listed)
    write_json(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})


def write(folder: Path, found: dict[str, Any]) -> None:
    """Write the reference."""
    reference = {"texts": TEXTS, "max_tokens": model_limit(folder), **found}
    (folder / "reference.json").write_text(json.dumps(reference) + "\n")


def write_json(path: Path, values: object) -> None:
    """Write a JSON file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
