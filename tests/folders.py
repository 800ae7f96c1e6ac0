"""Model folders that say something of themselves: the tiny checkpoints, with files changed.

Each is made anew where it is wanted, here and by `reference/make_folders.py`, which has
sentence-transformers embed `TEXTS` with it. Plain Python: the two run in different environments.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TINY = Path(__file__).parent / "reference" / "tiny"
GONE = ...  # in the place of a value: the key is removed

TEXTS = (
    "HELLO World",
    "hello world",
    "The kettle is on; Ärger in Öl.",
    "tea 明天 7",
    "",
    "One Word and another " * 12,
)
QUERY = "Query: "

Change = Mapping[str, Any]
"""Keys of a JSON file and their values; `GONE` removes one."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A tiny checkpoint with other files.

    `files` has what changes in each JSON file (None: there is no such file). `normalizer` changes
    that of tokenizer.json. `prompt` goes before each text; `max_tokens` is where they are cut.
    """

    kind: str = "bert"
    files: Mapping[str, Change | None] = field(default_factory=dict)
    normalizer: Change = field(default_factory=dict)
    prompt: str = ""
    pooling: str = "mean"
    max_tokens: int = 40

    def write(self, target: Path, weights: Callable[..., Any] = shutil.copy) -> Path:
        """Make it in `target`, which may exist; `weights` copies them."""
        source = TINY / self.kind
        for path in source.rglob("*"):
            if path.is_file() and not path.name.startswith("reference."):
                copy = target / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                (weights if path.suffix == ".safetensors" else shutil.copy)(path, copy)
        changes = dict(self.files)
        if self.normalizer:
            own = json.loads((target / "tokenizer.json").read_bytes())["normalizer"]
            changes["tokenizer.json"] = {"normalizer": own | dict(self.normalizer)}
        for name, change in changes.items():
            rewrite(target / name, change)
        return target


def rewrite(path: Path, change: Change | None) -> None:
    """Change keys of a JSON file, which need not exist; None removes the file."""
    if change is None:
        path.unlink()
        return
    values = json.loads(path.read_bytes()) if path.exists() else {}
    values = {key: value for key, value in (values | dict(change)).items() if value is not GONE}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


BERT, TOKENIZER, POOLING = (
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
)
CASED = {"lowercase": False}
UNSAID = dict.fromkeys(("do_lower_case", "strip_accents", "tokenize_chinese_chars"), GONE)
NO_CLASS = {**UNSAID, "tokenizer_class": "PreTrainedTokenizerFast"}

FOLDERS: Mapping[str, Folder] = {
    # where texts are cut
    "max_seq_length": Folder(files={BERT: {"max_seq_length": 16}}, max_tokens=16),
    "max_seq_length over model_max_length": Folder(
        files={BERT: {"max_seq_length": 24}, TOKENIZER: {"model_max_length": 16}}, max_tokens=24
    ),
    "model_max_length": Folder(
        files={BERT: None, TOKENIZER: {"model_max_length": 16}}, max_tokens=16
    ),
    "max_seq_length null": Folder(
        files={BERT: {"max_seq_length": None}, TOKENIZER: {"model_max_length": 16}}, max_tokens=16
    ),
    "max_len": Folder(
        files={BERT: None, TOKENIZER: {"model_max_length": GONE, "max_len": 16}}, max_tokens=16
    ),
    "positions": Folder(files={BERT: None, TOKENIZER: {"model_max_length": 1e30}}),
    "nothing but positions": Folder(files={BERT: None, TOKENIZER: {"model_max_length": GONE}}),
    "tokenizer_args": Folder(
        files={BERT: {"max_seq_length": 24, "tokenizer_args": {"model_max_length": 16}}},
        max_tokens=16,
    ),
    "sentence_roberta_config": Folder(
        kind="roberta",
        files={BERT: None, "sentence_roberta_config.json": {"max_seq_length": 16}},
        max_tokens=16,
    ),
    "sentence_xlm-roberta_config": Folder(
        kind="xlm-roberta",
        files={BERT: None, "sentence_xlm-roberta_config.json": {"max_seq_length": 16}},
        max_tokens=16,
    ),
    "an empty sentence_bert_config": Folder(
        files={
            BERT: {"max_seq_length": GONE, "do_lower_case": GONE},
            "sentence_distilbert_config.json": {"max_seq_length": 16},
        },
        max_tokens=16,
    ),
    # upper and lower case
    "do_lower_case": Folder(
        files={BERT: {"do_lower_case": True}, TOKENIZER: NO_CLASS}, normalizer=CASED
    ),
    "do_lower_case and a tokenizer that does": Folder(
        files={BERT: {"do_lower_case": True}, TOKENIZER: NO_CLASS}
    ),
    "do_lower_case of RoBERTa": Folder(kind="roberta", files={BERT: {"do_lower_case": True}}),
    "do_lower_case of XLM-RoBERTa": Folder(
        kind="xlm-roberta", files={BERT: {"do_lower_case": True}}
    ),
    "do_lower_case of the tokenizer": Folder(
        files={TOKENIZER: {"do_lower_case": True}}, normalizer=CASED
    ),
    "do_lower_case false of the tokenizer": Folder(files={TOKENIZER: {"do_lower_case": False}}),
    "both ways": Folder(files={BERT: {"do_lower_case": True}, TOKENIZER: {"do_lower_case": False}}),
    "strip_accents": Folder(files={TOKENIZER: {"strip_accents": False}}),
    "tokenize_chinese_chars": Folder(files={TOKENIZER: {"tokenize_chinese_chars": False}}),
    "do_lower_case of MPNet": Folder(
        kind="mpnet", files={TOKENIZER: {"do_lower_case": False}}, max_tokens=130
    ),
    # prompts
    "a prompt": Folder(prompt=QUERY),
    "include_prompt": Folder(files={POOLING: {"include_prompt": False}}, prompt=QUERY),
    "include_prompt and cls": Folder(
        files={
            POOLING: {
                "include_prompt": False,
                "pooling_mode_cls_token": True,
                "pooling_mode_mean_tokens": False,
            }
        },
        prompt=QUERY,
        pooling="cls",
    ),
    "include_prompt and last": Folder(
        kind="qwen3",
        files={POOLING: {"include_prompt": False}},
        prompt=QUERY,
        pooling="last",
        max_tokens=64,
    ),
    "include_prompt of RoBERTa": Folder(
        kind="roberta", files={POOLING: {"include_prompt": False}}, prompt=QUERY
    ),
    # arithmetic
    "gelu_new": Folder(files={"config.json": {"hidden_act": "gelu_new"}}),
    "gelu_pytorch_tanh": Folder(
        kind="mpnet", files={"config.json": {"hidden_act": "gelu_pytorch_tanh"}}, max_tokens=130
    ),
    "relu": Folder(files={"config.json": {"hidden_act": "relu"}}),
}
