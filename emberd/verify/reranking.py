"""Checks of a re-ranker: the text that answers a question comes first, alone and in any company."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from emberd.errors import EmberdError
from emberd.verify import questions
from emberd.verify.checks import check_load
from emberd.verify.finding import Finding
from emberd.verify.questions import QUESTIONS, Answers
from emberd.verify.workers import LoadedModel


class Scores(Answers):
    """Logits of every answer for every question, which are also the numbers `together`."""


@dataclass(frozen=True, slots=True)
class Subject(questions.Subject):
    """A re-ranker; `fingerprints` are that of before, and of now."""

    numbers = "logits"
    same, near = 1e-3, 0.25  # of about 10 in both directions

    fingerprints: tuple[str | None, str | None]

    @staticmethod
    async def ask(model: LoadedModel) -> Scores | EmberdError:
        """See `questions.Subject.ask`."""
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
        logits = np.array(together, np.float32)
        return Scores(model.status, logits, logits, np.array(alone, np.float32), cut == {0})

    def findings(self, *, full: bool) -> Iterator[Finding]:
        """Yield the findings in the order in which they are shown."""
        yield check_load(self.answers.status)
        yield self._fingerprint()
        yield self.check_company()
        yield self.check_longest()
        yield self.check_order()
        yield from self.check_backends(full=full)

    def _fingerprint(self) -> Finding:
        before, now = self.fingerprints
        was = "for the first time" if before is None else "as before"
        if before not in (None, now):
            was = f"previously {before}; nobody stores scores, so nothing else has to change"
        return Finding("fingerprint", "ok", f"{now}, {was}")
