"""Do two backends give the same vectors of the same weights?

The entry's own backend and each of the others load the same files with the same entry, each in a
worker of its own. Both embed texts from one word up to the longest that the entry takes, or to
`MOST_TOKENS`: each text alone, and all in one request, which makes batches of mixed lengths.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np

from emberd.backends import plugins
from emberd.config.load import Config
from emberd.errors import (
    BackendBrokenError,
    BackendMissingError,
    DeadlineError,
    EmberdError,
    ModelLoadError,
    NoRoomError,
    SourceError,
)
from emberd.models.local import lacks
from emberd.registry.spec import ModelSpec
from emberd.vectors import Matrix, lowest_cosine
from emberd.verify import checks, paraphrases
from emberd.verify.files import Files
from emberd.verify.finding import Finding
from emberd.verify.measuring import embed_alone
from emberd.verify.memory import too_big
from emberd.verify.workers import LoadedModel, run_in_fresh_worker

CHECK: Final = "backends agree"
MOST_TOKENS: Final = 2048  # more take minutes on a CPU
NOT_COMPARED = (
    BackendBrokenError, BackendMissingError, DeadlineError, ModelLoadError, NoRoomError,
    SourceError,
)  # fmt: skip
"""What says nothing about vectors: the backend or files for it are not here, it does not take the
model, or it is slow."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one backend made of `texts`: `(N, D)` alone and in a batch; `longest` in tokens."""

    texts: Sequence[str]
    alone: Matrix
    batch: Matrix
    compute: str
    longest: int


def texts_for(max_tokens: int) -> tuple[str, ...]:
    """Return texts of many lengths and kinds; the last has at least so many tokens."""
    lengths = [4**power for power in range(16) if 4**power < max_tokens]
    return (*checks.MIXED, *map(paraphrases.passage, (*lengths, max_tokens)))


def with_each_other(files: Files, compare: Callable[[str], Finding]) -> Iterator[Finding]:
    """Yield what `compare` finds with each other installed backend, or why it was not compared.

    `compare` is given the backend's name, and raises `EmberdError` if it cannot run the model.
    """
    others = [name for name in plugins.names() if name != files.backend]
    if not others:
        yield Finding(CHECK, "skipped", f"not compared: only {files.backend} is installed")
    for name in others:
        lacking = lacks(files.folder, name)
        why = lacking.message if lacking else too_big(files)
        if why:
            yield Finding(CHECK, "skipped", f"{name}: not compared: {why}")
            continue
        try:
            yield compare(name)
        except NOT_COMPARED as error:
            yield Finding(CHECK, "skipped", f"{name}: not compared: {error.message}")
        except EmberdError as error:
            yield Finding(CHECK, "failed", f"{name}: {error.message}", error.hint or "")


def compare_backends(
    config: Config, spec: ModelSpec, files: Files, *, max_tokens: int, only_known: bool
) -> Iterator[Finding]:
    """Compare the vectors of the entry's backend with those of every other installed one.

    Args:
        config: limits and homes.
        spec: the entry; `max_tokens` is where it cuts texts.
        files: its files, hashed; both backends use these.
        max_tokens: see `spec`.
        only_known: whether the model refuses a text of which it knows no token; such texts are
            left out.
    """
    shorter = replace(spec, max_tokens=min(max_tokens, MOST_TOKENS))
    texts = texts_for(min(max_tokens, MOST_TOKENS))

    def run(backend: str, texts: Sequence[str], *, only_known: bool) -> Sample:
        async def work(model: LoadedModel) -> Sample:
            return await _sample(model, texts, only_known=only_known)

        variant = replace(shorter, backend=backend)
        return run_in_fresh_worker(config, variant, files.as_entry(), work).result

    ours = cache(lambda: run(files.backend, texts, only_known=only_known))

    def compare(name: str) -> Finding:
        return _judge(name, ours(), run(name, ours().texts, only_known=False))

    return with_each_other(files, compare)


async def _sample(model: LoadedModel, texts: Sequence[str], *, only_known: bool) -> Sample:
    places, answers = await embed_alone(model, texts, only_known=only_known)
    kept = [texts[place] for place in places]
    return Sample(
        texts=kept,
        alone=np.concatenate([answer.vectors for answer in answers]),
        batch=(await model.embed(kept)).vectors,
        compute=model.status.compute,
        longest=max(answer.tokens for answer in answers),
    )


def _judge(name: str, ours: Sample, theirs: Sample) -> Finding:
    lowest = min(lowest_cosine(ours.alone, theirs.alone), lowest_cosine(ours.batch, theirs.batch))
    sample = f"of {len(ours.texts)} texts of up to {ours.longest} tokens, alone and in batches"
    return checks.check_agreement(name, {ours.compute, theirs.compute}, lowest, sample)
