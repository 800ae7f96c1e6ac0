"""Checks of a sparse model: the same vectors in any company, and a question finds its answer."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from emberd.config.load import Config, is_built_in
from emberd.errors import EmberdError
from emberd.folder.differences import differences
from emberd.folder.reading import Folder
from emberd.pool.status import ModelStatus
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockEntry
from emberd.spaces.probes import PROBES, encode
from emberd.vectors import Matrix
from emberd.verify import checks
from emberd.verify.agreement import CHECK, with_each_other
from emberd.verify.files import Files
from emberd.verify.finding import Finding, judged
from emberd.verify.reranking import FOUND, QUESTIONS
from emberd.verify.workers import LoadedModel, run_in_fresh_worker
from emberd.worker.sparse import sketch

SAME: Final = 1e-3  # of numbers that are about 3 at most, in float32
NEAR: Final = 0.1  # the same in 16 bits
TEXTS: Final = tuple(text for text in checks.MIXED if text)


@dataclass(frozen=True, slots=True)
class Vectors:
    """Sparse vectors, with their zeros: `(N, V)` each."""

    status: ModelStatus
    together: Matrix
    alone: Matrix
    probes: Matrix
    queries: Matrix
    answers: Matrix
    cuts_long: bool


async def vectors(model: LoadedModel) -> Vectors | EmberdError:
    """Return what the checks need; an error is a result too."""
    try:
        together, _ = await model.embed_sparse(TEXTS)
        alone = np.concatenate([(await model.embed_sparse([text]))[0] for text in TEXTS])
        probes, _ = await model.embed_sparse(PROBES)
        queries, _ = await model.embed_sparse([each for each, _ in QUESTIONS], "query")
        answers, _ = await model.embed_sparse([each for _, each in QUESTIONS])
        _, cut = await model.embed_sparse(["word " * (model.max_tokens + 88), "word"])
    except EmberdError as error:
        return error
    return Vectors(model.status, together, alone, sketch(probes), queries, answers, cut == {0})


@dataclass(frozen=True, slots=True)
class Subject:
    """A sparse model that loaded and answered; `before` and `after` are its lock entries."""

    config: Config
    spec: ModelSpec
    files: Files
    says: Folder
    vectors: Vectors
    before: LockEntry | None
    after: LockEntry

    def findings(self, *, full: bool) -> Iterator[Finding]:
        """Yield the findings in the order in which they are shown."""
        found, status = self.vectors, self.vectors.status
        loaded = f"{status.backend} {status.compute}, {status.last_load_s or 0:.1f} s"
        yield Finding("load", "ok", loaded)
        yield checks.check_space(self.spec.name, self.before, self.after, encode(found.probes))
        yield _positive(np.concatenate([found.together, found.queries, found.answers]))
        yield _alike("alone = together", found, found.alone)
        yield judged(
            "longest text",
            found.cuts_long,
            "its end is cut, and this is said",
            "The tokenizer and the registry disagree about the limit; compare their max_tokens.",
        )
        yield checks.check_folder(self.spec.name, differences(self.says, self.spec))
        yield _order(self.spec, found.queries @ found.answers.T)
        if full:
            yield from with_each_other(self.files, self._compare)
        else:
            yield Finding(CHECK, "skipped", "only with --full")

    def _compare(self, backend: str) -> Finding:
        """Compare with another backend; raises `EmberdError` if that cannot run the model."""
        variant = replace(self.spec, backend=backend)
        other = run_in_fresh_worker(self.config, variant, self.files.as_entry(), vectors).result
        if isinstance(other, EmberdError):
            raise other
        found = _alike(CHECK, self.vectors, other.together)
        return replace(found, detail=f"{backend}: {found.detail}")


def _positive(rows: Matrix) -> Finding:
    kept = np.count_nonzero(rows, axis=1)
    return judged(
        "entries",
        bool(kept.any() and (rows >= 0).all()),
        f"{kept.min()} to {kept.max()} of {rows.shape[1]} are not 0, and none is negative",
        "The weights do not belong to a sparse model: compare the files with the model card.",
    )


def _order(spec: ModelSpec, products: Matrix) -> Finding:
    """Judge the inner products of questions (rows) and answers."""
    first = int((products.argmax(axis=1) == np.arange(len(products))).sum())
    detail = f"{first} of {len(products)} questions have their answer first"
    advice = "The tokenizer does not match the weights: compare the files with the model card."
    if first >= FOUND:
        return Finding("answers first", "ok", detail)
    if is_built_in(spec):
        return Finding("answers first", "failed", detail, advice)
    return Finding(
        "answers first", "warning", detail, f"{advice} (Or the model is not meant for English.)"
    )


def _alike(check: str, found: Vectors, others: Matrix) -> Finding:
    """Judge the largest difference of any two numbers of the same text and entry."""
    apart = float(np.abs(found.together - others).max())
    return judged(
        check,
        apart <= (SAME if found.status.compute == "f32" else NEAR),
        f"largest difference of two numbers {apart:.1e}",
        "Set `compute: f32` for this model, and please report it.",
    )
