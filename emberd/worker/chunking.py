"""Cuts texts into chunks of at most so many tokens of the model, where they are best cut.

By semantic-text-splitter, which asks for the tokens of about six times as many characters as the
text has. Chunks have no white space around them, and nothing else is left out: what is between two
of them is white space.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any

from emberd.errors import BadOptionError
from emberd.installing import pip
from emberd.spaces.chunks import GRAMMARS
from emberd.worker.tokenizer import Tokenizer
from emberd.worker.wire import Chunk

if TYPE_CHECKING:
    from semantic_text_splitter import CodeSplitter, MarkdownSplitter, TextSplitter

    Splitter = CodeSplitter | MarkdownSplitter | TextSplitter

KNOWN_WORDS = 2**16  # whose tokens are remembered; at most some 10 MB
LONG_WORD = 64  # characters; longer ones are not remembered


class GivenUpError(Exception):
    """Nobody waits for the chunks any longer."""


class Counter:
    """Counts the tokens of a text as part of a prompt and a text, without special ones.

    Where tokenizers split texts into words anyway, each word is tokenized once. Calls `alive` each
    time, whose exceptions end what the splitter does.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: str, alive: Callable[[], None]) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._alive = alive
        self._parts = tokenizer.parts()
        self._known: dict[str, int] = {}
        self._prompt_tokens = self._count(prompt)

    def __call__(self, text: str) -> int:
        """Return how many tokens the text adds to the prompt."""
        self._alive()
        return self._count(self._prompt + text) - self._prompt_tokens

    def _count(self, text: str) -> int:
        if not self._parts:
            return self._tokenizer.count([text])[0]
        words = text.replace("\n", " ").split(" ")
        long = [word for word in words if len(word) > LONG_WORD]  # of Chinese, for example
        if long:
            words = [word for word in words if len(word) <= LONG_WORD]
            words += chain.from_iterable(map(self._parts.findall, long))
        try:
            return sum(map(self._known.__getitem__, words))
        except KeyError:
            return self._learn(words)

    def _learn(self, words: Sequence[str]) -> int:
        """Count words of which some are new, and remember these."""
        if len(self._known) > KNOWN_WORDS:
            self._known.clear()
        new = [word for word in dict.fromkeys(words) if word not in self._known]
        counts = dict(zip(new, self._tokenizer.count(new), strict=True))
        self._known.update((word, n) for word, n in counts.items() if len(word) <= LONG_WORD)
        return sum(counts[word] if word in counts else self._known[word] for word in words)


def splitter(request: Chunk, tokenizer: Tokenizer, alive: Callable[[], None]) -> "Chunks":
    """Return what cuts the texts of a request.

    Args:
        request: how.
        tokenizer: the model's.
        alive: called often; raises to give up.

    Raises:
        BadOptionError: the size is more than the model takes, or the language is not known here.
    """
    room = tokenizer.room(request.prompt)
    size = room if request.size is None else request.size
    if room < 1 or size > room:
        prompt = " and its prompt" if request.prompt else ""
        raise BadOptionError(
            f"chunk.size: {size} tokens are more than the model takes of a text beside its special"
            f" tokens{prompt}: {max(room, 0)}.",
            hint="Send a smaller size, or none: then chunks are as large as the model takes."
            if room > 0
            else "Shorten the model's prompt, or raise its max_tokens.",
        )
    if request.overlap >= size:
        raise BadOptionError(
            f"chunk.overlap: {request.overlap} tokens are not fewer than a chunk has: {size}.",
            hint="Send a smaller overlap; a tenth of the size is usual.",
        )
    return Chunks(request, Counter(tokenizer, request.prompt, alive), size)


class Chunks:
    """Cuts texts; `size` is the most tokens of a chunk."""

    def __init__(self, request: Chunk, count: Counter, size: int) -> None:
        self.size = size
        self._count = count
        self._with_text = request.with_text
        self._splitter = _make(request, count, size)

    def describe(self, text: str) -> list[dict[str, Any]]:
        """Return the chunks of a text, in order; none if it has nothing but white space.

        `start` and `end` count characters (code points) of the text, `start_utf16` and `end_utf16`
        what strings of JavaScript, Java and C# count. `tokens` is without special ones and prompt.
        A chunk has more than `size` of them only if a single character has.
        """
        found = self._splitter.chunk_indices(text)
        return [
            {
                "start": start,
                "end": start + len(chunk),
                "start_utf16": start_utf16,
                "end_utf16": start_utf16 + _utf16(chunk),
                "tokens": self._count(chunk),
                **({"text": chunk} if self._with_text else {}),
            }
            for (start, chunk), start_utf16 in zip(found, _starts_utf16(text, found), strict=True)
        ]


def _make(request: Chunk, count: Counter, size: int) -> "Splitter":
    import semantic_text_splitter as library  # only by who chunks: 10 MB

    if request.kind == "code":
        language = _grammar(request.language or "")
        return library.CodeSplitter.from_callback(language, count, size, request.overlap)
    if request.kind == "markdown":
        return library.MarkdownSplitter.from_callback(count, size, request.overlap)
    return library.TextSplitter.from_callback(count, size, request.overlap)


def _grammar(language: str) -> object:
    """Return the grammar of a programming language."""
    module, function = GRAMMARS[language]
    try:
        return getattr(import_module(module), function)()
    except ImportError:
        raise BadOptionError(
            f"The grammar of {language} is not installed.",
            hint=f"Run `{pip('install', 'emberd[code]')}` and unload the model, or chunk it as"
            " kind text.",
        ) from None


def _starts_utf16(text: str, found: Sequence[tuple[int, str]]) -> Iterator[int]:
    """Yield where chunks start, in UTF-16 units."""
    before = units = 0
    for start, _ in found:
        units += _utf16(text[before:start])
        before = start
        yield units


def _utf16(text: str) -> int:
    """Return how many UTF-16 units a text has."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
