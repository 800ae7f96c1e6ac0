"""Runs all checks of one model, in fresh workers, one after the other.

The first worker loads the entry as it is; the others load a variant of it: full precision, another
pooling, another backend. The files are hashed once, here, and the workers reuse the hashes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from emberd.backends import plugins
from emberd.config.load import Config, is_built_in
from emberd.errors import (
    BackendBrokenError,
    BackendMissingError,
    EmberdError,
    ModelLoadError,
    TextTooLongError,
)
from emberd.folder.differences import differences
from emberd.folder.reading import read_folder
from emberd.models.local import lacks
from emberd.pool.status import ModelStatus
from emberd.registry.spec import ModelSpec, Pooling
from emberd.spaces.lock import LockEntry, LockFile
from emberd.spaces.probes import PROBES, encode
from emberd.vectors import Matrix, lowest_cosine
from emberd.verify import checks, paraphrases
from emberd.verify.acceptance import remember
from emberd.verify.files import (
    Files,
    check_published,
    check_unchanged,
    find_files,
    find_full_precision,
)
from emberd.verify.finding import Finding
from emberd.verify.reference import minilm
from emberd.verify.workers import Embedded, LoadedModel, run_in_fresh_worker

FEW_TEXTS = (*paraphrases.TEXTS[:8], "")  # for a backend that may be slow here
UNUSABLE = (BackendBrokenError, BackendMissingError, ModelLoadError)


def verify(config: Config, spec: ModelSpec, *, full: bool) -> list[Finding]:
    """Run all checks and return their findings; `full` includes every other installed backend."""
    lock = LockFile(config.homes.state)
    before = lock.read().get(spec.name)
    try:
        files = find_files(spec, config.homes.hub, before)
    except EmberdError as error:
        return _stopped("load", error, spec.name)
    findings = [check_unchanged(files, before, spec.name), check_published(files, spec.name)]
    try:
        ran = run_in_fresh_worker(config, spec, files.as_entry(before), _measure)
    except EmberdError as error:
        return [*findings, *_stopped("load", error, spec.name)]
    findings += remember(lock, spec.name, before, ran.entry, files)
    if ran.damage:
        advice = (
            "It is compiled again when it is loaded. Run `emberd verify` once more;"
            " if this repeats, check the disk."
        )
        findings.append(Finding("compiled model", "failed", ran.damage, advice))
    if isinstance(ran.result, EmberdError):
        return [*findings, *_stopped("answers", ran.result, spec.name)]
    verification = _Verification(config, spec, files, before, ran.entry, ran.result)
    return [*findings, *verification.findings(full=full)]


@dataclass(frozen=True, slots=True)
class _Measured:
    """What the first worker returned: the vectors and facts that the checks need."""

    status: ModelStatus
    max_tokens: int
    lengths: dict[int, int]  # dimensions requested -> dimensions got
    batch: Matrix
    alone: Matrix  # the rows of `batch`, embedded one by one
    shuffled: Matrix  # the rows of `batch`, embedded in another order
    empty: Embedded
    longest: Embedded
    longest_is_refused: bool
    paraphrases: Matrix
    few: Matrix
    probes: Matrix


async def _measure(model: LoadedModel) -> _Measured | EmberdError:
    """Embed everything that the checks need; an error is a result too."""
    try:
        return await _embed_all(model)
    except EmberdError as error:
        return error


async def _embed_all(model: LoadedModel) -> _Measured:
    mixed = checks.MIXED
    order = np.random.default_rng(7).permutation(len(mixed))
    shuffled = await model.embed([mixed[place] for place in order])
    alone = [await model.embed([text]) for text in mixed]
    smaller = [await model.embed(["size"], dimensions=size) for size in model.spec.matryoshka]
    batch = (await model.embed(mixed)).vectors
    too_long = "word " * (model.max_tokens + 88)
    return _Measured(
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
        batch=batch,
        alone=np.concatenate([answer.vectors for answer in alone]),
        shuffled=shuffled.vectors[order.argsort()],
        empty=await model.embed([""]),
        longest=await model.embed([too_long]),
        longest_is_refused=await _refuses(model, too_long),
        paraphrases=(await model.embed(paraphrases.TEXTS)).vectors,
        few=(await model.embed(FEW_TEXTS)).vectors,
        probes=(await model.embed(PROBES)).vectors,
    )


async def _refuses(model: LoadedModel, text: str) -> bool:
    try:
        await model.embed([text], truncate=False)
    except TextTooLongError:
        return True
    return False


@dataclass(frozen=True, slots=True)
class _Verification:
    """A model that loaded and answered; `before` and `after` are its lock entries."""

    config: Config
    spec: ModelSpec
    files: Files
    before: LockEntry | None
    after: LockEntry
    measured: _Measured

    def findings(self, *, full: bool) -> Iterator[Finding]:
        """Yield the findings in the order in which they are shown."""
        spec, measured, status = self.spec, self.measured, self.measured.status
        loaded = f"{status.backend} {status.compute}, {status.last_load_s or 0:.1f} s"
        yield Finding("load", "ok", loaded)
        yield checks.check_space(spec.name, self.before, self.after, encode(measured.probes))
        yield checks.check_dimensions(spec, measured.lengths)
        everything = (measured.batch, measured.alone, measured.shuffled, measured.empty.vectors)
        vectors = np.concatenate([*everything, measured.longest.vectors, measured.paraphrases])
        yield checks.check_finite(vectors)
        yield checks.check_unit_length(spec, vectors)
        yield checks.check_company(measured.batch, measured.alone, measured.shuffled)
        yield checks.check_shortest(measured.empty.tokens, bool(measured.empty.truncated))
        yield checks.check_longest(
            measured.max_tokens,
            measured.longest.tokens,
            bool(measured.longest.truncated),
            measured.longest_is_refused,
        )
        yield checks.check_folder(spec.name, differences(read_folder(self.files.folder), spec))
        built_in = is_built_in(spec)
        yield self._pooling(built_in=built_in)
        yield checks.check_paraphrases(spec.name, measured.paraphrases, built_in=built_in)
        yield from self._full_precision()
        if full:
            yield from self._backends()
        else:
            yield Finding("backends agree", "skipped", "only with --full")

    def _pooling(self, *, built_in: bool) -> Finding:
        """Trust a checkpoint that states its pooling (no other would load), or try them all."""
        stated = sorted(self.files.folder.glob("*_Pooling/config.json"))
        if stated:
            where = stated[0].relative_to(self.files.folder)
            return Finding("pooling", "ok", f"{self.spec.pooling}, as {where} says")
        apart: dict[str, float] = {}
        poolings: Sequence[Pooling] = get_args(Pooling)
        for pooling in poolings:
            vectors = self.measured.paraphrases
            if pooling != self.spec.pooling:
                variant = replace(self.spec, pooling=pooling)
                try:
                    vectors = self._embed(variant, self.files, paraphrases.TEXTS, keep_cache=False)
                except EmberdError:
                    continue  # a pooling that does not work is not the right one
            apart[pooling] = paraphrases.separation(vectors)
        return checks.check_pooling(self.spec, apart, built_in=built_in)

    def _full_precision(self) -> Iterator[Finding]:
        """Load the weights in f32: compare our vectors with it, and it with shipped vectors."""
        spec, reference = self.spec, minilm()
        full = find_full_precision(spec, self.config.homes.hub, self.files)
        no_loss = no_reference = ""
        if full is None:
            no_loss = no_reference = "quantized weights, and no full-precision ones here"
        elif full.sha256_of_weights != reference.weights_sha256:
            no_reference = "no reference is shipped for these weights"
        elif self.measured.max_tokens < reference.most_tokens:
            no_reference = "max_tokens would cut the reference texts"
        if spec.precision == "f32":
            no_loss = "f32 is already full precision"
        exact = None
        if full and not (no_loss and no_reference):
            texts = (*checks.MIXED, *paraphrases.TEXTS, *(() if no_reference else reference.texts))
            variant = replace(spec, precision="f32", compute="f32")
            try:
                exact = self._embed(variant, full, texts)
            except EmberdError as error:
                no_loss = no_loss or f"not possible in f32: {error.message}"
                no_reference = no_reference or no_loss
        if exact is None or no_loss:
            yield Finding("precision loss", "skipped", no_loss)
        else:
            own = np.concatenate([self.measured.batch, self.measured.paraphrases])
            yield checks.check_precision(spec.precision, own, exact[: len(own)])
        if exact is None or no_reference:
            yield Finding("reference vectors", "skipped", no_reference)
        else:
            rows = exact[-len(reference.texts) :]
            yield checks.check_reference(reference.model, rows, reference.vectors)

    def _backends(self) -> Iterator[Finding]:
        """Embed a few texts with every other installed backend."""
        check = "backends agree"
        others = [name for name in plugins.names() if name != self.files.backend]
        if not others:
            yield Finding(check, "skipped", f"only {self.files.backend} is installed")
        for name in others:
            if missing := lacks(self.files.folder, name):
                yield Finding(check, "skipped", f"{name}: {missing.message}")
                continue
            try:
                vectors = self._embed(replace(self.spec, backend=name), self.files, FEW_TEXTS)
            except UNUSABLE as error:
                yield Finding(check, "skipped", f"{name}: {error.message}")
            except EmberdError as error:
                yield Finding(check, "failed", f"{name}: {error.message}", error.hint or "")
            else:
                cosine = lowest_cosine(self.measured.few, vectors)
                yield checks.check_agreement(self.spec.precision, name, cosine)

    def _embed(
        self, variant: ModelSpec, files: Files, texts: Sequence[str], *, keep_cache: bool = True
    ) -> Matrix:
        """Return the vectors of a variant of the model. Raises `EmberdError`."""

        async def embed(model: LoadedModel) -> Matrix:
            return (await model.embed(texts)).vectors

        entry = files.as_entry()
        return run_in_fresh_worker(self.config, variant, entry, embed, keep_cache=keep_cache).result


def _stopped(check: str, error: EmberdError, name: str) -> list[Finding]:
    advice = error.hint or f"Correct models.{name} in the config file, or pull its files again."
    return [
        Finding(check, "failed", error.message, advice),
        Finding("all other checks", "skipped", "there are no vectors to check"),
    ]
