"""Does a re-ranker help? nDCG@10 on the Cranfield collection, or another of that kind.

    emberd serve &
    .venv/bin/python benchmarks/cranfield.py FOLDER [--model NAME] [--reranker NAME] [--most 100]

Dense alone is compared with BM25, and with re-ranking what the first `--most` of both find. FOLDER
has the collection in one of two layouts: cran.all.1400, cran.qry and cranqrel (the classic one), or
corpus.jsonl, queries.jsonl and qrels/test.tsv (BEIR's). Neither is downloaded. BM25 is that of
bm25s, with its English stopwords and no stemmer, in an environment of its own (`--python` has it,
too).

nDCG is that of trec_eval: the gain is the grade, divided by the logarithm of the rank. Cranfield's
codes 1 to 4 (from a complete answer to minimal interest) count as relevant, 5 and others do not.
"""

import argparse
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environments
import numpy as np

import emberd
from emberd.registry.spec import InputType
from emberd.vectors import Matrix, normalize

HERE = Path(__file__).parent
AT = 10
TEXTS_A_REQUEST = 100
CLASSIC = ("cran.all.1400", "cran.qry", "cranqrel")
BEIR = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")

Grades = Mapping[str, float]
"""How relevant documents are to a query, by their ids; others are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Documents and queries by id, and the grades of each query that has some."""

    documents: Mapping[str, str]
    queries: Mapping[str, str]
    grades: Mapping[str, Grades]


def read(folder: Path) -> Collection:
    """Read a collection. Raises SystemExit: it is in neither layout, or has no judged query."""
    if all((folder / name).is_file() for name in BEIR):
        found = _read_beir(folder)
    elif all((folder / name).is_file() for name in CLASSIC):
        found = _read_classic(folder)
    else:
        sys.exit(f"{folder} has neither {', '.join(CLASSIC)} nor {', '.join(BEIR)}.")
    relevant = {
        query: {id_: grade for id_, grade in grades.items() if grade > 0 and id_ in found.documents}
        for query, grades in found.grades.items()
    }
    grades = {query: some for query, some in relevant.items() if some and query in found.queries}
    if not grades:
        sys.exit(f"{folder}: no query has a relevant document.")
    return Collection(documents=found.documents, queries=found.queries, grades=grades)


def _read_classic(folder: Path) -> Collection:
    documents, queries, judged = (folder / name for name in CLASSIC)
    grades: dict[str, dict[str, float]] = {}
    for line in judged.read_text().splitlines():
        if line.strip():
            query, document, code = line.split()[:3]
            grades.setdefault(query, {})[document] = float(code in ("1", "2", "3", "4"))
    texts = {id_: parts.get("W") or parts.get("T", "") for id_, parts in _records(documents)}
    asked = [parts.get("W", "") for _, parts in _records(queries)]
    # cranqrel numbers queries by their place; the numbers in cran.qry have gaps
    by_place = {str(place): text for place, text in enumerate(asked, 1)}
    return Collection(documents=texts, queries=by_place, grades=grades)


def _records(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the id of each record (`.I 1`), and its parts by letter (`.W`), each on one line."""
    for record in re.split(r"(?m)^\.I\s+", path.read_text())[1:]:
        number, *parts = re.split(r"(?m)^\.([A-Z])\s*$", record)
        texts = (" ".join(part.split()) for part in parts[1::2])
        yield str(int(number)), dict(zip(parts[::2], texts, strict=True))


def _read_beir(folder: Path) -> Collection:
    documents, queries, judged = (folder / name for name in BEIR)
    grades: dict[str, dict[str, float]] = {}
    for line in judged.read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        grades.setdefault(query, {})[document] = float(grade)
    return Collection(
        documents={
            row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in _rows(documents)
        },
        queries={row["_id"]: row["text"] for row in _rows(queries)},
        grades=grades,
    )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in path.read_text().splitlines() if line.strip())


def ndcg(ranked: Sequence[str], grades: Grades, at: int = AT) -> float:
    """Return the normalized discounted cumulative gain of the first `at`: 0 to 1."""

    def gain(found: Sequence[float]) -> float:
        return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(found[:at], 1))

    best = gain(sorted(grades.values(), reverse=True))
    return gain([grades.get(document, 0.0) for document in ranked]) / best


def mean_ndcg(rows: Iterable[Sequence[str]], grades: Iterable[Grades]) -> float:
    """Return the mean over all queries."""
    found = [ndcg(row, own) for row, own in zip(rows, grades, strict=True)]
    return sum(found) / len(found)


class Search:
    """The ways to search; each returns the ids of documents, the best first, for each query."""

    def __init__(self, collection: Collection, client: emberd.Client, most: int) -> None:
        self._ids = list(collection.documents)
        self._texts = list(collection.documents.values())
        self._queries = [collection.queries[query] for query in collection.grades]
        self._client = client
        self._most = most

    def bm25(self, python: str) -> list[list[str]]:
        """Search by words."""
        asked = {"documents": self._texts, "queries": self._queries, "most": self._most}
        ran = subprocess.run(
            [python, str(HERE / "peer_code" / "bm25_ranks.py")],
            input=json.dumps(asked), capture_output=True, text=True, check=True,
        )  # fmt: skip
        ranks: list[list[int]] = json.loads(ran.stdout)
        return [[self._ids[place] for place in row] for row in ranks]

    def dense(self, model: str | None) -> list[list[str]]:
        """Search by vectors."""
        documents = self._vectors(self._texts, model, "document")
        scores = self._vectors(self._queries, model, "query") @ documents.T  # unit vectors
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self._most]
        return [[self._ids[place] for place in row] for row in order]

    def reranked(self, model: str | None, *found: Sequence[Sequence[str]]) -> list[list[str]]:
        """Let the re-ranker sort what several ways have found, all together."""
        by_id = dict(zip(self._ids, self._texts, strict=True))
        sorted_: list[list[str]] = []
        for query, *rows in zip(self._queries, *found, strict=True):
            ids = list(dict.fromkeys(id_ for row in rows for id_ in row))
            logits: dict[str, float] = {}
            for at in range(0, len(ids), TEXTS_A_REQUEST):
                some = ids[at : at + TEXTS_A_REQUEST]
                answer = self._client.rerank(query, [by_id[id_] for id_ in some], model=model)
                logits |= {some[each.index]: each.logit for each in answer.results}
            sorted_.append(sorted(ids, key=lambda id_: -logits[id_]))
        return sorted_

    def _vectors(self, texts: Sequence[str], model: str | None, role: InputType) -> Matrix:
        parts = [
            self._client.embed(texts[at : at + TEXTS_A_REQUEST], model=model, input_type=role)
            for at in range(0, len(texts), TEXTS_A_REQUEST)
        ]
        return normalize(np.concatenate([part.vectors for part in parts]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Search in all ways, and print what each reaches."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of the collection")
    parser.add_argument("--model", help="that embeds; by default the server's")
    parser.add_argument("--reranker", help="by default the server's `default_reranker`")
    parser.add_argument("--most", type=int, default=100, help="of each way are re-ranked")
    parser.add_argument("--url", help="of the server; by default the one that runs here")
    parser.add_argument("--python", help="one that has bm25s")
    parser.add_argument("--json", action="store_true", help="print the results for programs")
    asked = parser.parse_args(arguments)
    collection = read(asked.folder)
    with emberd.Client(asked.url) as client:
        search = Search(collection, client, asked.most)
        dense = search.dense(asked.model)
        words = search.bm25(asked.python or str(environments.make("bm25")))
        both = search.reranked(asked.reranker, words, dense)
    ways = {"dense": dense, "BM25": words, "BM25 + dense, re-ranked": both}
    found = {name: mean_ndcg(rows, collection.grades.values()) for name, rows in ways.items()}
    if asked.json:
        counts = {"documents": len(collection.documents), "queries": len(collection.grades)}
        print(json.dumps({**counts, "most": asked.most, f"ndcg@{AT}": found}))
        return
    print(f"{len(collection.documents):,} documents, {len(collection.grades):,} judged queries")
    print(f"| search | nDCG@{AT} |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:.4f} |")


if __name__ == "__main__":
    main()
