"""One request on its way through the worker, and each of its texts in a batch.

Requests share the texts that they have in common: such a text waits in all of them, and whichever
has its turn first has it computed for all.
"""

import os
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from emberd.worker.tokenizer import Tokens
from emberd.worker.wire import OPTIONS, Embed

EXTRA = 64  # tokens; see `Work.urgency`
CORE_CHARS = 16_384  # milliseconds of tokenizing, without interruption
SLICE_CHARS = CORE_CHARS * (os.cpu_count() or 1)
SLICE_TEXTS = 256
CHARS_PER_TOKEN = 4  # a guess, only for ordering

# What comes before the model or after it: it does not change what the model computes for a text.
BESIDE = {
    "id", "texts", "truncate", "dimensions", "encoding", "normalize", "token_ids", "pairs",
    "dtype", "step", "also",
    "is_query",  # those that need no model are looked up
    "spans",  # whose texts are tokenized by themselves, and shared with nobody
}  # fmt: skip
decisive = attrgetter("prompt", *(name for name in OPTIONS if name not in BESIDE))
"""What decides, together with a text, what the model computes; `decisive(request)` is hashable.

In an order that stays: vectors are kept on disk under it.
"""


class Alike(dict[str, "Item"]):
    """The texts that wait or run, of requests for which `decisive` is the same."""

    __slots__ = ("__weakref__",)


@dataclass(slots=True, eq=False)
class Work:
    """A waiting request: its texts are tokenized first, then taken into batches.

    `alike` is where to find the texts that it shares; None if it shares none. `waiting` holds
    (number of tokens, index) of the texts to run, sorted, the longest last.
    """

    request: Embed
    arrived_s: float
    alike: Alike | None = None
    waiting: list[tuple[int, int]] = field(default_factory=list)
    remaining: float = field(init=False)  # tokens still to run; a guess where not tokenized
    borrowed: int = 0  # those of `remaining` that also wait elsewhere, or at an earlier place
    taken: int = 0  # tokens that have gone into batches
    tokenize_s: float = 0.0
    first_run_s: float | None = None
    _items: dict[int, "Item"] = field(default_factory=dict)  # that wait, by index
    _untokenized: int = 0  # the first text that has not been taken for tokenizing
    _unknown: int = field(init=False)  # how many texts have not been added

    def __post_init__(self) -> None:
        self._unknown = len(self.request.texts)
        self.remaining = sum(map(len, self.request.texts)) / CHARS_PER_TOKEN

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

    def add(self, index: int, tokens: Tokens, now_s: float) -> None:
        """Make a text ready to run, or have it share the result of one that waits or runs."""
        text = self.request.texts[index]
        self.settle(index)
        item = self.alike.get(text) if self.alike is not None else None
        if item is None:
            item = Item(self, index, tokens)
            if self.alike is not None:
                self.alike[text] = item
            self._wait(item, index)
            return
        item.join(self, index)
        if item.runs:
            self.taken += len(item.tokens.ids)
            self.first_run_s = self.first_run_s or now_s
        else:
            self.borrowed += len(item.tokens.ids)
            self._wait(item, index)

    def settle(self, index: int) -> None:
        """Note that a text is known: it waits, runs, or is answered."""
        self._unknown -= 1
        self.remaining -= len(self.request.texts[index]) / CHARS_PER_TOKEN

    def _wait(self, item: "Item", index: int) -> None:
        length = len(item.tokens.ids)
        self._items[index] = item
        self.remaining += length
        insort(self.waiting, (length, index))

    def longest_within(self, tokens: int) -> int | None:
        """Return the place in `waiting` of the longest text with at most `tokens` tokens."""
        at = bisect_right(self.waiting, (tokens, len(self.request.texts))) - 1
        return at if at >= 0 else None

    def take(self, at: int = -1) -> "Item":
        """Return a waiting text, by default the longest; it waits in no request any longer."""
        length, index = self.waiting[at]
        item = self._items[index]
        item.runs = True
        if not item.others:
            self.let_go(at, length)
            return item
        for ask in item.asked:
            ask.work.let_go(bisect_left(ask.work.waiting, (length, ask.index)), length)
            ask.work.borrowed -= length if ask is not item else 0
        return item

    def let_go(self, at: int, length: int) -> None:
        """Wait no longer for the text at a place in `waiting`: a batch has it."""
        del self._items[self.waiting.pop(at)[1]]
        self.remaining -= length
        self.taken += length

    def leave(self) -> None:
        """Wait for nothing any longer; what others asked for, too, goes on waiting for them."""
        for _, index in self.waiting:
            item = self._items.pop(index)
            if not item.leave(self, index):
                item.forget()
        self.waiting.clear()

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
        """Whether every text has gone into a batch, or needs none."""
        return not self.waiting and not self._unknown


Slice = tuple[Work, Sequence[int]]
"""A request, and the indices of some of its texts."""


@dataclass(slots=True, eq=False)
class Ask:
    """A text at its place in a request."""

    work: Work
    index: int
    tokens: Tokens


@dataclass(slots=True, eq=False)
class Item(Ask):
    """A text that is computed once, for its request and for the `others` that asked for it later.

    Most have none, and cost nothing for it: there may be 100,000 of them a second.
    """

    runs: bool = False  # it is in a batch
    others: dict[tuple[Work, int], None] | None = None

    @property
    def asked(self) -> Sequence[Ask]:
        """Everyone who gets its result."""
        return [self, *(Ask(*other, self.tokens) for other in self.others or ())]

    def join(self, work: Work, index: int) -> None:
        """Give its result to another request, too, or at another place."""
        self.others = self.others or {}
        self.others[work, index] = None

    def leave(self, work: Work, index: int) -> bool:
        """Give it no result; return whether anybody is left, of whom the first takes its place."""
        if work is not self.work or index != self.index:
            assert self.others  # it is one of them
            del self.others[work, index]
            return True
        if not self.others:
            return False
        self.work, self.index = next(iter(self.others))
        del self.others[self.work, self.index]
        self.work.borrowed -= len(self.tokens.ids)
        return True

    def forget(self) -> None:
        """Have those who ask for this text from now on compute it again."""
        if self.work.alike is not None:
            self.work.alike.pop(self.work.request.texts[self.index], None)
