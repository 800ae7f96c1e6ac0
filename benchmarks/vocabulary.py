"""A tokenizer with as many tokens as a model has, since reading it is part of a start.

The tokens of a smaller one come first; the others are made of random letters.
"""

import json
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from made import TOKENIZER_FILES

LEAST = 100_000  # tokens; smaller vocabularies are read in no time
CONTINUES = "##"  # WordPiece's mark
BEGINS = "\u2581"  # SentencePiece's
LETTERS = ord("a"), ord("z") + 1
UNKNOWN = "<unk>"
SPECIAL = ("<s>", "<pad>", "</s>", UNKNOWN)


def write(tokenizer: Path, folder: Path, tokens: int, *, unigram: bool) -> None:
    """Put a tokenizer into a model's folder: the WordPiece one of another, or a larger one.

    That is of SentencePiece's Unigram kind, which takes more time and memory, or else of merges.
    """
    for file in TOKENIZER_FILES:
        if (tokenizer / file).is_file():
            shutil.copy(tokenizer / file, folder)
    if tokens < LEAST:
        return
    words = list(json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"])
    model = _unigram(words, tokens) if unigram else _merged(words, tokens)
    (folder / "tokenizer.json").write_text(json.dumps(_around(model)))


def _unigram(words: list[str], tokens: int) -> dict[str, object]:
    """Return a model of most likely pieces."""
    like = [
        word.removeprefix(CONTINUES) if word.startswith(CONTINUES) else BEGINS + word
        for word in words
    ]
    pieces = dict.fromkeys([*SPECIAL, *like])
    others = _made_up()
    while len(pieces) < tokens:
        pieces.setdefault(next(others))
    return {
        "type": "Unigram",
        "unk_id": SPECIAL.index(UNKNOWN),
        "byte_fallback": False,
        "vocab": [[piece, -8.0 - 8 * number / tokens] for number, piece in enumerate(pieces)],
    }


def _merged(words: list[str], tokens: int) -> dict[str, object]:
    """Return a model of merges, in which words grow from their beginning."""
    letters = sorted({letter for word in words for letter in word} | {BEGINS})
    pieces = dict.fromkeys([*SPECIAL, *letters])
    merges = []
    others = (piece for piece in _made_up() if piece.startswith(BEGINS))
    for word in chain((BEGINS + word for word in words if not word.startswith(CONTINUES)), others):
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces and len(pieces) < tokens:
                pieces[word[:end]] = None
                merges.append([word[: end - 1], word[end - 1]])
        if len(pieces) == tokens:
            break
    return {
        "type": "BPE",
        "unk_token": UNKNOWN,
        "vocab": {piece: number for number, piece in enumerate(pieces)},
        "merges": merges,
    }


def _made_up() -> Iterator[str]:
    letters = np.random.default_rng(0)
    while True:
        made = bytes(letters.integers(*LETTERS, letters.integers(4, 10), np.uint8)).decode()
        yield BEGINS + made if letters.integers(2) else made


def _around(model: dict[str, object]) -> dict[str, object]:
    """Return the tokenizer that has a model: words in lower case, `<s>` and `</s>` around them."""
    first, _, last, _ = SPECIAL
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
        "model": model,
    }  # fmt: skip
