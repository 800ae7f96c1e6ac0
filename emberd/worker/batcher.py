"""The queue between the worker's threads: which texts are tokenized and which run next.

One thread for each stream of the encoder takes batches, and one tokenizes. Whoever has nothing to
run reads: a query with nothing beside it is read, tokenized and run by one thread, which is woken
once. Another thread reads while there is other work. A batch is limited by a budget of padded
tokens, and texts are chosen by length so that little of it is padding.

Who has waited longest for its size goes first: a long text waits longer than a short one, but not
until there are no short ones. Requests that take several batches come after all others, so that a
single query waits for at most one batch of a bulk job, except that the oldest request is passed
over at most three times in a row. Nothing starves. A text that several requests have in common is
computed once, when the first of them has its turn (`work.py`).
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Condition, RLock
from weakref import WeakValueDictionary

from emberd.backends.base import Encoder
from emberd.worker import row_widths
from emberd.worker.budget import FEWEST_TOKENS, FIRST_TOKENS, MOST_TOKENS, Budget
from emberd.worker.row_widths import STEP, round_up
from emberd.worker.tokenizer import Tokens
from emberd.worker.wire import Embed
from emberd.worker.work import CORE_CHARS, SLICE_CHARS, Alike, Item, Work, decisive

OLDEST_EVERY = 4  # batches: a bulk job gets a quarter of the machine, however many queries come
FILLING = 4  # a batch that begins with a new request is filled up to a quarter with bulk jobs
LONE_TOKENS = 1024  # a longer text gets a row of its own: the attention mask is quadratic
VECTOR_BYTES = 2**26  # of a batch, at most; a sparse vector is as long as the vocabulary
QUICK_TOKENS = 64  # a batch that runs for so short a time that nobody needs to read meanwhile


@dataclass(slots=True)
class Batch:
    """Texts that run together, in rows of `width` tokens: one text per row, or several packed."""

    rows: Sequence[Sequence[Item]]
    width: int
    budget_tokens: int = 0  # how many it could have
    is_alone: bool = False  # no other batch runs beside it, or is waiting to

    @property
    def items(self) -> list[Item]:
        """Its texts, row by row."""
        return [item for row in self.rows for item in row]

    @property
    def padded_tokens(self) -> int:
        """How many tokens the model computes, including padding."""
        return len(self.rows) * self.width


class Batcher:
    """Thread-safe; `clock` gives monotonic seconds.

    `row_tokens` is how long a packed row may be; None unless the encoder packs. `row_width` is how
    long it is where no text is longer, up to `widest_row` if they are alike. `streams` is how many
    batches run at once. `read` waits for what the server sends and adds it; one thread at a time
    calls it, and not while a text that is being tokenized may need this thread.
    """

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self.row_tokens: int | None = None
        self.row_width, self.widest_row = row_widths.USUAL, row_widths.WIDEST
        self.streams = 1
        self.most_texts = MOST_TOKENS  # of a batch
        self.read: Callable[[], None] | None = None
        self._slice_chars = SLICE_CHARS
        self._budget = budget
        self._clock = clock
        self._works: dict[int, Work] = {}  # in order of arrival
        self._alike: WeakValueDictionary[object, Alike] = WeakValueDictionary()
        self._closed = False
        self._passed_over = 0  # batches in a row that did not begin with the oldest request
        self._running = 0  # batches
        self._most = budget.tokens  # in the batch that is being cut
        self._is_read = False  # some thread is at it
        self._needs_reader = True  # beside those who run batches; at first, the model is loaded
        self._lock = lock = RLock()
        self._added = Condition(lock)
        self._sliced = Condition(lock)  # there is something to tokenize, or no more requests
        self._ready = Condition(lock)  # texts are tokenized, or there are no more
        self._unread = Condition(lock)  # see `_call_reader`

    def suit(self, encoder: Encoder, max_tokens: int, workers: int = 1) -> None:
        """Cut batches as this encoder wants them; call it before the first one.

        `workers` share the cores: the more there are, the fewer texts are tokenized at once.
        """
        self._slice_chars = max(CORE_CHARS, SLICE_CHARS // workers)
        if getattr(encoder, "packs", False):
            self.row_tokens = max_tokens
            self.row_width = getattr(encoder, "row_tokens", row_widths.USUAL)
            self.widest_row = getattr(encoder, "row_tokens", row_widths.WIDEST)
        self.streams = getattr(encoder, "streams", 1)
        self.most_texts = max(1, VECTOR_BYTES // (4 * getattr(encoder, "dimensions", 1)))
        self._budget.tokens = getattr(encoder, "batch_tokens", self._budget.tokens)

    def add(self, request: Embed) -> tuple[Work, range] | None:
        """Queue a request; return its first slice, which the caller has to tokenize.

        None if a long text would keep the caller busy: `next_slice` then returns that slice, too.
        """
        if not request.texts:
            return None  # nothing to run, and nothing to answer
        is_shared = request.cache and not request.spans
        work = Work(request, self._clock(), Alike() if is_shared else None)
        is_short = len(request.texts[0]) <= self._slice_chars
        first = work.take_slice(self._slice_chars) if is_short else None
        with self._lock:
            if work.alike is not None:
                work.alike = self._alike.setdefault(decisive(request), work.alike)
            self._works[request.id] = work
            self._added.notify_all()
            if work.wants_tokens:
                self._sliced.notify()
        return (work, first) if first else None

    def cancel(self, request_id: int) -> None:
        """Forget a request; texts already in a batch still run, and those of others."""
        with self._lock:
            work = self._works.pop(request_id, None)
            if work:
                work.leave()
            self._ready.notify_all()

    def close(self) -> None:
        """Accept no more requests; the other threads end when everything queued has run."""
        with self._lock:
            self._closed = True
            for waiting in (self._added, self._sliced, self._ready, self._unread):
                waiting.notify_all()

    def next_slice(self) -> tuple[Work, range] | None:
        """Wait for texts to tokenize; return a request and indices of it, or None at the end."""
        with self._lock:
            while True:
                wanting = [work for work in self._works.values() if work.wants_tokens]
                if wanting:
                    work = min(wanting, key=size)
                    return work, work.take_slice(self._slice_chars)
                if self._closed:
                    return None
                self._sliced.wait()

    def known(self, work: Work, texts: Sequence[str]) -> dict[str, Tokens]:
        """Return the tokens of those texts that wait or run and that this request can share."""
        with self._lock:
            alike = work.alike if work.alike is not None else Alike()
            return {text: alike[text].tokens for text in alike.keys() & texts}

    def held(self) -> AbstractContextManager[object]:
        """Return a context in which no batch is cut, to add what belongs together."""
        return self._ready

    def add_tokens(
        self, work: Work, indices: Sequence[int], tokens: Sequence[Tokens], spent_s: float = 0.0
    ) -> None:
        """Add the tokens of a slice, which took `spent_s` to make."""
        with self._lock:
            if self._works.get(work.request.id) is not work:
                return  # cancelled: nobody would run what it would have others share
            now_s = self._clock()
            for index, text in zip(indices, tokens, strict=True):
                work.add(index, text, now_s)
            work.tokenize_s += spent_s
            self._ready.notify()
            self._let_go([work])

    def settle(self, work: Work, indices: Sequence[int], spent_s: float) -> None:
        """Say that texts need not run: they are answered; that took `spent_s`."""
        with self._lock:
            if self._works.get(work.request.id) is not work:
                return
            for index in indices:
                work.settle(index)
            work.tokenize_s += spent_s
            self._let_go([work])
            self._ready.notify()

    def wait(self, timeout_s: float) -> bool:
        """Wait for a request or the end; False if neither came in time."""
        with self._lock:
            return self._added.wait_for(lambda: bool(self._works) or self._closed, timeout_s)

    def read_beside(self) -> bool:
        """Read once, when there is work for the other threads; False at the end."""
        with self._lock:
            while self._is_read or not self._needs_reader:
                if self._closed:
                    return False
                self._unread.wait()
            self._read_once()
            self._ready.notify()  # who has nothing to run reads
            return not self._closed

    def next_batch(self, *, wait: bool = True) -> Batch | None:
        """Return texts of one or more requests; None at the end.

        If nothing is tokenized yet, reads or waits for it, or returns None if `wait` is False.
        """
        with self._lock:
            self._needs_reader = self._needs_reader and self._running > 0
            while True:
                ready = [work for work in self._works.values() if work.waiting]
                if ready:
                    works = ready
                    if self._passed_over < OLDEST_EVERY - 1:
                        now_s = self._clock()
                        works = sorted(
                            ready,
                            key=lambda work: (
                                self._is_bulk(work),
                                -work.urgency(now_s),
                                size(work),
                            ),
                        )
                    self._passed_over = 0 if works[0] is ready[0] else self._passed_over + 1
                    return self._cut(works)
                if (self._closed and not self._works) or not wait:
                    return None
                if self.read and not self._works and not self._is_read:
                    self._read_once()
                else:
                    self._call_reader()
                    self._ready.wait()

    def ran(self, batch: Batch) -> None:
        """Say that a batch has ended: nobody joins its texts from now on."""
        with self._lock:
            self._running -= 1
            for item in batch.items:
                item.forget()

    def _cut(self, works: Sequence[Work]) -> Batch:
        waiting = sum(work.remaining - work.borrowed for work in self._works.values())
        self._most = self._share(waiting)
        if works[0].request.spans:  # the vectors of a batch are then those of one text's chunks
            item = works[0].take()
            cut = Batch([[item]], len(item.tokens.ids))
        else:
            works = [work for work in works if not work.request.spans]
            cut = self._pack(works) if self.row_tokens else self._pad(works)
        cut.budget_tokens = self._budget.tokens
        self._running += 1
        now_s = self._clock()
        took = {item.work for item in cut.items}
        took.update(work for item in cut.items for work, _ in item.others or ())
        for work in took:
            if work.first_run_s is None:
                work.first_run_s = now_s
        self._let_go(took)
        cut.is_alone = self._running == 1 and not self._works
        self._needs_reader = not cut.is_alone or cut.padded_tokens > QUICK_TOKENS
        self._call_reader()
        if any(work.waiting for work in self._works.values()):
            self._ready.notify()  # for another stream
        return cut

    def _let_go(self, works: Iterable[Work]) -> None:
        """Forget those of these requests of which nothing waits any longer."""
        for work in works:
            if work.is_taken:
                del self._works[work.request.id]
        if self._closed and not self._works:
            self._ready.notify_all()  # that was all

    def _call_reader(self) -> None:
        """Have another thread read, if those who run batches are not going to for a while."""
        self._needs_reader = self._needs_reader or bool(self._works)
        if self._needs_reader and not self._is_read:
            self._unread.notify()

    def _read_once(self) -> None:
        """Read, without the lock."""
        assert self.read  # set before any thread begins
        self._is_read = True
        self._lock.release()
        try:
            self.read()
        finally:
            self._lock.acquire()
            self._is_read = False

    def _share(self, waiting: float) -> int:
        """Return how many tokens a batch may have, so that every stream gets some of what waits.

        A little is not worth dividing if nothing else runs.
        """
        if self.streams == 1:
            return self._budget.tokens
        if not self._running and waiting <= self._little:
            return self._little
        share = round_up(math.ceil(waiting / self.streams))  # few shapes: see `STEP`
        return min(self._budget.tokens, max(FEWEST_TOKENS, share))

    @property
    def _little(self) -> int:
        return max(self._budget.tokens, FIRST_TOKENS)

    def _pack(self, works: Sequence[Work]) -> Batch:
        """Pack several texts into each row: always the longest that still fits.

        Texts of different lengths fill a row better than texts of the same length.
        """
        assert self.row_tokens
        budget_tokens, longest = self._most, works[0].waiting[-1][0]
        if longest > LONE_TOKENS:
            return self._pad(works)
        usual = max(round_up(longest), min(self.row_width, budget_tokens))
        width = row_widths.for_alike(
            min(usual, self.row_tokens),
            longest=longest,
            common=min(work.waiting[len(work.waiting) // 4][0] for work in works),
            texts=sum(len(work.waiting) for work in works),
            budget=budget_tokens,
            most=min(self.widest_row, self.row_tokens),
        )
        most = max(1, budget_tokens // width)
        shortest = min(work.waiting[0][0] for work in works)
        bulk_tokens = self._bulk_tokens(works)
        rows: list[list[Item]] = []
        taken, free = 0, self.most_texts
        while len(rows) < most:
            row: list[Item] = []
            left = width
            for work in works:
                if left < shortest:
                    break
                room = min(left, bulk_tokens - taken) if self._is_bulk_beside(works, work) else left
                while free and (at := work.longest_within(room)) is not None:
                    row.append(work.take(at))
                    free -= 1
                    tokens = len(row[-1].tokens.ids)
                    left, room, taken = left - tokens, room - tokens, taken + tokens
            if not row:
                break
            rows.append(row)
        used = max(sum(len(item.tokens.ids) for item in row) for row in rows)
        if len(rows) > 1 or len(rows[0]) > 1:
            used = min(round_up(used), width)
        return Batch(rows, used)

    def _pad(self, works: Sequence[Work]) -> Batch:
        """Put texts of similar length together, one in each row."""
        batch: list[Item] = []
        longest = real_tokens = 0
        bulk_tokens = self._bulk_tokens(works)
        for work in works:
            most_tokens = self._most
            if self._is_bulk_beside(works, work):
                most_tokens = bulk_tokens
            while work.waiting:
                # First the longest text of the first request, then whatever needs least padding.
                at = (work.longest_within(longest) or 0) if batch else -1
                length = work.waiting[at][0]
                padded_tokens = (len(batch) + 1) * max(longest, length)
                waste_tokens = padded_tokens - real_tokens - length
                if batch and (
                    padded_tokens > most_tokens
                    or waste_tokens > self._budget.waste_tokens
                    or len(batch) == self.most_texts
                ):
                    break
                longest = max(longest, length)
                real_tokens += length
                batch.append(work.take(at))
        return Batch([[item] for item in batch], longest)

    def _bulk_tokens(self, works: Sequence[Work]) -> int:
        """Return how many tokens of bulk jobs may fill up a batch that another request begins.

        Fewer if that request is new, so that it need not wait for them.
        """
        tokens = self._most
        return tokens // FILLING if works[0].first_run_s is None else tokens

    def _is_bulk_beside(self, works: Sequence[Work], work: Work) -> bool:
        return work is not works[0] and self._is_bulk(work)

    def _is_bulk(self, work: Work) -> bool:
        """Whether it takes several batches. A single text never does, however long it is."""
        return len(work.request.texts) > 1 and work.remaining > self._budget.tokens


def size(work: Work) -> int:
    """Return the remaining tokens in steps: requests of about the same size take turns."""
    return math.ceil(work.remaining / STEP)
