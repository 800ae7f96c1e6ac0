"""How a tokenizer normalizes texts: by tokenizer.json, or by what overrides it.

transformers' BERT tokenizers follow tokenizer_config.json, and sentence-transformers has its own
option. Sources: sentence-transformers 6.2, `base/modules/transformer.py`; transformers 5.23,
`tokenization_utils_base.py` and `models/bert/tokenization_bert.py`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emberd.errors import ModelLoadError
from emberd.files import read
from emberd.models.json_files import MEND

_NORMALIZED_BY_CLASS = {"BertTokenizer", "DistilBertTokenizer", "MPNetTokenizer"}
"""Tokenizers of transformers that configure a BertNormalizer from tokenizer_config.json."""

_BERT_NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""Its options: their names in tokenizer_config.json, and in tokenizer.json."""


def replacing_normalizer(
    file: Path, tokenizer: Mapping[str, Any], *, usual_class: str, lower_case: bool
) -> tuple[Mapping[str, Any] | None, bool]:
    """Return what replaces tokenizer.json's normalizer, and whether only that lower-cases texts.

    Args:
        file: tokenizer.json.
        tokenizer: what tokenizer_config.json says.
        usual_class: the tokenizer that transformers takes where that file does not name one.
        lower_case: sentence-transformers' own option, which lower-cases texts before anything else.
    """
    kind = tokenizer.get("tokenizer_class") or usual_class
    known = _BERT_NORMALIZER if str(kind).removesuffix("Fast") in _NORMALIZED_BY_CLASS else {}
    stated = {ours: tokenizer[key] for key, ours in known.items() if key in tokenizer}
    if not (stated or lower_case):
        return None, False
    own = used = read_normalizer(file)
    if own and own.get("type") == "BertNormalizer":
        used = own | stated
    if lower_case and not _lowers(used):
        inner = used.get("normalizers", [used]) if used else []
        used = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *inner]}
    return (None, False) if used == own else (used, _lowers(used) and not _lowers(own))


def _lowers(normalizer: Mapping[str, Any] | None) -> bool:
    """Say whether it lower-cases texts before any step that depends on their case."""
    if not normalizer:
        return False
    steps = normalizer.get("normalizers")
    if isinstance(steps, list):
        return any(isinstance(step, dict) and step.get("type") == "Lowercase" for step in steps)
    return normalizer.get("type") == "Lowercase" or normalizer.get("lowercase") is True


def read_normalizer(path: Path) -> dict[str, Any] | None:
    """Return the `normalizer` of a tokenizer.json, or None if it has none.

    The file is parsed key by key only up to this one, because the vocabulary, which is nearly all
    of it, comes later.

    Raises:
        ModelLoadError: the file is missing, or damaged before that point.
    """
    decoder, space = json.JSONDecoder(), " \t\n\r"
    try:
        text = read(path).decode()
        place = text.index("{") + 1
        while True:
            place = text.index('"', place)
            key, place = decoder.raw_decode(text, place)
            place = text.index(":", place) + 1
            place += len(text[place : place + 80]) - len(text[place : place + 80].lstrip(space))
            value, place = decoder.raw_decode(text, place)
            if key == "normalizer":
                return value if isinstance(value, dict) else None
            if text[place:].lstrip(space)[:1] != ",":
                return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} cannot be read: {str(error)[:200]}.", hint=MEND) from None
