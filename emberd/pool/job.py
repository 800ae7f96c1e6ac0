"""One request on its way through the pool: its texts, what has come back, and its strikes.

Its texts may go to several workers, in parts: what they answer is put together here.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, islice

from emberd.errors import EmberdError
from emberd.pool.request import EmbedRequest
from emberd.worker.wire import Chunk, Embed, Fragments, Tokenize

MAX_STRIKES = 2
MAX_SPACES = 2


@dataclass(slots=True)
class Timing:
    """Where a request's time went, in seconds; `wait_s` is for the model to be ready.

    The texts of a request may run in several batches, together with those of other requests:
    `model_s` is the whole time of every batch that had one of its texts.
    """

    wait_s: float = 0.0
    tokenize_s: float = 0.0
    queue_s: float = 0.0
    model_s: float = 0.0
    encode_s: float = 0.0

    def stages(self) -> Sequence[tuple[str, float]]:
        """Return each part by its name, in seconds."""
        return (
            ("wait", self.wait_s),
            ("queue", self.queue_s),
            ("tokenize", self.tokenize_s),
            ("model", self.model_s),
            ("encode", self.encode_s),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """`fragments` has the encoded vector (or tokens, chunks) of each text, in their order.

    `fingerprint` names the space; of several dtypes, that of each, with ", " between. `compute` is
    what computed it, such as "openvino f32"; empty if nothing was.
    `chunk_size` is what the size of chunks came to, in tokens.
    """

    model: str
    fragments: Sequence[bytes]
    dimensions: int
    fingerprint: str
    tokens: int
    truncated: Sequence[int]
    timing: Timing
    cached: int = 0  # of its vectors, that came from the cache on disk
    chunk_size: int = 0
    is_sparse: bool = False  # vectors are JSON objects with `indices` and `values`
    compute: str = ""


@dataclass(slots=True, eq=False)
class Part:
    """The texts of a job that one worker has been sent, in one frame."""

    job: "Job"
    indices: Sequence[int]  # of these texts, in the job
    is_suspect: bool  # its worker has nothing else meanwhile
    left: int  # texts without an answer
    answered: bool = False  # at least one of them

    def receive(self, vectors: Fragments, payload: bytes | memoryview) -> None:
        """Keep some fragments."""
        before = self.job.unanswered
        self.job.receive(self.indices, vectors, payload)
        self.left -= before - self.job.unanswered
        self.answered = True


@dataclass(slots=True, eq=False)
class Job:
    """A request for one model. Fragments that came back survive the worker that made them.

    They belong to the space that they were computed in. When the next worker gives another space,
    because files changed meanwhile, they are discarded: all vectors of an answer share one space.

    A strike is a death of a worker with none of the texts answered that it was sent.
    """

    asked: EmbedRequest
    prompt: str
    dimensions: int
    is_query: bool = False  # see `wire.Embed`
    is_sparse: bool = False  # its model is of kind sparse
    step: float = 0.0  # of int8 and uint8
    fingerprint: str = ""  # of the space that its vectors are in, once it entered one
    compute: str = ""  # what computes them
    done: asyncio.Future[Answer] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    strikes: int = 0
    spaces: int = 0  # that its vectors were computed in, one after the other
    parts: list[Part] = field(default_factory=list)  # that workers have
    timing: Timing = field(default_factory=Timing)
    _submitted_s: float = field(default_factory=time.monotonic)
    _fragments: dict[int, bytes] = field(default_factory=dict)
    _tokens: int = 0
    _truncated: list[int] = field(default_factory=list)
    _cached: int = 0
    _chunk_size: int = 0

    @property
    def unanswered(self) -> int:
        """Texts that have no vector yet."""
        return len(self.asked.texts) - len(self._fragments)

    @property
    def has_answers(self) -> bool:
        """Whether some of its texts have a vector."""
        return bool(self._fragments)

    @property
    def unsent(self) -> int:
        """Texts without a vector that no worker has."""
        return self.unanswered - sum(part.left for part in self.parts)

    def enter(self, fingerprint: str) -> bool:
        """Start in this space, discarding vectors of another; False if it has changed too often.

        An equivalent fingerprint counts as another space here: eight probe texts are enough to say
        that stored vectors may be compared, but not to mix two spaces in one answer.
        """
        if fingerprint != self.fingerprint:
            self.spaces += bool(self._fragments) or not self.spaces
            self.begin_again()
            self.fingerprint = fingerprint
        return self.spaces <= MAX_SPACES

    def take(self, most: int) -> Part:
        """Return the next part to send: of the texts that no worker has, at most so many."""
        if not self.parts:
            self.timing.wait_s = time.monotonic() - self._submitted_s
        if not self.parts and not self._fragments:
            return self._part(range(min(most, len(self.asked.texts))))
        elsewhere = {index for part in self.parts for index in part.indices}
        missing = (
            index
            for index in range(len(self.asked.texts))
            if index not in self._fragments and index not in elsewhere
        )
        return self._part(list(islice(missing, most)))

    def _part(self, indices: Sequence[int]) -> Part:
        part = Part(self, indices, is_suspect=self.strikes > 0, left=len(indices))
        self.parts.append(part)
        return part

    def to_frame(self, request_id: int, part: Part) -> Embed | Tokenize | Chunk:
        """Return the frame that asks for the texts of a part."""
        asked = self.asked
        is_all = len(part.indices) == len(asked.texts)
        texts = list(asked.texts) if is_all else [asked.texts[index] for index in part.indices]
        if asked.description == "tokens":
            special = asked.special_tokens
            return Tokenize(id=request_id, texts=texts, prompt=self.prompt, special=special)
        if asked.description == "chunks":
            how = asdict(asked.chunking)
            return Chunk(id=request_id, texts=texts, prompt=self.prompt, **how)
        return Embed(
            id=request_id,
            texts=texts,
            prompt=self.prompt,
            dimensions=self.dimensions,
            is_query=self.is_query,
            step=self.step,
            spans=[list(asked.spans[index]) for index in part.indices] if asked.spans else [],
            **asked.options,
        )

    def receive(self, sent: Sequence[int], vectors: Fragments, payload: bytes | memoryview) -> None:
        """Keep some fragments of the texts that were sent, whose indices these are."""
        # `map`, as there may be 100,000 of them a second
        ends = list(accumulate(vectors.sizes))
        fragments = map(bytes, map(payload.__getitem__, map(slice, [0, *ends[:-1]], ends)))
        places = map(sent.__getitem__, vectors.indices)
        self._fragments.update(zip(places, fragments, strict=True))
        self._tokens += vectors.tokens
        self._cached += vectors.cached
        self._truncated += [sent[index] for index in vectors.truncated]
        self._chunk_size = vectors.chunk_size
        self.timing.tokenize_s, self.timing.queue_s = vectors.tokenize_s, vectors.queue_s
        self.timing.model_s += vectors.model_s
        self.timing.encode_s += vectors.encode_s

    def finish(self, model: str) -> None:
        """Answer, when every fragment is there."""
        if not self.done.done():
            self.done.set_result(
                Answer(
                    model=model,
                    fragments=list(map(self._fragments.__getitem__, range(len(self.asked.texts)))),
                    dimensions=self.dimensions,
                    fingerprint=self.fingerprint,
                    tokens=self._tokens,
                    truncated=sorted(self._truncated),
                    timing=self.timing,
                    cached=self._cached,
                    chunk_size=self._chunk_size,
                    is_sparse=self.is_sparse,
                    compute=self.compute,
                )
            )

    def begin_again(self) -> None:
        """Discard what came back: it may be wrong, or of another space."""
        self._fragments, self._tokens, self._truncated, self._cached = {}, 0, [], 0

    def fail(self, error: EmberdError) -> None:
        """Answer with an error."""
        if not self.done.done():
            self.done.set_exception(error)

    def strike(self, lost: Sequence[Part]) -> bool:
        """Count the death of the worker that had these parts; return whether it may try again.

        What was sent before an earlier death, to another worker, is no evidence of its own.
        """
        is_new = not self.strikes or any(part.is_suspect for part in lost)
        self.strikes += is_new and not any(part.answered for part in lost)
        return self.strikes < MAX_STRIKES
