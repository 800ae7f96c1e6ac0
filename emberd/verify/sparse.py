"""Checks of a sparse model: the same vectors in any company, and a question finds its answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from emberd.errors import EmberdError
from emberd.folder.differences import differences
from emberd.folder.reading import Folder
from emberd.spaces.lock import LockEntry
from emberd.spaces.probes import PROBES, encode
from emberd.vectors import Matrix
from emberd.verify import checks, questions
from emberd.verify.finding import Finding, judged
from emberd.verify.questions import QUESTIONS, Answers
from emberd.verify.workers import LoadedModel
from emberd.worker.sparse import sketch

TEXTS: Final = tuple(text for text in checks.MIXED if text)


@dataclass(frozen=True, slots=True)
class Vectors(Answers):
    """Sparse vectors of `TEXTS`, with their zeros: `(N, V)`.

    `probes` are those of the probe texts, sketched, and `others` those of questions and answers.
    """

    probes: Matrix
    others: Matrix


@dataclass(frozen=True, slots=True)
class Subject(questions.Subject):
    """A sparse model; `before` and `after` are its lock entries."""

    numbers = "numbers"
    same, near = 1e-3, 0.1  # of about 3 at most

    answers: Vectors
    says: Folder
    before: LockEntry | None
    after: LockEntry

    @staticmethod
    async def ask(model: LoadedModel) -> Vectors | EmberdError:
        """See `questions.Subject.ask`."""
        try:
            together, _ = await model.embed_sparse(TEXTS)
            alone = np.concatenate([(await model.embed_sparse([text]))[0] for text in TEXTS])
            probes, _ = await model.embed_sparse(PROBES)
            queries, _ = await model.embed_sparse([each for each, _ in QUESTIONS], "query")
            answers, _ = await model.embed_sparse([each for _, each in QUESTIONS])
            _, cut = await model.embed_sparse(["word " * (model.max_tokens + 88), "word"])
        except EmberdError as error:
            return error
        others = np.concatenate([queries, answers])
        return Vectors(
            model.status, queries @ answers.T, together, alone, cut == {0}, sketch(probes), others
        )

    def findings(self, *, full: bool) -> Iterator[Finding]:
        """Yield the findings in the order in which they are shown."""
        found = self.answers
        yield checks.check_load(found.status)
        yield checks.check_space(self.spec.name, self.before, self.after, encode(found.probes))
        yield _positive(np.concatenate([found.together, found.others]))
        yield self.check_company()
        yield self.check_longest()
        yield checks.check_folder(self.spec.name, differences(self.says, self.spec))
        yield self.check_order()
        yield from self.check_backends(full=full)


def _positive(rows: Matrix) -> Finding:
    kept = np.count_nonzero(rows, axis=1)
    return judged(
        "entries",
        bool(kept.any() and (rows >= 0).all()),
        f"{kept.min()} to {kept.max()} of {rows.shape[1]} are not 0, and none is negative",
        "The weights do not belong to a sparse model: compare the files with the model card.",
    )
