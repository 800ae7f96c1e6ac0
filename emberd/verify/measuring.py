"""What the first worker is asked: the vectors and facts that the checks of one model need."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from emberd.errors import DeadlineError, EmberdError, TextTooLongError
from emberd.pool.status import ModelStatus
from emberd.spaces.probes import PROBES
from emberd.vectors import Matrix
from emberd.verify import checks, paraphrases
from emberd.verify.workers import Embedded, LoadedModel

UNKNOWN: Final = ("bad_vector", "no_tokens")  # codes of a text of which a model knows no token


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model answered.

    A static model refuses a text of which it knows no token. `mixed` are the texts of `MIXED` that
    it took, `empty` is None if it refused that one, and `paraphrases` has rows of zeros for others.
    """

    status: ModelStatus
    max_tokens: int
    lengths: dict[int, int]  # dimensions requested -> dimensions got
    mixed: Sequence[str]
    batch: Matrix
    alone: Matrix  # the rows of `batch`, embedded one by one
    shuffled: Matrix  # the rows of `batch`, embedded in another order
    empty: Embedded | None
    longest: Embedded | None  # None: no answer in time
    longest_is_refused: bool
    paraphrases: Matrix
    probes: Matrix

    @property
    def taken(self) -> tuple[list[str], Matrix]:
        """All texts in batches that it took, and their vectors `(N, D)`."""
        known = np.flatnonzero(self.paraphrases.any(axis=1))
        texts = [*self.mixed, *(paraphrases.TEXTS[place] for place in known)]
        return texts, np.concatenate([self.batch, self.paraphrases[known]])


async def measure(model: LoadedModel, *, only_known: bool) -> Measured | EmberdError:
    """Embed everything that the checks need; an error is a result too.

    Args:
        model: loaded just now.
        only_known: whether it is right to refuse a text of which it knows no token.
    """
    try:
        return await _embed_all(model, only_known=only_known)
    except EmberdError as error:
        return error


async def embed_alone(
    model: LoadedModel, texts: Sequence[str], *, only_known: bool
) -> tuple[list[int], list[Embedded]]:
    """Embed texts one by one; return the places of those that were answered, and the answers.

    Raises:
        EmberdError: a text failed for another reason than that `only_known` allows.
    """
    places, answers = [], []
    for place, text in enumerate(texts):
        try:
            answers.append(await model.embed([text]))
        except EmberdError as error:
            if not only_known or error.code not in UNKNOWN:
                raise
        else:
            places.append(place)
    return places, answers


async def _embed_all(model: LoadedModel, *, only_known: bool) -> Measured:
    places, alone = await embed_alone(model, checks.MIXED, only_known=only_known)
    mixed = [checks.MIXED[place] for place in places]
    empty = alone[mixed.index("")] if "" in mixed else None
    order = np.random.default_rng(7).permutation(len(mixed))
    shuffled = await model.embed([mixed[place] for place in order])
    some = paraphrases.TEXTS[:1]
    smaller = [await model.embed(some, dimensions=size) for size in model.spec.matryoshka]
    batch = (await model.embed(mixed)).vectors
    too_long = paraphrases.passage(model.max_tokens + 88)
    return Measured(
        status=model.status,
        max_tokens=model.max_tokens,
        lengths={
            size: got.shape[1]
            for size, got in zip(
                (model.spec.dimensions, *model.spec.matryoshka),
                (batch, *(answer.vectors for answer in smaller)),
                strict=True,
            )
        },
        mixed=mixed,
        batch=batch,
        alone=np.concatenate([answer.vectors for answer in alone]),
        shuffled=shuffled.vectors[order.argsort()],
        empty=empty,
        longest=await _in_time(model, too_long),
        longest_is_refused=await _refuses(model, too_long),
        paraphrases=await _rows(model, paraphrases.TEXTS, only_known=only_known),
        probes=await _rows(model, PROBES, only_known=only_known),
    )


async def _rows(model: LoadedModel, texts: Sequence[str], *, only_known: bool) -> Matrix:
    """Return a row for each text, `(N, D)`: zeros for one that it refused."""
    if not only_known:
        return (await model.embed(texts)).vectors
    places, answers = await embed_alone(model, texts, only_known=True)
    rows = np.zeros((len(texts), model.spec.dimensions), np.float32)
    for place, answer in zip(places, answers, strict=True):
        rows[place] = answer.vectors[0]
    return rows


async def _in_time(model: LoadedModel, text: str) -> Embedded | None:
    """Embed a text that may take a large model many minutes."""
    try:
        return await model.embed([text])
    except DeadlineError:
        return None


async def _refuses(model: LoadedModel, text: str) -> bool:
    try:
        await model.embed([text], truncate=False)
    except TextTooLongError:
        return True
    return False
