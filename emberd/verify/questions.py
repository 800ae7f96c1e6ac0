"""Does a model find the answer to a question, and does it say the same in any company?

What the checks of re-rankers and of sparse models share; `checks.py` has those of dense ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np

from emberd.config.load import Config, is_built_in
from emberd.errors import EmberdError
from emberd.pool.status import ModelStatus
from emberd.registry.spec import ModelSpec
from emberd.vectors import Matrix
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


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model made of some texts.

    Attributes:
        status: what `/models` says about it.
        scores: `(Q, Q)`: of each of `QUESTIONS`, a row, with each answer.
        together: its numbers for texts in one request: `(N, V)`.
        alone: the same for each text alone.
        cuts_long: whether it cut the end of a long text, and said so.
    """

    status: ModelStatus
    scores: Matrix
    together: Matrix
    alone: Matrix
    cuts_long: bool


@dataclass(frozen=True, slots=True)
class Subject:
    """A model of the entry `spec` that loaded and answered.

    `numbers` is what its answers consist of. Two for the same text may be `same` apart in float32,
    and `near` in 16 bits.
    """

    numbers: ClassVar[str]
    same: ClassVar[float]
    near: ClassVar[float]

    config: Config
    spec: ModelSpec
    files: Files
    answers: Answers

    @staticmethod
    async def ask(model: LoadedModel) -> Answers | EmberdError:
        """Return what the checks need; an error is a result too."""
        raise NotImplementedError

    def check_company(self) -> Finding:
        """Compare the numbers of texts together and alone."""
        return self._alike("alone = together", self.answers.alone)

    def check_longest(self) -> Finding:
        """Judge a text that is too long."""
        return judged(
            "longest text",
            self.answers.cuts_long,
            "its end is cut, and this is said",
            "The tokenizer and the registry disagree about the limit; compare their max_tokens.",
        )

    def check_order(self) -> Finding:
        """Look for the answers of questions; only warn about users' own models."""
        first = int((self.answers.scores.argmax(axis=1) == np.arange(len(QUESTIONS))).sum())
        check, detail = (
            "answers first",
            f"{first} of {len(QUESTIONS)} questions have their answer first",
        )
        advice = "The tokenizer does not match the weights: compare the files with the model card."
        if first >= FOUND:
            return Finding(check, "ok", detail)
        if is_built_in(self.spec):
            return Finding(check, "failed", detail, advice)
        own = f"{advice} (Or the model is not meant for English.)"
        return Finding(check, "warning", detail, own)

    def check_backends(self, *, full: bool) -> Iterator[Finding]:
        """Compare with every other installed backend, if the checks are to be `full`."""
        if full:
            yield from with_each_other(self.files, self._compare)
        else:
            yield Finding(CHECK, "skipped", "only with --full")

    def _compare(self, backend: str) -> Finding:
        """Compare with another backend; raises `EmberdError` if that cannot run the model."""
        variant = replace(self.spec, backend=backend)
        other = run_in_fresh_worker(self.config, variant, self.files.as_entry(), self.ask).result
        if isinstance(other, EmberdError):
            raise other
        found = self._alike(CHECK, other.together)
        return replace(found, detail=f"{backend}: {found.detail}")

    def _alike(self, check: str, others: Matrix) -> Finding:
        """Judge the largest difference of any two numbers for the same."""
        apart = float(np.abs(self.answers.together - others).max())
        exact = self.answers.status.compute == "f32"
        return judged(
            check,
            apart <= (self.same if exact else self.near),
            f"largest difference of two {self.numbers} {apart:.1e}",
            "Set `compute: f32` for this model, and please report it.",
        )
