"""Measures one model on the texts: what it finds for each query, how fast, in how much room."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from emberd.compare.relevance import Grades, Score, score
from emberd.compare.texts import Texts
from emberd.config.load import Config
from emberd.migrate.embedding import BATCH, Embedded, PoolEmbedder, ServerEmbedder
from emberd.migrate.nearest import Found, nearest
from emberd.migrate.turns import in_turn
from emberd.models import compiled
from emberd.registry.catalog import Named
from emberd.registry.spec import InputType
from emberd.spaces.compare import SAME_SPACE
from emberd.spaces.lock import LockFile
from emberd.units import format_duration
from emberd.vectors import Matrix, cosines

NEAREST = 10
CANDIDATES = 50  # of the first model, which a re-ranker sorts
FEW = 20  # with fewer texts, ten are about half of them: any two models agree
MOST_QUERIES = 1000
TIMED_TEXTS = 512
TIMED_QUERIES = 20

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What every model is given. Without `queries`, the first texts are searched for the others.

    `relevant` has the grades for each query, if somebody judged the texts.
    """

    texts: Texts
    queries: Texts | None = None
    relevant: Sequence[Grades] | None = None

    @property
    def asked(self) -> Sequence[str]:
        """The texts of the queries."""
        return self.queries.texts if self.queries else self.texts.texts[:MOST_QUERIES]

    @property
    def finds(self) -> int:
        """How many texts are found for each query; 0 if there are too few to compare anything."""
        others = len(self.texts) - (self.queries is None)
        return 0 if len(self.texts) < FEW else min(CANDIDATES, others)

    def score(self, found: Found, asked: Sequence[int] | None = None) -> Score | None:
        """Return how well these texts answer the queries, if somebody judged the texts.

        `asked` are the places of the queries, by default all of them.
        """
        if self.relevant is None or not self.finds:
            return None
        ids = [[self.texts.ids[place] for place in row] for row in found[:, :NEAREST].tolist()]
        places = range(len(found)) if asked is None else asked
        return score(ids, [self.relevant[place] for place in places], NEAREST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one model.

    `is_stored`: the store's vectors are its own, and were used. `cut` is the share of the texts
    that are longer than it reads. `vectors_bytes` and `embed_s` are for all texts, chosen or not.
    `found` is `(Q, K)`, with no row for too few texts.
    """

    model: str
    precision: str
    dimensions: int
    fingerprint: str
    is_stored: bool
    texts_per_s: float
    query_ms: float
    cut: float
    memory_bytes: int
    weights_bytes: int
    compiled_bytes: int
    vectors_bytes: int
    embed_s: float
    score: Score | None
    found: Found = field(repr=False)


class Model:
    """A model that is asked for vectors, always of one space."""

    def __init__(self, named: Named, embedder: PoolEmbedder | ServerEmbedder) -> None:
        self.name = named.spec.name
        self._role = named.role
        self._embedder = embedder
        self.fingerprint: str | None = None

    def load(self, text: str) -> str:
        """Embed one text, so that loading does not count in any rate; return the space."""
        self.fingerprint = self._submit([text], self._role).result().fingerprint
        return self.fingerprint

    def embed(self, texts: Sequence[str], role: InputType | None = None) -> Embedded:
        """Embed texts, as documents or in another role. Raises `EmberdError`."""
        answers = list(self._answers(texts, role or self._role))
        return Embedded(
            np.concatenate([each.vectors for each in answers]),
            answers[0].fingerprint,
            sum(each.truncated for each in answers),
        )

    def query_ms(self, texts: Sequence[str], role: InputType | None) -> float:
        """Return the median time of one text alone, from asking to the answer."""
        spent_s = []
        for text in texts:
            began_s = time.perf_counter()
            self._submit([text], role or self._role).result()
            spent_s.append(time.perf_counter() - began_s)
        return statistics.median(spent_s) * 1000

    def _answers(self, texts: Sequence[str], role: InputType | None) -> Iterator[Embedded]:
        batches = (texts[at : at + BATCH] for at in range(0, len(texts), BATCH))
        for _, answer in in_turn(batches, lambda batch: self._submit(batch, role)):
            yield answer

    def _submit(self, texts: Sequence[str], role: InputType | None) -> "Future[Embedded]":
        return self._embedder.submit(
            texts, model=self.name, input_type=role, fingerprint=self.fingerprint, cache=False
        )


def measure(
    config: Config,
    named: Named,
    task: Task,
    embedder: PoolEmbedder | ServerEmbedder,
    say: Say,
) -> Measured:
    """Measure one model, and unload it if it was loaded for this. Raises `EmberdError`.

    The role in `named` is that of the texts.
    """
    spec = named.spec
    model, texts = Model(named, embedder), task.texts
    try:
        say(f"loading {spec.name}")
        fingerprint = model.load(texts.texts[0])
        first = texts.texts[:TIMED_TEXTS]
        say(f"embedding {len(first)} texts with {spec.name}")
        began_s = time.perf_counter()
        embedded = model.embed(first)
        rate = len(first) / (time.perf_counter() - began_s)
        is_stored = _is_stored(texts.vectors, embedded.vectors)
        found = _find(model, task, embedded.vectors, rate, say, is_stored=is_stored)
        role: InputType | None = "query" if task.queries else None
        query_ms = model.query_ms(task.asked[:TIMED_QUERIES], role)
        memory_bytes = embedder.memory_bytes(spec.name)
    finally:
        embedder.release(spec.name)
    entry = LockFile(config.homes.state).read().get(spec.name)
    files = entry.now.files.values() if entry else ()
    return Measured(
        model=spec.name,
        precision=spec.precision,
        dimensions=spec.dimensions,
        fingerprint=fingerprint,
        is_stored=is_stored,
        texts_per_s=rate,
        query_ms=query_ms,
        cut=embedded.truncated / len(first),
        memory_bytes=memory_bytes,
        weights_bytes=sum(file.size for file in files),
        compiled_bytes=compiled.size_of(*compiled.folders(config.homes.cache, spec, entry)),
        vectors_bytes=4 * texts.total * spec.dimensions,
        embed_s=texts.total / rate,
        score=task.score(found),
        found=found,
    )


def _is_stored(stored: Matrix | None, embedded: Matrix) -> bool:
    """Say whether the store's vectors of the first texts are those that the model gives."""
    if stored is None or stored.shape[1] != embedded.shape[1]:
        return False
    return bool((cosines(stored[: len(embedded)], embedded) >= SAME_SPACE).all())


def _find(
    model: Model, task: Task, first: Matrix, rate: float, say: Say, *, is_stored: bool
) -> Found:
    """Return what the model finds for each query; `first` are the vectors of the first texts."""
    texts = task.texts
    if not task.finds:
        return np.zeros((0, 0), np.int64)
    vectors = first
    rest = texts.texts[len(first) :]
    if is_stored and texts.vectors is not None:
        vectors = texts.vectors
    elif rest:
        takes = format_duration(max(1, round(len(rest) / rate)))
        say(f"embedding {len(rest)} more texts with {model.name}, which takes about {takes}")
        vectors = np.concatenate([first, model.embed(rest).vectors])
    if task.queries is None:
        return nearest(vectors[:MOST_QUERIES], vectors, task.finds, themselves=True)
    say(f"embedding {len(task.asked)} queries with {model.name}")
    return nearest(model.embed(task.asked, "query").vectors, vectors, task.finds)
