"""Texts -> token ids, cut at max_tokens; which texts were cut is never lost."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emberd.errors import ModelLoadError

if TYPE_CHECKING:
    from tokenizers import Encoding

LONG_CHARS_PER_TOKEN = 64
NO_MODEL: Mapping[str, Any] = {"type": "BPE", "vocab": {}, "merges": []}


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as the model is fed it: special tokens included, padding not.

    `uncut` is how many tokens the text has, or a very long one at least; more than `len(ids)` means
    that it was cut. The first `unpooled` of them are a prompt's that shall not be pooled.
    """

    ids: list[int]
    uncut: int
    unpooled: int = 0

    @property
    def is_cut(self) -> bool:
        """Whether something of the text is missing in `ids`."""
        return self.uncut > len(self.ids)


class Tokenizer:
    """A checkpoint's tokenizer.json; the truncation and padding it asks for are overridden.

    (MiniLM's says: cut at 128 and pad to 128.) `normalizer` takes the place of its own, in its
    format; see `registry.folder.Folder`, also for `include_prompt`.
    """

    def __init__(
        self,
        folder: Path,
        max_tokens: int,
        normalizer: Mapping[str, Any] | None = None,
        *,
        include_prompt: bool = True,
    ) -> None:
        # Imported here, in the thread that loads the tokenizer while the backend loads.
        from tokenizers import Tokenizer as Library

        path = folder / "tokenizer.json"
        try:
            self._library = Library.from_file(str(path))
            self._library.no_padding()
            self._library.enable_truncation(max_tokens)
            if normalizer is not None:
                # the library reads one as a part of a tokenizer only
                only = {"added_tokens": [], "model": NO_MODEL, "normalizer": normalizer}
                self._library.normalizer = Library.from_str(json.dumps(only)).normalizer
            self._special = len(self._library.encode("").ids)
        except BaseException as error:  # noqa: BLE001 - a panic of the library is no Exception
            raise ModelLoadError(
                f"{path.name} of {folder} cannot be read: {str(error)[:200]}.",
                hint="Remove the folder and pull the model again, or mend it if it is yours.",
            ) from None
        self._include_prompt = include_prompt
        self._long_chars = LONG_CHARS_PER_TOKEN * max_tokens

    def encode(self, texts: Sequence[str], prompt: str = "") -> list[Tokens]:
        """Tokenize texts with `prompt` before each, outside Python's lock; thread-safe."""
        unpooled = 0 if self._include_prompt else self._length_of(prompt)
        starts = [self._start_of(prompt + text) for text in texts]
        return [
            Tokens(
                encoding.ids,
                len(encoding.ids)
                + sum(len(rest.ids) - self._special for rest in encoding.overflowing),
                max(0, min(unpooled, len(encoding.ids) - 1)),  # something has to be pooled
            )
            for encoding in self._library.encode_batch_fast(starts)
        ]

    def _length_of(self, prompt: str) -> int:
        """Return the tokens of a prompt alone, with what begins a text and without what ends it.

        As sentence-transformers counts them (`Transformer._get_prompt_length`).
        """
        if not prompt:
            return 0
        encoding = self._library.encode(prompt)
        return len(encoding.ids) - (encoding.special_tokens_mask[-1] if encoding.ids else 0)

    def highest_id(self) -> int:
        """Return the largest id that it can give. Takes as long as a list of all its tokens."""
        return max(self._library.get_vocab().values(), default=-1)

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
