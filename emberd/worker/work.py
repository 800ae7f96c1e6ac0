"""One request on its way through the worker, and each of its texts in a batch."""

import os
from bisect import bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from emberd.worker.tokenizer import Tokens
from emberd.worker.wire import Embed

EXTRA = 64  # tokens; see `Work.urgency`
CORE_CHARS = 16_384  # milliseconds of tokenizing, without interruption
SLICE_CHARS = CORE_CHARS * (os.cpu_count() or 1)
SLICE_TEXTS = 256
CHARS_PER_TOKEN = 4  # a guess, only for ordering


@dataclass(slots=True, eq=False)
class Work:
    """A waiting request: its texts are tokenized first, then taken into batches.

    `waiting` holds (number of tokens, index) of the texts to run, sorted, the longest last.
    """

    request: Embed
    arrived_s: float
    tokens: dict[int, Tokens] = field(default_factory=dict)
    waiting: list[tuple[int, int]] = field(default_factory=list)
    remaining: float = field(init=False)  # tokens still to run; a guess where not tokenized
    taken: int = 0  # tokens that have gone into batches
    tokenize_s: float = 0.0
    first_run_s: float | None = None
    _untokenized: int = 0  # the first text that has not been taken for tokenizing

    def __post_init__(self) -> None:
        self.remaining = sum(len(text) for text in self.request.texts) / CHARS_PER_TOKEN

    def take_slice(self, most_chars: int) -> range:
        """Return the indices of the next texts to tokenize, at least one."""
        texts, first = self.request.texts, self._untokenized
        end, chars = first, 0
        while end < len(texts) and end - first < SLICE_TEXTS:
            chars += len(texts[end])
            if chars > most_chars and end > first:
                break
            end += 1
        self._untokenized = end
        return range(first, end)

    def add_tokens(self, indices: Iterable[int], tokens: Iterable[Tokens]) -> None:
        """Make texts ready to run."""
        for index, text in zip(indices, tokens, strict=True):
            self.tokens[index] = text
            self.remaining += len(text.ids) - len(self.request.texts[index]) / CHARS_PER_TOKEN
            insort(self.waiting, (len(text.ids), index))

    def longest_within(self, tokens: int) -> int | None:
        """Return the place in `waiting` of the longest text with at most `tokens` tokens."""
        at = bisect_right(self.waiting, (tokens, len(self.request.texts))) - 1
        return at if at >= 0 else None

    def take(self, at: int = -1) -> "Item":
        """Remove and return a waiting text, by default the longest."""
        length, index = self.waiting.pop(at)
        self.remaining -= length
        self.taken += length
        return Item(self, index, self.tokens[index])

    def urgency(self, now_s: float) -> float:
        """Return how long it has waited for its size: seconds for each token of the whole request.

        Short requests count as a little longer, so that among them the first to come is first.
        """
        return (now_s - self.arrived_s) / (EXTRA + self.remaining + self.taken)

    @property
    def wants_tokens(self) -> bool:
        """Whether there are texts that have not been taken for tokenizing."""
        return self._untokenized < len(self.request.texts)

    @property
    def is_taken(self) -> bool:
        """Whether every text has gone into a batch."""
        return not self.waiting and len(self.tokens) == len(self.request.texts)


@dataclass(frozen=True, slots=True)
class Item:
    """One text of a batch."""

    work: Work
    index: int
    tokens: Tokens
