"""Where texts are cut, according to a folder's files.

Files take precedence as in sentence-transformers 6.2, `base/modules/transformer.py`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emberd.errors import ModelLoadError

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
