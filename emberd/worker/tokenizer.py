"""From texts to token ids, cut at max_tokens; each result says whether it was cut."""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emberd.errors import ModelLoadError, NoTokensError, TextTooLongError
from emberd.worker import long_words

if TYPE_CHECKING:
    from tokenizers import Encoding

LONG_CHARS_PER_TOKEN = 64
MARGIN_TOKENS = 128  # more than a word's WordPiece tokens, or than those a cut can change
PIECE_CHARS = 16_384
NO_MODEL: Mapping[str, Any] = {"type": "BPE", "vocab": {}, "merges": []}


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text as the model gets them: with special tokens, without padding.

    `uncut` is how many tokens the whole text has (for a very long one, a lower bound); more than
    `len(ids)` means that it was cut. The first `unpooled` belong to a prompt that is not pooled.
    Of a pair, the last `of_type_1` have token type 1, as the tokenizer says. `chunks` says of parts
    of the text that get vectors of their own where each begins and ends in `ids`.
    """

    ids: Sequence[int]
    uncut: int
    unpooled: int = 0
    of_type_1: int = 0
    chunks: Sequence[tuple[int, int]] = ()

    @property
    def is_cut(self) -> bool:
        """Whether part of the text is missing from `ids`."""
        return self.uncut > len(self.ids)


class Tokenizer:
    """A checkpoint's tokenizer.json, without the truncation and padding that it states.

    (MiniLM's says: cut at 128 and pad to 128.) `normalizer` replaces the file's own, in the same
    format; see `folder.reading.Folder`, also for `include_prompt` and `only_known`. `pairs`: it is
    for `encode_pairs`. `special` False: without the special tokens that it adds.
    """

    def __init__(
        self,
        folder: Path,
        max_tokens: int,
        normalizer: Mapping[str, Any] | None = None,
        *,
        include_prompt: bool = True,
        only_known: bool = False,
        pairs: bool = False,
        special: bool = True,
    ) -> None:
        # Imported here, in the thread that loads the tokenizer while the backend loads.
        from tokenizers import Tokenizer as Library

        path = folder / "tokenizer.json"
        try:
            self._library = Library.from_file(str(path))
            self._library.no_padding()
            if pairs:
                self._library.no_truncation()  # `_pair` cuts, and knows how long the query is
            else:
                self._library.enable_truncation(max_tokens)
            if normalizer is not None:
                # the library only reads a normalizer as part of a tokenizer
                only = {"added_tokens": [], "model": NO_MODEL, "normalizer": normalizer}
                self._library.normalizer = Library.from_str(json.dumps(only)).normalizer
            if only_known or not special:
                self._library.post_processor = None  # it adds the special tokens
            self._special = len(self._library.encode("").ids)
        except BaseException as error:  # noqa: BLE001 - a panic in it is not an Exception
            raise ModelLoadError(
                f"{path.name} in {folder} cannot be read: {str(error)[:200]}.",
                hint="Delete the folder and pull the model again, or repair it if it is your own.",
            ) from None
        unknown = getattr(self._library.model, "unk_token", None) if only_known else None
        self._left_out = self._library.token_to_id(unknown) if unknown else None
        self._max_tokens = max_tokens
        self._include_prompt = include_prompt
        self._long_chars = LONG_CHARS_PER_TOKEN * max_tokens
        self._shorten = long_words.shortener(self._library)

    def encode(self, texts: Sequence[str], prompt: str = "") -> list[Tokens]:
        """Tokenize texts with `prompt` before each, without the GIL; thread-safe."""
        unpooled = 0 if self._include_prompt else self._length_of(prompt)
        whole = [prompt + text for text in texts]
        short = self._library.encode_batch_fast([t for t in whole if len(t) <= self._long_chars])
        encodings = iter(short)
        return [
            self._tokens(next(encodings), unpooled)
            if len(t) <= self._long_chars
            else self._encode_long(t, unpooled)
            for t in whole
        ]

    def encode_chunks(self, text: str, prompt: str, spans: Sequence[Sequence[int]]) -> Tokens:
        """Tokenize a text as `encode` does, and find the tokens of its chunks; thread-safe.

        A token is a chunk's if one of its characters is; special ones are nobody's. Of a text that
        is cut, they are not looked for.

        Args:
            text: the whole text.
            prompt: what goes before it.
            spans: the chunks, in characters (code points) of the text.

        Raises:
            NoTokensError: a chunk has none.
        """
        whole = prompt + text
        if len(whole) > self._long_chars:
            [tokens] = self.encode([text], prompt)
            if tokens.is_cut:
                return tokens
        [encoding] = self._library.encode_batch([whole])
        tokens = self._tokens(encoding, 0 if self._include_prompt else self._length_of(prompt))
        if tokens.is_cut:
            return tokens
        parts = (encoding, *encoding.overflowing)  # as in `_tokens`; several only of known tokens
        kept = [
            (offsets, special)
            for part in parts
            for token_id, offsets, special in zip(
                part.ids, part.offsets, part.special_tokens_mask, strict=True
            )
            if token_id != self._left_out
        ]
        own = [(place, *offsets) for place, (offsets, special) in enumerate(kept) if not special]
        starts, ends = [start for _, start, _ in own], [end for *_, end in own]
        chunks = []
        for start, end in spans:
            first = bisect_right(ends, len(prompt) + start)
            last = bisect_left(starts, len(prompt) + end) - 1
            if first > last:
                raise NoTokensError(
                    f"The chunk at characters {start} to {end} has no token that the model knows.",
                    hint="Leave this part of the text out, or ask for larger chunks.",
                )
            chunks.append((own[first][0], own[last][0] + 1))
        return replace(tokens, chunks=chunks)

    def encode_pairs(
        self, query: str, texts: Sequence[str], most: int | None = None
    ) -> list[Tokens]:
        """Tokenize the query with each text, of which the end is cut; thread-safe.

        `most`: how many tokens a text may have, if the model would take more.

        Raises:
            TextTooLongError: the query leaves no room for a text.
        """
        short = [(query, text) for text in texts if len(text) <= self._long_chars]
        encodings = iter(self._library.encode_batch_fast(short))
        return [
            self._pair(next(encodings), most)
            if len(text) <= self._long_chars
            else self._encode_long_pair(query, text, most)
            for text in texts
        ]

    def _encode_long_pair(self, query: str, text: str, most: int | None) -> Tokens:
        """Tokenize as much of a very long text as counts; see `_encode_long`."""
        chars, least = self._long_chars, self._max_tokens + MARGIN_TOKENS
        while True:
            [encoding] = self._library.encode_batch_fast([(query, text[:chars])])
            if chars >= len(text) or len(encoding.ids) > least:
                return self._pair(encoding, most, is_all=chars >= len(text))
            chars *= 4

    def _pair(self, encoding: "Encoding", most: int | None, *, is_all: bool = True) -> Tokens:
        """Cut the second text of a pair; `is_all` False: it goes on."""
        ids, types, special = encoding.ids, encoding.type_ids, encoding.special_tokens_mask
        length = encoding.sequence_ids.count(1)
        room = self._max_tokens - (len(ids) - length)
        if room < 1:
            raise TextTooLongError(
                f"The query has {encoding.sequence_ids.count(0)} tokens, but the model takes"
                f" {self._max_tokens} of a query and a text together.",
                hint="Shorten the query: it is never cut.",
                field="query",
            )
        cut = max(0, length - min(room, most or room))
        uncut = len(ids) + (not is_all)
        if cut:
            end = len(ids) - special[::-1].index(0)  # of the second text
            ids, types = ids[: end - cut] + ids[end:], types[: len(ids) - cut]
        return Tokens(ids, uncut, of_type_1=types.count(1))

    def _length_of(self, prompt: str) -> int:
        """Return how many tokens a prompt has, with the special ones before it but not after it.

        As sentence-transformers counts them (`Transformer._get_prompt_length`).
        """
        if not prompt:
            return 0
        encoding = self._library.encode(prompt)
        return len(encoding.ids) - (encoding.special_tokens_mask[-1] if encoding.ids else 0)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens texts have, uncut and without special ones; thread-safe."""
        if self._shorten:
            texts = [self._shorten(t) if len(t) > self._long_chars else t for t in texts]
        return [
            sum(len(part.ids) - part.ids.count(self._left_out) for part in parts)
            if self._left_out is not None
            else sum(len(part.ids) for part in parts)
            for encoding in self._library.encode_batch_fast([*texts], add_special_tokens=False)
            for parts in [(encoding, *encoding.overflowing)]
        ]

    def parts(self) -> "re.Pattern[str] | None":
        """Return what finds parts of a text that have as many tokens as the text, if there is."""
        return long_words.parts(self._library)

    def room(self, prompt: str) -> int:
        """Return how many tokens of a text the model takes beside special ones and a prompt."""
        return self._max_tokens - self._special - self.count([prompt])[0]

    def id_of(self, token: str) -> int | None:
        """Return the id of a token; None if there is none."""
        found: int | None = self._library.token_to_id(token)
        return found

    def highest_id(self) -> int:
        """Return the largest token id. Takes as long as listing all tokens."""
        return max(self._library.get_vocab().values(), default=-1)

    def describe(self, text: str) -> Iterator[list[dict[str, Any]]]:
        """Yield lists of a text's tokens, uncut: `id`, `text`, `special`, `start` and `stop`.

        `start` and `stop` count characters of the text, and are None for special tokens. A long
        text gives several lists if the tokenizer allows it, so that the caller can stop early.
        """
        first = 0
        closing: list[dict[str, Any]] | None = None  # the special tokens at the end
        for last in self._ends(text):
            [encoding] = self._library.encode_batch([text[first:last]])
            for part in (encoding, *encoding.overflowing):
                words = [place for place, mask in enumerate(part.special_tokens_mask) if not mask]
                if words or (closing is None and last == len(text)):  # a text without any words
                    described = _described(text, part, first)
                    begin, end = (words[0], words[-1] + 1) if words else (0, 0)
                    yield described[0 if closing is None else begin : end]
                    closing = described[end:]
            first = last
        yield closing or []

    def _ends(self, text: str) -> Iterator[int]:
        """Yield where pieces of a text end that have the same tokens alone as together."""
        end = 0
        while self._shorten and len(text) - end > PIECE_CHARS:
            found = long_words.last_break(text, end + PIECE_CHARS // 2, end + PIECE_CHARS)
            if found is None:
                break
            yield (end := found)
        yield len(text)

    def _encode_long(self, text: str, unpooled: int) -> Tokens:
        """Tokenize as much of a very long text as fills the model; the rest does not matter.

        Otherwise megabytes would be tokenized for the first few hundred tokens, which takes seconds
        and gigabytes. The cut is at white space, where tokenizers split anyway, or so far behind
        the last token that counts that a word cut in two is not among them.
        """
        chars = self._long_chars
        while len(text) > chars:
            start = text[:chars]
            words, _, half_a_word = start.rpartition(" ")
            is_whole = len(half_a_word) < chars // 2
            tokens = self._tokens(self._encode_one(words if is_whole else start), unpooled)
            if tokens.uncut > self._max_tokens + MARGIN_TOKENS:
                # Half a word can have more tokens than all of it: one [UNK].
                return tokens if is_whole else replace(tokens, uncut=tokens.uncut - MARGIN_TOKENS)
            if chars == self._long_chars and self._shorten:
                text = self._shorten(text)
            chars *= 4
        return self._tokens(self._encode_one(text), unpooled)

    def _encode_one(self, text: str) -> "Encoding":
        [encoding] = self._library.encode_batch_fast([text])  # `encode` would hold the GIL
        return encoding

    def _tokens(self, encoding: "Encoding", unpooled: int = 0) -> Tokens:
        ids = encoding.ids
        uncut = len(ids) + sum(len(part.ids) - self._special for part in encoding.overflowing)
        if self._left_out is not None:
            whole = [each for part in (encoding, *encoding.overflowing) for each in part.ids]
            known = [each for each in whole if each != self._left_out]
            ids, uncut = known[: self._max_tokens], len(known)
        unpooled = max(0, min(unpooled, len(ids) - 1))  # at least one token is pooled
        return Tokens(ids, uncut, unpooled)


def _described(text: str, part: "Encoding", first: int) -> list[dict[str, Any]]:
    """Return the tokens of a part of `text` that begins at `first`, with its special tokens."""
    return [
        {
            "id": token_id,
            "text": token if is_special else text[first + start : first + stop],
            "special": bool(is_special),
            "start": None if is_special else first + start,
            "stop": None if is_special else first + stop,
        }
        for token_id, token, (start, stop), is_special in zip(
            part.ids, part.tokens, part.offsets, part.special_tokens_mask, strict=True
        )
    ]
