"""Texts -> token ids, cut at max_tokens; which texts were cut is never lost."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer as Library

from emberd.errors import ModelLoadError

LONG_CHARS_PER_TOKEN = 64


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as the model is fed it: special tokens included, padding not.

    `uncut` is how many tokens the text has, or a very long one at least; more than `len(ids)` means
    that it was cut.
    """

    ids: list[int]
    uncut: int

    @property
    def is_cut(self) -> bool:
        """Whether something of the text is missing in `ids`."""
        return self.uncut > len(self.ids)


class Tokenizer:
    """A checkpoint's tokenizer.json; the truncation and padding it asks for are overridden.

    (MiniLM's says: cut at 128 and pad to 128.)
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        path = folder / "tokenizer.json"
        try:
            self._library = Library.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - the library raises Exception itself
            raise ModelLoadError(
                f"{path.name} of {folder} cannot be read: {str(error)[:200]}.",
                hint="Remove the folder and pull the model again.",
            ) from None
        self._library.no_padding()
        self._library.enable_truncation(max_tokens)
        self._special = len(self._library.encode("").ids)
        self._long_chars = LONG_CHARS_PER_TOKEN * max_tokens

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenize, outside Python's lock; thread-safe."""
        return [
            Tokens(
                encoding.ids,
                len(encoding.ids)
                + sum(len(rest.ids) - self._special for rest in encoding.overflowing),
            )
            for encoding in self._library.encode_batch_fast([self._start_of(t) for t in texts])
        ]

    def _start_of(self, text: str) -> str:
        """Return as much of a very long text as fills the model; the rest cannot matter.

        Megabytes would otherwise be tokenized for the sake of the first few hundred tokens, at
        seconds and gigabytes each. The cut is at white space, where tokenizers split anyway.
        """
        chars = self._long_chars
        while len(text) > chars:
            start = text[:chars]
            words, _, half_a_word = start.rpartition(" ")
            start = words if len(half_a_word) < chars // 2 else start
            if self._library.encode(start).overflowing:
                return start
            chars *= 4
        return text


def limit_of_checkpoint(folder: Path) -> int | None:
    """Return the most tokens that the checkpoint's positions allow, or None when it does not say.

    Positions of the RoBERTa family start after the padding index, so the ones up to it are never
    used (fairseq's convention, kept by Hugging Face's `create_position_ids_from_input_ids`). The
    index is 1 unless a RoBERTa config says otherwise; MPNet's code has it fixed.
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
        positions = int(config["max_position_embeddings"])
        kind = str(config.get("model_type", ""))
        stated = config.get("pad_token_id")
        padding = 1 if stated is None or kind == "mpnet" else int(stated)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return positions - padding - 1 if kind in ("roberta", "xlm-roberta", "mpnet") else positions
