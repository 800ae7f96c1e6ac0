"""Whether two things are of one vector space: eight probe texts and the space's options decide.

The texts tell files, precision, pooling and case apart; they are short and get no prompt, so what
is cut off or put in front is compared as it is recorded. No model has to embed a long text for it.

At a load they decide whether a model still gives the vectors it gave, when something changed:
files, config, backend or a library. Each may change without moving vectors. What was accepted stays
the yardstick, so that small steps cannot add up.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from emberd import vectors
from emberd.backends.base import Encoder, TokenIds
from emberd.spaces.lock import LockEntry
from emberd.spaces.options import SpaceOptions
from emberd.vectors import Matrix
from emberd.worker.tokenizer import Tokenizer, Tokens

SAME_SPACE = 0.999  # the lowest cosine of a probe; arithmetic in bf16 stays above it
PROBES = (
    "The ferry leaves at seven and comes back before dark.",
    "How do I undo the last commit without losing my changes?",
    "def area(radius): return 3.14159 * radius ** 2",
    "Preheat the oven, then fold the egg whites into the batter.",
    "Die Rechnung ist bis Ende März zu bezahlen.",
    "明天的会议改到下午三点。",
    "ERROR 2031: connection refused while writing to shard 7",
    "ok",
)


class Space(Protocol):
    """What is known of a space: a lock entry, a store's stamp, the target of a migration."""

    @property
    def probes(self) -> str:
        """The vectors of the probe texts, packed; empty when they are not known."""
        ...

    @property
    def options(self) -> SpaceOptions:
        """Its limits and options, as far as they were recorded."""
        ...


@dataclass(frozen=True, slots=True)
class Likeness:
    """How two spaces compare.

    `differences` are of their options, in words; `cosine` is the lowest of a probe text, None where
    the probes of one of them are not known.
    """

    differences: Sequence[str]
    cosine: float | None

    @property
    def is_same(self) -> bool:
        """Whether vectors of the two may be compared."""
        return not self.differences and self.cosine is not None and self.cosine >= SAME_SPACE

    @property
    def why(self) -> str:
        """Say what tells them apart, or shows that they are the same."""
        if self.differences:
            return "; ".join(self.differences)
        if self.cosine is None:
            return "the probe texts' vectors are not known of both"
        return f"lowest cosine of the probe texts {self.cosine:.3f}"


def compare(
    one: Space,
    other: Space,
    *,
    whose: tuple[str, str] = ("before", "now"),
    dimensions: int | None = None,
) -> Likeness:
    """Compare two spaces by what is known of them; no model is loaded.

    Args:
        one: the first.
        other: the second.
        whose: what to call the two in words.
        dimensions: compare so many leading ones, as of a model that gives several sizes.
    """
    cosine = None
    if one.probes and other.probes:
        kept, present = (
            unpack(space.probes, len(PROBES))[:, :dimensions] for space in (one, other)
        )
        cosine = lowest_cosine(kept, present)
    return Likeness(one.options.differences(other.options, whose), cosine)


def judge(
    entry: LockEntry, before: LockEntry | None, embed_probes: Callable[[], Matrix]
) -> LockEntry:
    """Return what to remember of a model that has just been loaded.

    Args:
        entry: its state now, without probes.
        before: what was remembered.
        embed_probes: runs the probe texts; called only when they are needed. `(8, D)`.
    """
    if before is None or not before.probes:
        return replace(entry, probes=pack(embed_probes()))
    if entry.is_same_state(before):
        return replace(entry, probes=before.probes, equivalent=before.equivalent)
    if before.changed_to and entry.is_same_state(before.changed_to):
        still = replace(entry, probes=before.changed_to.probes)
        return replace(before, changed_to=still)
    found = replace(entry, probes=pack(embed_probes()))
    likeness = compare(before, found)
    if likeness.is_same:
        known = {*before.equivalent, *before.fingerprints.values()} - {*entry.fingerprints.values()}
        return replace(entry, probes=before.probes, equivalent=tuple(sorted(known)))
    return replace(before, changed_to=found, cosine=likeness.cosine)


def embed_probes(tokenizer: Tokenizer, encoder: Encoder) -> Matrix:
    """Return the probes' vectors, `(8, D)`, of unit length (or as they are, when not finite)."""
    ids, mask = pad(tokenizer.encode(PROBES))
    rows = encoder.encode(ids, mask)
    return vectors.normalize(rows) if vectors.finite_rows(rows).all() else rows


def pad(tokens: Sequence[Tokens]) -> tuple[TokenIds, TokenIds]:
    """Return token ids and mask of texts, both `(B, T)` int32, padded on the right."""
    return pad_rows([[text] for text in tokens], max(len(text.ids) for text in tokens))


def pad_rows(rows: Sequence[Sequence[Tokens]], width: int) -> tuple[TokenIds, TokenIds]:
    """Return token ids and a mask, `(R, width)` int32.

    The mask numbers the texts of a row from 1, below 0 what is not pooled; see `backends.base`.
    """
    token_ids = np.zeros((len(rows), width), np.int32)
    mask = np.zeros((len(rows), width), np.int32)
    for row, texts in enumerate(rows):
        end = 0
        for number, text in enumerate(texts, 1):
            start, end = end, end + len(text.ids)
            token_ids[row, start:end] = text.ids
            mask[row, start:end] = number
            mask[row, start : start + text.unpooled] = -number
    return token_ids, mask


def lowest_cosine(a: Matrix, b: Matrix) -> float:
    """Return the lowest cosine of two rows, 0 for vectors of different or unusable kinds."""
    if a.shape != b.shape or not (vectors.finite_rows(a).all() and vectors.finite_rows(b).all()):
        return 0.0
    return round(float((vectors.normalize(a) * vectors.normalize(b)).sum(axis=1).min()), 6)


def pack(rows: Matrix) -> str:
    """Return float32 rows as base64."""
    return base64.b64encode(rows.astype("<f4").tobytes()).decode()


def unpack(packed: str, rows: int) -> Matrix:
    """Return what `pack` packed, `(rows, D)`; one zero row for what it cannot have."""
    try:
        return np.frombuffer(base64.b64decode(packed), "<f4").reshape(rows, -1)
    except ValueError:
        return np.zeros((1, 1), np.float32)
