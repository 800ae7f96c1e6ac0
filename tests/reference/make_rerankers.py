"""A tiny re-ranker of each architecture, and what sentence-transformers' CrossEncoder makes of it.

Each is the encoder of `tiny/` with a classifier of random weights, scaled so that logits span about
10 in both directions, and with a tokenizer that knows pairs. Writes `rerankers/NAME/` in the layout
of a Hub repository; `reference.json` there has pairs of texts and their logits, in float32.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForSequenceClassification

HERE = Path(__file__).parent
SEED = 20
SPAN = 10.0
CHANGES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "xlm-roberta": {},
    "modernbert": {"classifier_pooling": "mean", "classifier_activation": "gelu"},
    "deberta-v2": {},
}
TEMPLATES = {  # as published: of bert, roberta, xlm-roberta, ModernBERT and DeBERTa
    "bert": "[CLS] $A [SEP] $B:1 [SEP]:1",
    "roberta": "<s> $A </s> </s> $B </s>",
    "xlm-roberta": "<s> $A </s> </s> $B </s>",
    "modernbert": "[CLS] $A [SEP] $B [SEP]",
    "deberta-v2": "[CLS] $A [SEP] $B:1 [SEP]:1",
}
QUERY = "does an ember glow"
TEXTS = (
    "it glows while there is air",
    "a server turns texts into vectors",
    "what does it cost?",
    "",
    "ok",
    "it reads a text, cuts it into tokens, looks up a vector for each of them, and lets every token"
    " look at the others, and at the end one vector is left for all of that",
)


def main() -> None:
    """Write all of them."""
    for name, changes in CHANGES.items():
        make(name, changes)


def make(name: str, changes: dict[str, Any]) -> None:
    """Write one."""
    source, folder = HERE / "tiny" / name, HERE / "rerankers" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = AutoConfig.from_pretrained(source, num_labels=1, **changes)
    torch.manual_seed(SEED)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    generator = torch.Generator().manual_seed(SEED)
    weights = load_file(source / "model.safetensors")
    prefix = f"{model.base_model_prefix}."
    for key, tensor in model.state_dict().items():
        known = weights.get(key.removeprefix(prefix), weights.get(key))
        made = known if known is not None else torch.randn(tensor.shape, generator=generator) * 0.4
        if known is None and key.endswith("norm.weight"):
            made = made + 1.0
        tensor.copy_(made)
    model.save_pretrained(folder)
    tokens(name, source, folder)
    encoder = CrossEncoder(
        str(folder), max_length=model_limit(source), activation_fn=torch.nn.Identity(), device="cpu"
    )
    pairs = [(QUERY, text) for text in TEXTS]
    logits = encoder.predict(pairs, batch_size=1)
    scale_last(folder, SPAN / float(abs(logits).max()))
    encoder = CrossEncoder(
        str(folder), max_length=model_limit(source), activation_fn=torch.nn.Identity(), device="cpu"
    )
    logits = encoder.predict(pairs, batch_size=1)
    reference = {
        "query": QUERY,
        "texts": TEXTS,
        "max_tokens": model_limit(source),
        "logits": [float(each) for each in logits],
    }
    (folder / "reference.json").write_text(json.dumps(reference, indent=1) + "\n")


def model_limit(source: Path) -> int:
    """Return where texts are cut, in tokens."""
    limit: int = json.loads((source / "tokenizer_config.json").read_text())["model_max_length"]
    return limit


def tokens(name: str, source: Path, folder: Path) -> None:
    """Write the tokenizer, which knows pairs as the published ones do."""
    library = Tokenizer.from_file(str(source / "tokenizer.json"))
    pair = TEMPLATES[name]
    special = {word.partition(":")[0] for word in pair.split() if not word.startswith("$")}
    library.post_processor = TemplateProcessing(
        single=pair.split(" $B")[0].replace(" </s> </s>", " </s>"),
        pair=pair,
        special_tokens=[(word, library.token_to_id(word)) for word in sorted(special)],
    )
    library.save(str(folder / "tokenizer.json"))
    shutil.copy(source / "tokenizer_config.json", folder)


def scale_last(folder: Path, factor: float) -> None:
    """Multiply the last layer."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    for key in ("classifier.weight", "classifier.bias", "classifier.out_proj.weight",
                "classifier.out_proj.bias"):  # fmt: skip
        if key in weights:
            weights[key] = weights[key] * factor
    save_file(weights, path, metadata={"format": "pt"})


if __name__ == "__main__":
    with torch.no_grad():
        main()
