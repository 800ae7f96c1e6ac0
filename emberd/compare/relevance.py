"""Which texts are relevant to which query, as somebody judged them, and how well they are found."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emberd.compare.texts import lines_of
from emberd.errors import BadOptionError

Grades = Mapping[str, int]
"""How relevant each judged text is to one query, by its id; 0 or less means not relevant."""


@dataclass(frozen=True, slots=True)
class Score:
    """Means over queries, both from 0 to 1."""

    ndcg: float
    recall: float


def read_relevant(path: Path) -> dict[str, dict[str, int]]:
    """Return the grades for each query, by its id.

    A line has a query, a text and a grade, as BEIR's TSV files (with a heading or without), or
    something else between the query and the text, as TREC's qrels.

    Raises:
        BadOptionError: it cannot be read, or a line is not of that form.
    """
    found: dict[str, dict[str, int]] = {}
    for number, line in lines_of(path):
        words = line.split("\t") if "\t" in line else line.split()
        try:
            query, text, grade = words if len(words) == 3 else (words[0], *words[2:])
            found.setdefault(query.strip(), {})[text.strip()] = int(grade)
        except ValueError:
            if number > 1:
                raise BadOptionError(
                    f"Line {number} of {path} does not say how relevant a text is.",
                    hint="Write QUERY TEXT GRADE (BEIR) or QUERY 0 TEXT GRADE (TREC) on each line.",
                ) from None
            found.clear()  # the heading
    return found


def score(found: Sequence[Sequence[str]], relevant: Sequence[Grades], count: int) -> Score:
    """Return nDCG and recall of the first `count` texts that each query found.

    The gain of a text is its grade, as in trec_eval and BEIR, and texts that nobody judged count as
    not relevant. Each query must have a relevant text.
    """
    each = [
        (_ndcg(ids[:count], grades, count), _recall(ids[:count], grades))
        for ids, grades in zip(found, relevant, strict=True)
    ]
    return Score(*(sum(values) / len(each) for values in zip(*each, strict=True)))


def has_relevant(grades: Grades) -> bool:
    """Whether any text is relevant."""
    return any(grade > 0 for grade in grades.values())


def _ndcg(ids: Sequence[str], grades: Grades, count: int) -> float:
    best = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:count]
    return _gain([grades.get(name, 0) for name in ids]) / _gain(best)


def _gain(grades: Sequence[int]) -> float:
    return sum(max(grade, 0) / math.log2(place + 2) for place, grade in enumerate(grades))


def _recall(ids: Sequence[str], grades: Grades) -> float:
    relevant = {name for name, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ids)) / len(relevant)
