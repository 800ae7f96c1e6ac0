"""How long a text may be according to a folder's files: where it is cut, and what weights allow.

Files take precedence as in sentence-transformers 6.2, `base/modules/transformer.py`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emberd.errors import ModelLoadError

_T5_POSITIONS = 512
LEAST_TOKENS = 3  # of a text: its start token, its end token, and one of its own
NO_LIMIT = 2**31  # tokenizer_config.json says a larger number for "as long as you like"


def read_limit(
    folder: Path, tokenizer: Mapping[str, Any], transformer: Mapping[str, Any], named: str
) -> tuple[int | None, str]:
    """Return where these files say that texts are cut, in tokens, and which file says so."""
    arguments = transformer.get("processor_kwargs", transformer.get("tokenizer_args"))
    if isinstance(arguments, dict):
        found = _tokens(folder / named, "model_max_length", arguments.get("model_max_length"))
        if found:
            return found, f"{named} (model_max_length)"
    found = _tokens(folder / named, "max_seq_length", transformer.get("max_seq_length"))
    if found:
        return found, f"{named} (max_seq_length)"
    key = "model_max_length" if tokenizer.get("model_max_length") is not None else "max_len"
    return (
        _tokens(folder / "tokenizer_config.json", key, tokenizer.get(key)),
        f"tokenizer_config.json ({key})",
    )


def _tokens(path: Path, key: str, value: object) -> int | None:
    """Return a number of tokens; None if there is none, or it is so large that it means none."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= LEAST_TOKENS:
        return None if math.isinf(value) or value > NO_LIMIT else int(value)
    raise ModelLoadError(
        f"{path}: {key} is {str(value)[:40]!r}, which is not a number of tokens.",
        hint=f"This is where texts are cut: write {LEAST_TOKENS} or more, or remove the key.",
    )


def read_positions(config: Mapping[str, Any]) -> int | None:
    """Return the most tokens that the checkpoint's positions allow, or None if it does not say.

    In the RoBERTa family, positions start after the padding index, so those up to it are never used
    (fairseq's convention, kept by Hugging Face's `create_position_ids_from_input_ids`). The index
    is 1 unless a RoBERTa config says otherwise; it is fixed in MPNet's code. XLNet says -1. T5 has
    no table, only the length that it was trained with.
    """
    try:
        kind = str(config.get("model_type", ""))
        if kind == "t5":
            return int(config.get("n_positions") or _T5_POSITIONS)
        # nomic_bert has GPT-2's name, too: for what it can take, not what it was trained with.
        positions = int(config.get("n_positions") or config["max_position_embeddings"])
        stated = config.get("pad_token_id")
        padding = 1 if stated is None or kind == "mpnet" else int(stated)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    unused = padding + 1 if kind in ("roberta", "xlm-roberta", "mpnet") else 0
    return positions - unused if positions > unused else None
