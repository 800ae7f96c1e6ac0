"""One request on its way through the pool: its texts, what has come back, and its strikes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from emberd.errors import EmberdError
from emberd.worker.wire import Embed, Encoding, Ready, Vectors

MAX_STRIKES = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """`fragments` has the encoded vector of each text, in the order of the texts."""

    model: str
    fragments: Sequence[bytes]
    dimensions: int
    fingerprint: str
    tokens: int
    truncated: Sequence[int]


@dataclass(slots=True, eq=False)
class Job:
    """A request for one model. Fragments that came back survive the worker that made them.

    A strike is a death of the worker with none of this job's texts answered since they were sent.
    """

    texts: Sequence[str]
    prompt: str
    truncate: bool
    dimensions: int
    encoding: Encoding
    expected_fingerprint: str | None = None
    done: asyncio.Future[Answer] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    strikes: int = 0
    _fragments: dict[int, bytes] = field(default_factory=dict)
    _tokens: int = 0
    _truncated: list[int] = field(default_factory=list)
    _sent: list[int] = field(default_factory=list)
    _answered_since_sent: bool = False

    @property
    def unanswered(self) -> int:
        """Texts that have no vector yet."""
        return len(self.texts) - len(self._fragments)

    def to_frame(self, request_id: int) -> Embed:
        """Return the frame that asks for what is still missing."""
        self._sent = [index for index in range(len(self.texts)) if index not in self._fragments]
        self._answered_since_sent = False
        return Embed(
            id=request_id,
            texts=[self.texts[index] for index in self._sent],
            prompt=self.prompt,
            truncate=self.truncate,
            dimensions=self.dimensions,
            encoding=self.encoding,
        )

    def receive(self, vectors: Vectors, payload: bytes) -> None:
        """Keep some fragments."""
        start = 0
        for index, size in zip(vectors.indices, vectors.sizes, strict=True):
            self._fragments[self._sent[index]] = payload[start : start + size]
            start += size
        self._tokens += vectors.tokens
        self._truncated += [self._sent[index] for index in vectors.truncated]
        self._answered_since_sent = True

    def finish(self, model: str, ready: Ready) -> None:
        """Answer, when every fragment is there."""
        if not self.done.done():
            self.done.set_result(
                Answer(
                    model=model,
                    fragments=[self._fragments[index] for index in range(len(self.texts))],
                    dimensions=self.dimensions,
                    fingerprint=ready.fingerprints[str(self.dimensions)],
                    tokens=self._tokens,
                    truncated=sorted(self._truncated),
                )
            )

    def fail(self, error: EmberdError) -> None:
        """Answer with an error."""
        if not self.done.done():
            self.done.set_exception(error)

    def strike(self) -> bool:
        """The worker died on it; return whether the job may be tried again."""
        self.strikes += not self._answered_since_sent
        return self.strikes < MAX_STRIKES
