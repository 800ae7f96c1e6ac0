"""A tokenizer with as many tokens as a model has, since reading it is part of a start.

The tokens of a smaller one come first; the others are made of random letters.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from made import TOKENIZER_FILES

LEAST = 100_000  # tokens; smaller vocabularies are read in no time
CONTINUES = "##"  # WordPiece's mark
BEGINS = "\u2581"  # SentencePiece's
LETTERS = ord("a"), ord("z") + 1
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def write(tokenizer: Path, folder: Path, tokens: int) -> None:
    """Put a tokenizer into a model's folder: the WordPiece one of another, or a larger one."""
    for file in TOKENIZER_FILES:
        if (tokenizer / file).is_file():
            shutil.copy(tokenizer / file, folder)
    if tokens < LEAST:
        return
    words = json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").write_text(json.dumps(_unigram(list(words), tokens)))


def _unigram(words: list[str], tokens: int) -> dict[str, object]:
    """Return a tokenizer as SentencePiece makes them: most likely pieces, `tokens` of them."""
    like = [
        word.removeprefix(CONTINUES) if word.startswith(CONTINUES) else BEGINS + word
        for word in words
    ]
    pieces = dict.fromkeys([*SPECIAL, *like])
    letters = np.random.default_rng(0)
    while len(pieces) < tokens:
        made = bytes(letters.integers(*LETTERS, letters.integers(4, 10), np.uint8)).decode()
        pieces.setdefault(BEGINS + made if letters.integers(2) else made)
    first, _, last, unknown = SPECIAL
    ids = {name: number for number, name in enumerate(SPECIAL)}
    around = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in (first, last)}
    frame = [{"SpecialToken": {"id": name, "type_id": 0}} for name in (first, last)]
    frame.insert(1, {"Sequence": {"id": "A", "type_id": 0}})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": ids[name], "content": name, "special": True, "normalized": False,
                "single_word": False, "lstrip": False, "rstrip": False,
            }
            for name in SPECIAL
        ],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Metaspace", "replacement": BEGINS, "prepend_scheme": "always"},
        "post_processor": {
            "type": "TemplateProcessing", "single": frame, "pair": frame, "special_tokens": around,
        },
        "decoder": None,
        "model": {
            "type": "Unigram",
            "unk_id": ids[unknown],
            "byte_fallback": False,
            "vocab": [[piece, -8.0 - 8 * number / tokens] for number, piece in enumerate(pieces)],
        },
    }  # fmt: skip
