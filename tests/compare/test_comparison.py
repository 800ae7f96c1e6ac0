"""Models compared on real texts, against a plain computation of the same figures."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from emberd.compare import comparison, measure
from emberd.compare.comparison import Comparison, Wanted, compare, to_dict
from emberd.config.load import Config, load_config
from emberd.errors import (
    BadOptionError,
    NoTextsError,
    RequestError,
    SourceError,
    UnknownModelError,
    WrongKindError,
)
from emberd.migrate.embedding import PoolEmbedder
from emberd.migrate.known import find
from emberd.migrate.nearest import tau
from emberd.vectors import Matrix
from tests import compiled, rerankers
from tests.migrate import stores
from tests.serving import clean_environ

CONFIG = f"""
default_reranker: tiny
limits: {{max_loaded: 6}}
models:
  old: {{sources: [{{path: {stores.TINY / "bert"}}}], dimensions: 64, pooling: mean}}
  new: {{sources: [{{path: {stores.TINY / "roberta"}}}], dimensions: 64, pooling: mean}}
  prompted:
    sources: [{{path: {stores.TINY / "bert"}}}]
    dimensions: 64
    pooling: mean
    prompts: {{query: "search for: ", document: "a passage: "}}
  gone: {{sources: [{{hf: no/where}}], dimensions: 64, pooling: mean}}
  tiny: {{kind: rerank, pooling: cls, compute: f32, sources: [{{path: {rerankers.FOLDER}}}]}}
"""
TEXTS = stores.texts(120)
SHORT = [text[:40] for text in TEXTS]  # with a query like this there is room for a text


class Keeping(PoolEmbedder):
    """A pool that keeps its models for the next test; `tests/cli` sees that they are unloaded."""

    def release(self, model: str) -> None:
        """Keep it."""
        del model


@dataclass(frozen=True)
class Place:
    """A configuration and a pool, and a folder of its own."""

    config: Config
    embedder: PoolEmbedder
    folder: Path

    def compare(self, *models: str, **wanted: Any) -> Comparison:  # noqa: ANN401
        """Compare with this pool."""
        return compare(
            self.config, Wanted(models=models, **wanted), self.embedder, lambda _what: None
        )

    def file(self, lines: Sequence[str], name: str = "lines.txt") -> Path:
        """Write a file of lines."""
        path = self.folder / name
        path.write_text("\n".join(lines))
        return path

    def embed(self, texts: Sequence[str], model: str) -> Matrix:
        """Return the vectors of texts, `(N, D)`."""
        return self.embedder.submit(list(texts), model=model).result().vectors


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Config, PoolEmbedder]]:
    home = tmp_path_factory.mktemp("compare-home")
    (home / "config.yaml").write_text(CONFIG)
    compiled.lend(home)
    config = load_config(environ=clean_environ(home))
    with Keeping(config) as running:
        yield config, running
    compiled.keep(home)


@pytest.fixture
def place(pool: tuple[Config, PoolEmbedder], tmp_path: Path) -> Place:
    return Place(*pool, tmp_path)


def ten_nearest(
    queries: Matrix, texts: Matrix, *, themselves: bool = False
) -> npt.NDArray[np.int64]:
    """Return them by a full sort of cosines in float64."""
    a, b = queries.astype(np.float64), texts.astype(np.float64)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    cosines = a @ b.T
    if themselves:
        np.fill_diagonal(cosines, -2)
    order: npt.NDArray[np.int64] = np.argsort(-cosines, axis=1)[:, :10]
    return order


def overlap(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> float:
    pairs = zip(one.tolist(), other.tolist(), strict=True)
    return sum(len({*a} & {*b}) for a, b in pairs) / len(one)


@pytest.mark.slow
def test_minilm_of_two_precisions_on_the_rows_of_a_store(place: Place) -> None:
    home = place.folder / "home"
    home.mkdir()
    old, new = (stores.embed(home, TEXTS, name) for name in ("minilm", "minilm-f32"))
    path = stores.make_cmem(place.folder / "notes", TEXTS, old, journal="delete")
    before = path.read_bytes(), sorted(path.parent.iterdir())

    found = place.compare(
        "minilm", "minilm-f32", source=find(place.config, str(place.folder / "notes"))
    )

    ours, theirs = ten_nearest(old, old, themselves=True), ten_nearest(new, new, themselves=True)
    (against,) = found.against
    assert against.kept == pytest.approx(overlap(ours, theirs), abs=0.02)
    assert 5 < against.kept < 10
    assert sum(against.counts) == len(TEXTS)
    assert sum(at * count for at, count in enumerate(against.counts)) == pytest.approx(
        against.kept * len(TEXTS)
    )
    first, second = found.models
    assert (first.is_stored, second.is_stored) == (True, False)
    assert first.fingerprint != second.fingerprint
    for each in found.models:
        assert each.vectors_bytes == len(TEXTS) * 384 * 4
        assert each.embed_s == pytest.approx(len(TEXTS) / each.texts_per_s)
        assert each.weights_bytes > 80e6
        assert each.compiled_bytes > 10e6
        assert each.memory_bytes > 50e6
        assert each.query_ms > 0
        assert each.cut == 0
    places = {text: at for at, text in enumerate(TEXTS)}
    kept = [len({*a} & {*b}) for a, b in zip(ours.tolist(), theirs.tolist(), strict=True)]
    assert [kept[places[each.query]] for each in against.examples] == sorted(kept)[:3]
    for example in against.examples:
        at = places[example.query]
        own, others = [TEXTS[each] for each in ours[at]], [TEXTS[each] for each in theirs[at]]
        assert example.only_first == [text for text in own if text not in others][:3]
        assert example.only_other == [text for text in others if text not in own][:3]
    assert found.by_chance == pytest.approx(100 / 119)
    assert (path.read_bytes(), sorted(path.parent.iterdir())) == before


def test_queries_get_the_prompt_of_queries_and_texts_that_of_documents(place: Place) -> None:
    asked = [f"What about {text.split()[-1]}" for text in TEXTS[:30]]

    found = place.compare(
        "old", "prompted", source=place.file(TEXTS), queries=place.file(asked, "q.txt")
    )

    plain = ten_nearest(place.embed(asked, "old"), place.embed(TEXTS, "old"))
    with_prompts = ten_nearest(
        place.embed([f"search for: {text}" for text in asked], "old"),
        place.embed([f"a passage: {text}" for text in TEXTS], "old"),
    )
    assert found.against[0].kept == pytest.approx(overlap(plain, with_prompts), abs=0.07)
    assert found.against[0].kept < 9.9
    assert found.task.queries and len(found.task.queries) == 30
    assert found.by_chance == pytest.approx(100 / 120)


def test_three_models_are_each_compared_with_the_first(place: Place) -> None:
    source = place.file(TEXTS)

    found = place.compare("old", "new", "prompted", source=source)

    vectors = {
        "old": place.embed(TEXTS, "old"), "new": place.embed(TEXTS, "new"),
        "prompted": place.embed([f"a passage: {text}" for text in TEXTS], "old"),
    }  # fmt: skip
    near = {name: ten_nearest(each, each, themselves=True) for name, each in vectors.items()}
    assert [each.model for each in found.against] == ["new", "prompted"]
    for each in found.against:
        assert each.kept == pytest.approx(overlap(near["old"], near[each.model]), abs=0.05)


def test_what_is_relevant_says_which_is_better(place: Place) -> None:
    """Each query is a text itself, or what only `new` finds first."""
    old, new = place.embed(TEXTS, "old"), place.embed(TEXTS, "new")
    texts = [json.dumps({"_id": f"d{at}", "text": text}) for at, text in enumerate(TEXTS)]
    queries = [json.dumps({"_id": f"q{at}", "text": TEXTS[at]}) for at in range(40)]
    near = {
        name: ten_nearest(each[:40], each, themselves=False)
        for name, each in (("old", old), ("new", new))
    }
    lines = ["query-id\tcorpus-id\tscore", "q39\td1\t0"]  # without a relevant text
    relevant = {at: int(near["new"][at][5]) for at in range(39)}
    lines += [f"q{at}\td{text}\t1" for at, text in relevant.items()]
    lines += ["q0\tnowhere\t1"]

    found = place.compare(
        "old", "new", source=place.file(texts, "t.jsonl"),
        queries=place.file(queries, "q.jsonl"), relevant=place.file(lines, "rel.tsv"), sample=None,
    )  # fmt: skip

    assert found.task.queries and (len(found.task.queries), found.unknown) == (39, 1)
    for each in found.models:
        gained, recalled = 0.0, 0.0
        for at, text in relevant.items():
            known = 2 if at == 0 else 1
            ideal = sum(1 / np.log2(rank + 2) for rank in range(known))
            ranks = near[each.model][at].tolist()
            if text in ranks:
                gained += 1 / np.log2(ranks.index(text) + 2) / ideal
                recalled += 1 / known
        assert each.score
        assert each.score.ndcg == pytest.approx(gained / 39, abs=0.01)
        assert each.score.recall == pytest.approx(recalled / 39, abs=0.03)
    first, second = found.models
    assert first.score and second.score and second.score.recall > 0.95 > first.score.recall


def test_a_re_ranker_sorts_what_the_first_model_finds(place: Place) -> None:
    found = place.compare("old", source=place.file(SHORT), reranker="tiny")

    reranked, task = found.reranked, found.task
    assert reranked and found.against == []
    assert (reranked.queries, reranked.candidates, reranked.too_long) == (50, 50, 0)
    kept, first, taus = [], [], []
    for query, before in enumerate(found.models[0].found[:50].tolist()):
        texts = [task.texts.texts[at] for at in before]
        order = place.embedder.rerank(task.asked[query], texts, model="tiny").result()
        kept.append(len({*order[:10]} & {*range(10)}))
        first.append(order[0] == 0)
        taus.append(tau(np.array(order)))
    assert reranked.kept == pytest.approx(np.mean(kept))
    assert reranked.first_kept == pytest.approx(np.mean(first))
    assert reranked.tau == pytest.approx(np.mean(taus))
    assert reranked.query_ms > 0 and reranked.memory_bytes > 20e6
    assert len(reranked.changes) == 50 - sum(first)


def test_queries_that_leave_no_room_for_a_text_are_counted(place: Place) -> None:
    long = "every word of this one " * 40
    queries = [long, *SHORT[:3], f"{long} again"]

    found = place.compare(
        "old", source=place.file(SHORT), queries=place.file(queries, "q.txt"), reranker="tiny"
    )

    assert found.reranked
    assert (found.reranked.queries, found.reranked.too_long) == (3, 2)
    assert {each.query for each in found.reranked.changes} <= {
        at for at, text in enumerate(found.task.asked) if len(text) < 100
    }
    with pytest.raises(RequestError, match="too long for tiny"):
        place.compare(
            "old", source=place.file(SHORT), queries=place.file([long], "q.txt"), reranker="tiny"
        )


def test_vectors_of_the_store_are_used_only_if_they_are_the_models_own(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "TIMED_TEXTS", 30)
    right = place.embed(TEXTS, "old")
    file = place.file(TEXTS)
    first = {*place.compare("old", "new", source=file).task.texts.ids[:30]}
    embedded_again = np.array([str(at + 1) in first for at in range(len(TEXTS))])
    others = right.copy()
    others[~embedded_again] = right[~embedded_again][::-1]  # seen only if they are used
    path = stores.make_cmem(place.folder / "used", TEXTS, others)
    source = find(place.config, str(path.parent))

    found = place.compare("old", "new", source=source)

    assert {*found.task.texts.ids[:30]} == first
    assert [each.is_stored for each in found.models] == [True, False]
    near = ten_nearest(others, others, themselves=True)
    new = place.embed(TEXTS, "new")
    expected = overlap(near, ten_nearest(new, new, themselves=True))
    assert found.against[0].kept == pytest.approx(expected, abs=0.05)

    others[np.flatnonzero(embedded_again)[0]] = right[0] + right[5]
    path = stores.make_cmem(place.folder / "unused", TEXTS, others)
    found = place.compare("old", "new", source=find(place.config, str(path.parent)))
    assert [each.is_stored for each in found.models] == [False, False]


def test_a_sample_says_of_how_many_it_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    source = place.file([*TEXTS, TEXTS[3], "", TEXTS[5]])

    row = to_dict(place.compare("old", "new", source=source, sample=40), examples=False)

    assert row["texts"] == {"total": 122, "equal": 2, "used": 40}
    assert row["queries"] == {"given": False, "total": 40, "used": 40}
    again = to_dict(place.compare("old", "new", source=source, sample=40), examples=False)
    assert again["against"] == row["against"]
    assert [each["vectors_bytes"] for each in row["models"]] == [122 * 64 * 4] * 2
    monkeypatch.setattr(comparison, "MOST_NUMBERS", 64 * 30)
    assert len(place.compare("old", "new", source=source, sample=None).task.texts) == 30


def test_few_texts_tell_nothing_about_neighbours(place: Place) -> None:
    found = place.compare("old", "new", source=place.file(TEXTS[:19]), reranker="tiny")
    row = to_dict(found, examples=True)

    assert (found.against, found.reranked, row["few"], row["by_chance"]) == ([], None, True, None)
    assert all(each["texts_per_s"] > 0 for each in row["models"])
    enough = place.compare("old", "new", source=place.file(TEXTS[:20]))
    assert len(enough.against) == 1


def test_no_text_is_in_a_row_that_has_no_examples(place: Place) -> None:
    found = place.compare("old", "new", source=place.file(SHORT), reranker="tiny")

    assert not any(text in json.dumps(to_dict(found, examples=False)) for text in SHORT)
    assert any(text in json.dumps(to_dict(found, examples=True)) for text in SHORT)


@pytest.mark.parametrize(
    ("models", "wanted", "error", "words"),
    [
        (["old", "nobody"], {}, UnknownModelError, "nobody"),
        (["old", "tiny"], {}, WrongKindError, "tiny re-ranks"),
        (["old"], {"reranker": "new"}, WrongKindError, "new embeds"),
        (["old", "gone"], {}, SourceError, "gone is not on this machine"),
        (["old", "new", "OLD"], {}, BadOptionError, "old is named twice"),
        (["old"], {}, BadOptionError, "only one model"),
        (["old", "prompted:query"], {}, BadOptionError, "role"),
        (["old", "new"], {"relevant": "r"}, BadOptionError, "needs --queries"),
        (["old", "new"], {"queries": "nothing"}, NoTextsError, "has no query"),
        (["old", "new"], {"queries": "q", "relevant": "r"}, NoTextsError, "names a relevant text"),
        (["old", "new"], {"queries": "q", "relevant": "all", "sample": 5},
         BadOptionError, "only 5 of 30"),
        (["old", "new"], {"source": "nothing"}, NoTextsError, "no texts"),
        (["old", "new"], {"source": "same.jsonl", "queries": "q", "relevant": "all"},
         BadOptionError, "share one"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_an_error(
    place: Place, models: list[str], wanted: dict[str, Any], error: type[Exception], words: str
) -> None:
    place.file(["1 0 77 0"], "r")
    place.file(["1 0 2 1", "2 0 3 1"], "all")
    place.file(TEXTS[:2], "q")
    place.file(["", " "], "nothing")
    place.file([json.dumps({"id": 1, "text": text}) for text in TEXTS[:30]], "same.jsonl")
    place.file(TEXTS[:30])
    given = {
        name: place.folder / value if isinstance(value, str) and name != "reranker" else value
        for name, value in {"source": "lines.txt", **wanted}.items()
    }

    with pytest.raises(error, match=words):
        place.compare(*models, **given)
