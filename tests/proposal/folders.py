"""Small models in folders that say, or leave out, what an entry needs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emberd.backends.tiny_bert import tiny_bert
from emberd.proposal.lines import Chosen
from emberd.proposal.place import find_place
from emberd.proposal.proposal import Proposal, propose

ST = "sentence_transformers.models"
MODULES = [
    {"type": f"{ST}.Transformer", "path": ""},
    {"type": f"{ST}.Pooling", "path": "1_Pooling"},
    {"type": f"{ST}.Normalize", "path": "2_Normalize"},
]
CARD = """---
language:
- en
- no
license: apache-2.0
base_model: me/base
model-index: [{name: x, results: [{value: 1}]}]
---
# A model
"""


def write(folder: Path, files: Mapping[str, Any]) -> Path:
    """Write files, JSON unless they are text, and return the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)
    return folder


def described(folder: Path, **more: Any) -> Path:  # noqa: ANN401 - whatever JSON holds
    """Write a tiny BERT with a Pooling step, a limit and a card; `more` changes its config.json."""
    tiny_bert(folder)
    config = json.loads((folder / "config.json").read_text())
    return write(
        folder,
        {
            "config.json": {**config, **more},
            "modules.json": MODULES,
            "1_Pooling/config.json": {
                "word_embedding_dimension": 64,
                "pooling_mode_mean_tokens": True,
            },
            "sentence_bert_config.json": {"max_seq_length": 32},
            "README.md": CARD,
        },
    )


def proposed(folder: Path, chosen: Chosen | None = None) -> Proposal:
    """Return what emberd proposes for a folder."""
    place = find_place(str(folder), None, hub=folder / "hub")
    return propose(place, "mine", chosen or Chosen(), usual_backend="openvino")
