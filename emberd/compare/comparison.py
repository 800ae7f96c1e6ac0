"""Compares models on the same texts, each with the first; what `emberd compare` shows."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emberd.compare.measure import MOST_QUERIES, NEAREST, Measured, Say, Task, measure
from emberd.compare.relevance import Grades, Score, has_relevant, read_relevant
from emberd.compare.reranking import Reranked, rerank
from emberd.compare.texts import Text, Texts, choose, of_file, of_store
from emberd.config.load import Config
from emberd.errors import BadOptionError, NoTextsError
from emberd.migrate.embedding import PoolEmbedder, ServerEmbedder
from emberd.migrate.nearest import Found, kept
from emberd.migrate.store_ref import StoreRef
from emberd.models.availability import require_here
from emberd.registry.catalog import Named
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockFile

SAMPLE = 2000  # texts, by default
MOST_TEXTS = 100_000
MOST_NUMBERS = 2**27  # in the vectors of all texts by one model: 512 MiB
EXAMPLES = 3
SHOWN = 3  # texts that only one of two models finds, in an example


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to compare: models (the first is the one in use), and where the texts are.

    `sample`: how many texts, at most; None for all, up to what fits into memory.
    """

    models: Sequence[str]
    source: StoreRef | Path
    reranker: str | None = None
    queries: Path | None = None
    relevant: Path | None = None
    sample: int | None = SAMPLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A query, and the texts that only one of two models has among its ten nearest."""

    query: str
    only_first: Sequence[str]
    only_other: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """How a model's ten nearest compare with those of the first model.

    `kept` is how many of the first model's ten the other one finds, too, on average; `counts` says
    for how many queries it is 0, 1, ... 10.
    """

    model: str
    kept: float
    counts: Sequence[int]
    examples: Sequence[Example]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was found. `against` has every model but the first, or none if there are few texts.

    `unknown` counts the texts that were judged but are not among the texts. `load` is how many
    processes wanted each core just before, on average: the speeds are too low if others did.
    """

    source: Literal["store", "file"]
    task: Task
    models: Sequence[Measured]
    against: Sequence[Against]
    reranked: Reranked | None
    load: float
    unknown: int = 0

    @property
    def by_chance(self) -> float:
        """How many of ten texts drawn by lot would be among the first model's ten."""
        others = len(self.task.texts) - (self.task.queries is None)
        return min(NEAREST, NEAREST * NEAREST / others)


def compare(
    config: Config, wanted: Wanted, embedder: PoolEmbedder | ServerEmbedder, say: Say
) -> Comparison:
    """Compare models. The store and the files are only read.

    Args:
        config: the models.
        wanted: what to compare.
        embedder: has the models compute.
        say: called with what is being done, in words.

    Raises:
        UnknownModelError, WrongKindError: a model is unknown, or of the wrong kind.
        SourceError: a model is not on this machine.
        BadOptionError: the options contradict each other, or a file is not as it should be.
        NoTextsError: there is no text to compare with.
        StoreError: the store cannot be read.
        EmberdError: a model cannot compute.
    """
    models, reranker = _models(config, wanted)
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    say("reading the texts")
    task, unknown = _task(wanted, max(each.spec.dimensions for each in models))
    measured = [measure(config, each, task, embedder, say) for each in models]
    first, *others = measured
    reranked = None
    if reranker and task.finds:
        reranked = rerank(reranker, first.model, first.found, task, embedder, say)
    return Comparison(
        source="store" if isinstance(wanted.source, StoreRef) else "file",
        task=task,
        models=measured,
        against=[_against(first, each, task) for each in others if task.finds],
        reranked=reranked,
        load=load,
        unknown=unknown,
    )


def _models(config: Config, wanted: Wanted) -> tuple[list[Named], ModelSpec | None]:
    """Return the models with the role of the texts, and the re-ranker; all of them are here."""
    stored = wanted.source.input_type if isinstance(wanted.source, StoreRef) else None
    find = config.catalog.find
    models = [find(name, stored or "document", kinds=("embed",)) for name in wanted.models]
    reranker = find(wanted.reranker, kinds=("rerank",)).spec if wanted.reranker else None
    names = [each.spec.name for each in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise BadOptionError(f"{twice} is named twice.", hint="Name two different models.")
    if len(models) < 2 and reranker is None:
        raise BadOptionError(
            "There is only one model to compare.",
            hint="Name two models, or add a re-ranker with --rerank.",
        )
    entries = LockFile(config.homes.state).read()
    for spec in [*(each.spec for each in models), *([reranker] if reranker else [])]:
        require_here(spec, config.homes.hub, entries.get(spec.name))
    return models, reranker


def _task(wanted: Wanted, dimensions: int) -> tuple[Task, int]:
    """Read the texts, the queries, and which texts are relevant to these."""
    if wanted.relevant and wanted.queries is None:
        raise BadOptionError("--relevant needs --queries, which it says the relevant texts of.")
    most = min(MOST_TEXTS, MOST_NUMBERS // dimensions)
    if wanted.sample is not None:
        most = min(most, wanted.sample)
    texts = choose(_texts(wanted.source), most, once=wanted.queries is None)
    if not texts.total:
        raise NoTextsError("There are no texts to compare on.", hint="Correct the path.")
    if wanted.queries is None:
        return Task(texts=texts), 0
    relevant = read_relevant(wanted.relevant) if wanted.relevant else None
    judged = {query for query, grades in (relevant or {}).items() if has_relevant(grades)}
    asked = (each for each in of_file(wanted.queries) if relevant is None or each.id in judged)
    queries = choose(asked, MOST_QUERIES)
    if not queries.total:
        raise NoTextsError(
            f"{wanted.queries} has no query"
            + (f" that {wanted.relevant} names a relevant text for." if relevant else "."),
            hint="The ids in the files must be the same: `_id` or `id` in JSON lines, else the"
            " number of the line.",
        )
    if relevant is None:
        return Task(texts=texts, queries=queries), 0
    _require_all(texts)
    grades = [relevant[name] for name in queries.ids]
    return Task(texts=texts, queries=queries, relevant=grades), _unknown(texts.ids, grades)


def _require_all(texts: Texts) -> None:
    """Raise BadOptionError unless relevance can be judged: by all texts, each with its own id."""
    if len(texts) < texts.total:
        raise BadOptionError(
            f"--relevant takes all texts, but only {len(texts)} of {texts.total} were taken.",
            hint=f"Leave --sample out; there may be {MOST_TEXTS} texts, or fewer for long vectors.",
        )
    if len({*texts.ids}) < len(texts):
        raise BadOptionError("--relevant needs an id for each text, but some texts share one.")


def _texts(source: StoreRef | Path) -> Iterator[Text]:
    return of_file(source) if isinstance(source, Path) else of_store(source)


def _unknown(ids: Sequence[str], relevant: Sequence[Grades]) -> int:
    judged = {name for grades in relevant for name in grades}
    return len(judged.difference(ids))


def _against(first: Measured, other: Measured, task: Task) -> Against:
    same = kept(first.found, other.found, NEAREST)
    most_changed = np.argsort(same, kind="stable")[:EXAMPLES]
    return Against(
        model=other.model,
        kept=float(same.mean()),
        counts=np.bincount(same, minlength=NEAREST + 1).tolist(),
        examples=[
            Example(
                query=task.asked[query],
                only_first=_only(first.found[query], other.found[query], task),
                only_other=_only(other.found[query], first.found[query], task),
            )
            for query in most_changed.tolist()
            if same[query] < NEAREST
        ],
    )


def _only(found: Found, other: Found, task: Task) -> list[str]:
    """Return the nearest texts that one model has among its ten and the other one has not."""
    theirs = {*other[:NEAREST].tolist()}
    alone = [place for place in found[:NEAREST].tolist() if place not in theirs]
    return [task.texts.texts[place] for place in alone[:SHOWN]]


def to_dict(found: Comparison, *, examples: bool) -> dict[str, Any]:
    """Return what `--json` prints; without `examples` there is no text in it."""
    task, few = found.task, not found.task.finds
    return {
        "source": found.source,
        "texts": {"total": task.texts.total, "equal": task.texts.equal, "used": len(task.texts)},
        "queries": {
            "given": task.queries is not None,
            "total": task.queries.total if task.queries else len(task.texts),
            "used": 0 if few else len(task.asked),
        },
        "nearest": NEAREST,
        "by_chance": None if few else round(found.by_chance, 2),
        "few": few,
        "models": [_model(each) for each in found.models],
        "against": [_compared(each, examples=examples) for each in found.against],
        "rerank": _reranked(found.reranked, task, examples=examples) if found.reranked else None,
        "judged_but_missing": found.unknown,
        "load_per_core": round(found.load, 2),
    }


def _model(each: Measured) -> dict[str, Any]:
    return {
        "model": each.model, "precision": each.precision, "dimensions": each.dimensions,
        "fingerprint": each.fingerprint, "is_stored": each.is_stored,
        "texts_per_s": round(each.texts_per_s, 1), "query_ms": round(each.query_ms, 2),
        "cut": round(each.cut, 4), "memory_bytes": each.memory_bytes,
        "weights_bytes": each.weights_bytes, "compiled_bytes": each.compiled_bytes,
        "vectors_bytes": each.vectors_bytes, "embed_s": round(each.embed_s, 1),
        "score": _score(each.score),
    }  # fmt: skip


def _score(score: Score | None) -> dict[str, float] | None:
    return {"ndcg": round(score.ndcg, 4), "recall": round(score.recall, 4)} if score else None


def _compared(each: Against, *, examples: bool) -> dict[str, Any]:
    shown = [
        {"query": one.query, "only_first": one.only_first, "only_other": one.only_other}
        for one in each.examples
    ]
    row = {"model": each.model, "kept": round(each.kept, 2), "counts": each.counts}
    return row | ({"examples": shown} if examples else {})


def _reranked(found: Reranked, task: Task, *, examples: bool) -> dict[str, Any]:
    shown = [
        {
            "query": task.asked[each.query],
            "first_before": task.texts.texts[each.before],
            "first_after": task.texts.texts[each.after],
        }
        for each in found.changes[:EXAMPLES]
    ]
    row = {
        "model": found.model, "of": found.of, "queries": found.queries,
        "too_long": found.too_long, "candidates": found.candidates,
        "query_ms": round(found.query_ms, 1), "memory_bytes": found.memory_bytes,
        "kept": round(found.kept, 2), "first_kept": round(found.first_kept, 3),
        "tau": round(found.tau, 3), "before": _score(found.before), "after": _score(found.after),
    }  # fmt: skip
    return row | ({"examples": shown} if examples else {})
