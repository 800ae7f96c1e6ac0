"""Runs all checks of one model, in fresh workers, one after the other.

The first worker loads the entry as it is; the others load a variant of it: full precision, another
pooling, another backend. The files are hashed once, here, and the workers reuse the hashes.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from emberd.config.load import Config, is_built_in
from emberd.errors import EmberdError
from emberd.folder.differences import differences
from emberd.folder.reading import Folder, read_folder
from emberd.registry.spec import POOLINGS, ModelSpec
from emberd.spaces.lock import LockEntry, LockFile
from emberd.spaces.probes import encode
from emberd.vectors import Matrix, finite_rows
from emberd.verify import checks, paraphrases, reranking, sparse
from emberd.verify.acceptance import remember
from emberd.verify.agreement import CHECK as AGREEMENT
from emberd.verify.agreement import compare_backends
from emberd.verify.files import (
    Files,
    check_published,
    check_unchanged,
    find_files,
    find_full_precision,
)
from emberd.verify.finding import Finding
from emberd.verify.measuring import Measured, measure
from emberd.verify.memory import too_big
from emberd.verify.reference import reference_for
from emberd.verify.workers import PATIENCE_S, LoadedModel, run_in_fresh_worker

Result = Measured | reranking.Scores | sparse.Vectors


def verify(config: Config, spec: ModelSpec, *, full: bool) -> Iterator[Finding]:
    """Run all checks, and yield what each found; `full` includes every other installed backend."""
    lock = LockFile(config.homes.state)
    before = lock.read().get(spec.name)
    try:
        files = find_files(spec, config.homes.hub, before)
    except EmberdError as error:
        yield from _stopped("load", error, spec.name)
        return
    yield check_unchanged(files, before, spec.name)
    yield check_published(files, spec.name)
    try:
        says = read_folder(files.folder)
        work: Callable[[LoadedModel], Awaitable[Result | EmberdError]]
        work = partial(measure, only_known=says.only_known)
        if spec.kind == "rerank":
            work = reranking.Subject.ask
        elif spec.kind == "sparse":
            work = sparse.Subject.ask
        ran = run_in_fresh_worker(config, spec, files.as_entry(before), work)
    except EmberdError as error:
        yield from _stopped("load", error, spec.name)
        return
    yield from remember(lock, spec.name, before, ran.entry, files)
    if ran.damage:
        advice = (
            "It is compiled again when it is loaded. Run `emberd verify` once more;"
            " if this repeats, check the disk."
        )
        yield Finding("compiled model", "failed", ran.damage, advice)
    if isinstance(ran.result, EmberdError):
        yield from _stopped("answers", ran.result, spec.name)
    elif isinstance(ran.result, reranking.Scores):
        was = before.fingerprint if before else None
        fingerprints = was, ran.entry.now.fingerprint
        subject = reranking.Subject(config, spec, files, ran.result, fingerprints)
        yield from subject.findings(full=full)
    elif isinstance(ran.result, sparse.Vectors):
        measured = sparse.Subject(config, spec, files, ran.result, says, before, ran.entry)
        yield from measured.findings(full=full)
    else:
        verification = _Verification(config, spec, files, says, before, ran.entry, ran.result)
        yield from verification.findings(full=full)


@dataclass(frozen=True, slots=True)
class _Verification:
    """A model that loaded and answered; `before` and `after` are its lock entries."""

    config: Config
    spec: ModelSpec
    files: Files
    says: Folder
    before: LockEntry | None
    after: LockEntry
    measured: Measured

    def findings(self, *, full: bool) -> Iterator[Finding]:
        """Yield the findings in the order in which they are shown."""
        spec, measured = self.spec, self.measured
        yield checks.check_load(measured.status)
        yield checks.check_space(spec.name, self.before, self.after, encode(measured.probes))
        yield checks.check_dimensions(spec, measured.lengths)
        longest = [measured.longest.vectors] if measured.longest else []
        vectors = np.concatenate([measured.taken[1], measured.alone, measured.shuffled, *longest])
        yield checks.check_finite(vectors)
        yield checks.check_unit_length(spec, vectors)
        yield checks.check_company(measured.batch, measured.alone, measured.shuffled)
        yield self._shortest()
        yield self._longest()
        yield checks.check_folder(spec.name, differences(self.says, spec))
        built_in = is_built_in(spec)
        yield self._pooling(built_in=built_in)
        yield checks.check_paraphrases(spec.name, measured.paraphrases, built_in=built_in)
        yield from self._full_precision()
        if full:
            yield from compare_backends(
                self.config,
                spec,
                self.files,
                max_tokens=measured.max_tokens,
                only_known=self.says.only_known,
            )
        else:
            yield Finding(AGREEMENT, "skipped", "only with --full")

    def _shortest(self) -> Finding:
        empty = self.measured.empty
        if empty is None:
            return Finding("shortest text", "ok", "an empty text has no token, and is refused")
        return checks.check_shortest(empty.tokens, bool(empty.truncated))

    def _longest(self) -> Finding:
        measured, longest = self.measured, self.measured.longest
        if longest is None:
            why = f"not checked: no answer for {measured.max_tokens} tokens in {PATIENCE_S:.0f} s"
            return Finding("longest text", "skipped", why)
        refused = measured.longest_is_refused
        return checks.check_longest(
            measured.max_tokens, longest.tokens, bool(longest.truncated), refused
        )

    def _pooling(self, *, built_in: bool) -> Finding:
        """Trust a checkpoint that states its pooling (no other would load), or try them all."""
        stated = sorted(self.files.folder.glob("*_Pooling/config.json"))
        if stated:
            where = stated[0].relative_to(self.files.folder)
            return Finding("pooling", "ok", f"{self.spec.pooling}, as {where} says")
        if not finite_rows(self.measured.paraphrases).all():
            return Finding("pooling", "skipped", "the model does not know the test's words")
        apart: dict[str, float] = {}
        for pooling in POOLINGS:
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
        full = find_full_precision(self.spec, self.config.homes.hub, self.files)
        reference = reference_for(full.sha256_of_weights, full.source.hf) if full else None
        no_loss = no_reference = ""
        if full is None:
            no_loss = no_reference = "quantized weights, and no full-precision ones here"
        elif reference is None:
            no_reference = "no reference is shipped for these weights"
        elif self.measured.max_tokens < reference.most_tokens:
            no_reference = "max_tokens would cut the reference texts"
        if self.spec.precision == "f32":
            no_loss = "f32 is already full precision"
        texts, own = self.measured.taken
        more = () if no_reference or reference is None else reference.texts
        exact = None
        if full and not (no_loss and no_reference):
            exact, why = self._exact(full, (*texts, *more))
            no_loss, no_reference = no_loss or why, no_reference or why
        if exact is None or no_loss:
            yield Finding("precision loss", "skipped", no_loss)
        else:
            yield checks.check_precision(self.spec.precision, own, exact[: len(own)])
        if exact is None or reference is None or no_reference:
            yield Finding("reference vectors", "skipped", no_reference)
        else:
            yield checks.check_reference(reference.model, exact[len(own) :], reference.vectors)

    def _exact(self, full: Files, texts: Sequence[str]) -> tuple[Matrix | None, str]:
        """Return the vectors of full precision, or why there are none."""
        why = too_big(full)
        try:
            if not why:
                variant = replace(self.spec, precision="f32", compute="f32")
                return self._embed(variant, full, texts), ""
        except EmberdError as error:
            why = error.message
        return None, f"not possible in f32: {why}"

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
