"""Checks of a re-ranker: the text that answers a question comes first, alone and in any company."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from emberd.config.load import Config, is_built_in
from emberd.errors import EmberdError
from emberd.pool.status import ModelStatus
from emberd.registry.spec import ModelSpec
from emberd.verify.agreement import CHECK, with_each_other
from emberd.verify.files import Files
from emberd.verify.finding import Finding, judged
from emberd.verify.workers import LoadedModel, run_in_fresh_worker

QUESTIONS: Final = (
    ("When does the ferry leave?", "The ferry leaves at seven in the morning."),
    ("How do I undo the last commit?", "`git reset --soft HEAD~1` takes back the last commit."),
    ("What is the capital of Norway?", "Oslo is the capital and the largest city of Norway."),
    ("Why does bread rise?", "Yeast turns sugar into gas, which makes the dough rise."),
)
"""Questions, each with the text that answers it; those of the others do not."""

FOUND: Final = 3  # of four questions must have their answer first
SAME: Final = 1e-3  # of logits that span about 10 in both directions, in float32
NEAR: Final = 0.25  # the same in 16 bits


@dataclass(frozen=True, slots=True)
class Scores:
    """Logits of every text for every question, together and each alone."""

    status: ModelStatus
    together: Sequence[Sequence[float]]
    alone: Sequence[Sequence[float]]
    cuts_long: bool


async def score(model: LoadedModel) -> Scores | EmberdError:
    """Return what the checks need; an error is a result too."""
    texts = [answer for _, answer in QUESTIONS]
    try:
        together = [(await model.rerank(question, texts))[0] for question, _ in QUESTIONS]
        alone = [
            [(await model.rerank(question, [text]))[0][0] for text in texts]
            for question, _ in QUESTIONS
        ]
        _, cut = await model.rerank("word", ["word " * (model.max_tokens + 88), "word"])
    except EmberdError as error:
        return error
    return Scores(model.status, together, alone, cut == {0})


@dataclass(frozen=True, slots=True)
class Subject:
    """A re-ranker that loaded and answered; `fingerprints` are that of before, and of now."""

    config: Config
    spec: ModelSpec
    files: Files
    scores: Scores
    fingerprints: tuple[str | None, str | None]

    def findings(self, *, full: bool) -> Iterator[Finding]:
        """Yield the findings in the order in which they are shown."""
        status = self.scores.status
        loaded = f"{status.backend} {status.compute}, {status.last_load_s or 0:.1f} s"
        yield Finding("load", "ok", loaded)
        yield self._fingerprint()
        yield _alike("alone = together", self.scores, self.scores.alone)
        yield judged(
            "longest text",
            self.scores.cuts_long,
            "its end is cut, and this is said",
            "The tokenizer and the registry disagree about the limit; compare their max_tokens.",
        )
        yield _order(self.spec, self.scores)
        if full:
            yield from with_each_other(self.files, self._compare)
        else:
            yield Finding(CHECK, "skipped", "only with --full")

    def _fingerprint(self) -> Finding:
        before, now = self.fingerprints
        was = "for the first time" if before is None else "as before"
        if before not in (None, now):
            was = f"previously {before}; nobody stores scores, so nothing else has to change"
        return Finding("fingerprint", "ok", f"{now}, {was}")

    def _compare(self, backend: str) -> Finding:
        """Compare with another backend; raises `EmberdError` if that cannot run the model."""
        variant = replace(self.spec, backend=backend)
        scores = run_in_fresh_worker(self.config, variant, self.files.as_entry(), score).result
        if isinstance(scores, EmberdError):
            raise scores
        found = _alike(CHECK, self.scores, scores.together)
        return replace(found, detail=f"{backend}: {found.detail}")


def _order(spec: ModelSpec, found: Scores) -> Finding:
    best = [max(range(len(each)), key=each.__getitem__) for each in found.together]
    first = sum(found_at == place for place, found_at in enumerate(best))
    detail = f"{first} of {len(QUESTIONS)} questions have their answer first"
    advice = "The tokenizer does not match the weights: compare the files with the model card."
    if first >= FOUND:
        return Finding("answers first", "ok", detail)
    if is_built_in(spec):
        return Finding("answers first", "failed", detail, advice)
    return Finding(
        "answers first", "warning", detail, f"{advice} (Or the model is not meant for English.)"
    )


def _alike(check: str, found: Scores, others: Sequence[Sequence[float]]) -> Finding:
    """Judge the largest difference of any two logits of the same question and text."""
    pairs = (zip(*each, strict=True) for each in zip(found.together, others, strict=True))
    apart = max(abs(one - other) for each in pairs for one, other in each)
    return judged(
        check,
        apart <= (SAME if found.status.compute == "f32" else NEAR),
        f"largest difference of two logits {apart:.1e}",
        "Set `compute: f32` for this model, and please report it.",
    )
