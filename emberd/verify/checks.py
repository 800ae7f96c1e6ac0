"""The checks and their thresholds: pure functions from vectors to a finding."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from emberd.backends.base import Precision
from emberd.pool.status import ModelStatus
from emberd.registry.difference import Difference
from emberd.registry.spec import ModelSpec
from emberd.spaces.compare import SAME_SPACE, compare
from emberd.spaces.lock import LockEntry
from emberd.vectors import Matrix, cosines, finite_rows, lowest_cosine
from emberd.verify import paraphrases
from emberd.verify.finding import Finding, judged

MIXED: Final = (
    "A short sentence.",
    "",
    "def add(a, b):\n    return a + b  # sums\n",
    "Die Straße ist naß.",
    "东京的天气怎么样？",
    "The kiln is heated slowly, so that the clay gives up its water before it is fired.",
    "The lighthouse keeper counts the ships that pass at night and writes them down. " * 8,
    "7",
    "🎉🚀 ok",
    "SELECT name FROM birds WHERE wingspan > 2 ORDER BY name; -- none",
)
"""Texts of many lengths, so that a batch of them needs padding."""

SAME: Final = 0.9999  # cosine of two vectors that must be the same
UNIT: Final = 1e-3
PARTNERS: Final = 14  # of 16 texts must find their partner; MiniLM finds all, even in 4 bits
SEPARATION: Final = 3.0  # MiniLM 7.8, L3 5.8, WordLlama 6.7; with a shuffled vocabulary 0.5
BETTER: Final = 1.25  # times the separation means that another pooling is the right one
LOWEST: Final[Mapping[Precision, float]] = {"bf16": 0.999, "8bit": 0.99, "4bit": 0.8}
"""Lowest cosine to full precision. 4 bits give MiniLM 0.86 over thirty texts."""


def check_load(status: ModelStatus) -> Finding:
    """Say how the model loaded, which it did."""
    loaded = f"{status.backend} {status.compute}, {status.last_load_s or 0:.1f} s"
    return Finding("load", "ok", loaded)


def check_dimensions(spec: ModelSpec, found: Mapping[int, int]) -> Finding:
    """Compare the dimensions requested (the keys of `found`) with those of the vectors."""
    wrong = {wanted: got for wanted, got in found.items() if wanted != got}
    return judged(
        "dimensions",
        not wrong,
        "; ".join(f"{got}, but the registry says {wanted}" for wanted, got in wrong.items())
        or ", ".join(map(str, found)),
        f"Correct models.{spec.name}.dimensions and models.{spec.name}.matryoshka.",
    )


def check_finite(vectors: Matrix) -> Finding:
    """Look for NaN, infinity, and rows of zeros."""
    usable = int(finite_rows(vectors).sum())
    return judged(
        "finite",
        usable == len(vectors),
        f"{usable} of {len(vectors)} vectors",
        "Set `compute: f32` for this model. If that does not help, its files are damaged.",
    )


def check_unit_length(spec: ModelSpec, vectors: Matrix) -> Finding:
    """Look for vectors that are not of length 1."""
    if not spec.normalize:
        return Finding("unit length", "skipped", "the registry says `normalize: false`")
    off = float(np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max())
    return judged(
        "unit length",
        off < UNIT,
        f"furthest from 1: off by {off:.0e}",
        "This is a bug in emberd or its backend. Please report it.",
    )


def check_company(batch: Matrix, alone: Matrix, shuffled: Matrix) -> Finding:
    """Compare the vectors of `MIXED` in one batch, one by one, and in another order."""
    lowest = float(min(cosines(batch, alone).min(), cosines(batch, shuffled).min()))
    return judged(
        "alone = batch = shuffled",
        lowest > SAME,
        f"lowest cosine {lowest:.6f} of {len(batch)} texts",
        "Other texts in a batch change a text's vector: set `compute: f32` or another `backend`.",
    )


def check_shortest(tokens: int, truncated: bool) -> Finding:
    """Judge the embedding of an empty text; its vector is among those checked above."""
    return judged(
        "shortest text",
        tokens > 0 and not truncated,
        f"an empty text has {tokens} tokens",
        "The tokenizer adds no special tokens, so an empty text has nothing to embed.",
    )


def check_longest(max_tokens: int, tokens: int, truncated: bool, refused: bool) -> Finding:
    """Judge a text longer than `max_tokens`: it must be cut exactly there, and reported as cut."""
    advice = "The tokenizer and the registry disagree about the limit; compare their max_tokens."
    if not truncated or not refused:
        how = "cut without saying so" if not truncated else "cut although `truncate` was false"
        return Finding("longest text", "failed", how, advice)
    detail = f"cut at {tokens} tokens; the model takes {max_tokens}"
    return judged("longest text", tokens == max_tokens, detail, advice)


def check_paraphrases(name: str, vectors: Matrix, *, built_in: bool) -> Finding:
    """Check that paraphrases are nearer than unrelated texts; only warn about users' own models."""
    known = int(finite_rows(vectors).sum())
    found = apart = 0.0
    detail = f"of {len(vectors) - known} of {len(vectors)} texts the model knows no word"
    if known == len(vectors):
        found, apart = paraphrases.partners_found(vectors), paraphrases.separation(vectors)
        detail = (
            f"{found} of {len(vectors)} texts are nearest to their paraphrase; paraphrases are"
            f" {apart:.1f} standard deviations closer than unrelated texts"
        )
    advice = (
        f"The tokenizer or the pooling does not match the weights: compare models.{name} and the"
        " files with the model card."
    )
    if found >= PARTNERS and apart >= SEPARATION:
        return Finding("paraphrases", "ok", detail)
    if built_in:
        return Finding("paraphrases", "failed", detail, advice)
    return Finding(
        "paraphrases", "warning", detail, f"{advice} (Or the model is not meant for English prose.)"
    )


def check_folder(name: str, differences: Sequence[Difference]) -> Finding:
    """Report where the model's folder disagrees with its entry; the entry counts."""
    if not differences:
        return Finding("folder", "ok", "its files agree with the entry")
    lines = "; ".join(difference.line for difference in differences)
    return Finding(
        "folder",
        "note",
        " ".join(difference.message for difference in differences),
        f"To follow the folder, which gives another space, add under models.{name}: {lines}",
    )


def check_pooling(spec: ModelSpec, apart: Mapping[str, float], *, built_in: bool) -> Finding:
    """Compare poolings by how well they separate paraphrases from unrelated texts.

    For checkpoints that do not state their pooling. One that a model was not trained for still
    ranks paraphrases well (MiniLM with CLS finds all), but less sharply: 5.2 standard deviations
    instead of the 7.8 of the mean.
    """
    stated, best = apart[spec.pooling], max(apart, key=lambda pooling: apart[pooling])
    detail = (
        "the checkpoint does not state one; standard deviations between paraphrases and unrelated"
        f" texts: {', '.join(f'{value:.1f} with {pooling}' for pooling, value in apart.items())}"
    )
    if apart[best] < SEPARATION or apart[best] <= BETTER * stated:
        return Finding("pooling", "ok", detail)
    advice = f"Compare models.{spec.name}.pooling with the model card: it may be {best}."
    return Finding("pooling", "failed" if built_in else "warning", detail, advice)


def check_space(name: str, before: LockEntry | None, after: LockEntry, probes: str) -> Finding:
    """Judge by probe texts and options whether the vectors are still those that were accepted.

    `probes` are the vectors of the probe texts, measured just now.
    """
    now = after.now.fingerprint
    if before is None or not before.probes:
        return Finding("space", "ok", f"{now}, for the first time")
    measured = replace(after.now.measured("now"), probes=probes)
    found = compare(before.measured("before"), measured)
    cosine = f"lowest cosine of the probe texts {found.cosine or 0:.4f}"
    near = "; ".join([*found.differences, cosine])
    if found.is_same:
        was = "as before" if now == before.fingerprint else f"the same as {before.fingerprint}"
        return Finding("space", "ok", f"{now}, {was}: {near}")
    if now == before.fingerprint:
        return Finding(
            "space",
            "failed",
            f"{now}, as before, but the vectors have moved: {near}",
            "Delete emberd's cache folder and verify again; if that does not help, update or"
            " reinstall the backend's library.",
        )
    return Finding(
        "space",
        "failed",
        f"{now}, previously {before.fingerprint}: {near}",
        after.advice(name),
    )


def check_precision(precision: Precision, quantized: Matrix, full: Matrix) -> Finding:
    """Judge how far the weights' precision moves vectors from those of full precision."""
    found = cosines(quantized, full)
    return judged(
        "precision loss",
        found.min() >= LOWEST[precision],
        f"{precision} against f32: mean cosine {found.mean():.4f}, lowest {found.min():.4f}"
        f" of {len(found)} texts",
        "The weights are damaged, or this precision is too low for the model: choose a higher one.",
    )


def check_reference(model: str, vectors: Matrix, reference: Matrix) -> Finding:
    """Compare full precision with the vectors of sentence-transformers, `(N, D)` each."""
    lowest = lowest_cosine(vectors, reference)
    return judged(
        "reference vectors",
        lowest >= SAME,
        f"lowest cosine to sentence-transformers {lowest:.6f} of {len(reference)} texts, in f32",
        f"These are the weights of {model}, but they are used wrongly: compare pooling and"
        " tokenizer with its model card.",
    )


def check_agreement(
    backend: str, arithmetic: Collection[str], lowest: float, sample: str
) -> Finding:
    """Judge the lowest cosine between this backend's vectors and those of another.

    Args:
        backend: the other one.
        arithmetic: what the two compute in; only float32 on both sides has to be nearly exact.
        lowest: the lowest cosine of a text's two vectors.
        sample: which texts these were, in words.
    """
    return judged(
        "backends agree",
        lowest >= (SAME if {*arithmetic} == {"f32"} else SAME_SPACE),
        f"{backend}: lowest cosine {lowest:.6f} {sample}; {' and '.join(sorted(arithmetic))}",
        f"Do not switch between {backend} and this backend for this model, and please report it.",
    )
