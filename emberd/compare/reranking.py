"""What a re-ranker makes of the order in which a model found texts, and what that costs."""

import statistics
import time
from dataclasses import dataclass

import numpy as np

from emberd.compare.measure import NEAREST, Say, Task
from emberd.compare.relevance import Score
from emberd.errors import RequestError, TextTooLongError
from emberd.migrate.embedding import PoolEmbedder, ServerEmbedder
from emberd.migrate.nearest import Found, kept, tau
from emberd.registry.spec import ModelSpec

MOST_QUERIES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A query for which another text comes first; both are places among the texts."""

    query: int
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranked:
    """How a re-ranker changed the order of the `candidates` texts that `of` found for each query.

    Attributes:
        model: the re-ranker.
        of: the model whose order it changed.
        queries: how many were re-ranked.
        too_long: how many were not, as they leave no room for a text.
        candidates: texts that it sorted for each query.
        query_ms: the median time that it took for one query.
        memory_bytes: what it took, loaded.
        kept: how many of the first ten were among the first ten before, on average.
        first_kept: the share of queries whose first text stayed the first.
        tau: Kendall's tau of the two orders, on average.
        before, after: how well the queries were answered, if somebody judged the texts.
        changes: the queries whose first text changed.
    """

    model: str
    of: str
    queries: int
    too_long: int
    candidates: int
    query_ms: float
    memory_bytes: int
    kept: float
    first_kept: float
    tau: float
    before: Score | None
    after: Score | None
    changes: list[Change]


def rerank(
    spec: ModelSpec,
    of: str,
    found: Found,
    task: Task,
    embedder: PoolEmbedder | ServerEmbedder,
    say: Say,
) -> Reranked:
    """Have a re-ranker sort what a model found for the first queries. Raises `EmberdError`."""
    try:
        say(f"loading {spec.name}")
        embedder.rerank("a query", ["a text"], model=spec.name).result()
        say(f"re-ranking with {spec.name}")
        asked, orders, spent_s, too_long = list[int](), list[list[int]](), list[float](), 0
        for place in range(len(found)):
            texts = [task.texts.texts[each] for each in found[place].tolist()]
            began_s = time.perf_counter()
            try:
                sorted_places = embedder.rerank(task.asked[place], texts, model=spec.name).result()
            except TextTooLongError:
                too_long += 1
                continue
            spent_s.append(time.perf_counter() - began_s)
            asked.append(place)
            orders.append(sorted_places)
            if len(asked) == MOST_QUERIES:
                break
        memory_bytes = embedder.memory_bytes(spec.name)
    finally:
        embedder.release(spec.name)
    if not asked:
        raise RequestError(
            f"Every query is too long for {spec.name}.",
            hint="Give shorter ones with --queries, as questions to a re-ranker are.",
        )
    order = np.array(orders, np.int64)
    before = found[asked]
    after = np.take_along_axis(before, order, 1)
    return Reranked(
        model=spec.name,
        of=of,
        queries=len(asked),
        too_long=too_long,
        candidates=found.shape[1],
        query_ms=statistics.median(spent_s) * 1000,
        memory_bytes=memory_bytes,
        kept=float(kept(before, after, NEAREST).mean()),
        first_kept=float((order[:, 0] == 0).mean()),
        tau=statistics.mean(tau(each) for each in order),
        before=task.score(before, asked),
        after=task.score(after, asked),
        changes=[
            Change(query=query, before=old, after=new)
            for query, old, new in zip(
                asked, before[:, 0].tolist(), after[:, 0].tolist(), strict=True
            )
            if old != new
        ],
    )
