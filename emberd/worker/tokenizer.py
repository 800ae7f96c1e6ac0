"""Texts -> token ids, cut at max_tokens; which texts were cut is never lost."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emberd.errors import ModelLoadError

if TYPE_CHECKING:
    from tokenizers import Encoding

LONG_CHARS_PER_TOKEN = 64
UNREADABLE = (OSError, ValueError, OverflowError, RecursionError)


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
        # Imported here, in the thread that loads the tokenizer while the backend loads.
        from tokenizers import Tokenizer as Library

        path = folder / "tokenizer.json"
        try:
            self._library = Library.from_file(str(path))
            self._library.no_padding()
            self._library.enable_truncation(max_tokens)
            self._special = len(self._library.encode("").ids)
        except BaseException as error:  # noqa: BLE001 - a panic of the library is no Exception
            raise ModelLoadError(
                f"{path.name} of {folder} cannot be read: {str(error)[:200]}.",
                hint="Remove the folder and pull the model again, or mend it if it is yours.",
            ) from None
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

    def describe(self, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        """Return each text's tokens, uncut: `id`, `text`, `special`, and where it is in the text.

        `start` and `stop` count characters; a special token stands nowhere.
        """
        return [
            list(_described(text, encoding))
            for text, encoding in zip(texts, self._library.encode_batch(list(texts)), strict=True)
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


def _described(text: str, encoding: "Encoding") -> Iterator[dict[str, Any]]:
    """Yield the tokens of a text that may be in several parts, each with special tokens around."""
    parts = [encoding, *encoding.overflowing]
    for number, part in enumerate(parts):
        words = [place for place, mask in enumerate(part.special_tokens_mask) if not mask]
        first = 0 if number == 0 or not words else words[0]
        last = len(part.ids) if part is parts[-1] or not words else words[-1] + 1
        for place in range(first, last):
            special = bool(part.special_tokens_mask[place])
            start, stop = part.offsets[place]
            yield {
                "id": part.ids[place],
                "text": part.tokens[place] if special else text[start:stop],
                "special": special,
                "start": None if special else start,
                "stop": None if special else stop,
            }


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
    except (*UNREADABLE, KeyError, TypeError, AttributeError):
        return None
    return positions - padding - 1 if kind in ("roberta", "xlm-roberta", "mpnet") else positions
