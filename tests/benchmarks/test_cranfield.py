"""The comparison of searches on a collection: its two layouts, its measure, and a run of it all."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cranfield
import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests.rerankers import FOLDER
from tests.serving import Server

DOCUMENTS = {
    "1": "the ember glows while there is air",
    "2": "a server turns texts into vectors",
    "3": "what does it cost to keep a fire",
    "4": "ash and coal and warm stones",
    "5": "a cat eats the bird",
    "6": "",
}
Write = Callable[[Path], Path]
QUERIES = {"1": "does an ember glow", "2": "who eats the bird", "3": "nobody judged this"}


def classic(folder: Path) -> Path:
    """Write it as the collection of 1967 is; its queries have numbers with gaps."""
    folder.mkdir()
    records = [
        f".I {id_}\n.T\ntitle of {id_}\n.A\nsomebody,a.\n.B\nj. of fires, 19{id_}.\n.W\n{text}\n"
        for id_, text in DOCUMENTS.items()
    ]
    (folder / "cran.all.1400").write_text("".join(records))
    asked = [f".I {int(id_) * 4:03}\n.W\n{text}\n" for id_, text in QUERIES.items()]
    (folder / "cran.qry").write_text("".join(asked))
    (folder / "cranqrel").write_text("1 1 1\n1 4  3 \n1 2 5\n2 5 2\n2 99 1\n3 1 -1\n")
    return folder


def beir(folder: Path) -> Path:
    """Write the same as BEIR's collections are."""
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": id_, "title": "", "text": text} for id_, text in DOCUMENTS.items()]
    documents[5]["text"] = "title of 6"  # what stands for a text that is empty
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    queries = [{"_id": id_, "text": text} for id_, text in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    judged = "query-id\tcorpus-id\tscore\n1\t1\t1\n1\t4\t1\n1\t2\t0\n2\t5\t1\n2\t99\t1\n"
    (folder / "qrels/test.tsv").write_text(judged)
    return folder


@pytest.mark.parametrize("write", [classic, beir])
def test_both_layouts_are_read_alike(write: Write, tmp_path: Path) -> None:
    found = cranfield.read(write(tmp_path / "collection"))

    assert found.documents == {**DOCUMENTS, "6": "title of 6"}
    assert found.queries == QUERIES
    assert found.grades == {"1": {"1": 1.0, "4": 1.0}, "2": {"5": 1.0}}


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has neither"):
        cranfield.read(tmp_path)


def test_the_measure() -> None:
    assert cranfield.ndcg(["a", "b", "x"], {"a": 2.0, "b": 1.0}) == 1
    assert cranfield.ndcg(["x", "a"], {"a": 1.0}) == pytest.approx(0.6309298)
    assert cranfield.ndcg(["b", "a"], {"a": 2.0, "b": 1.0}) == pytest.approx(0.8597186)
    assert cranfield.ndcg([*"vwxyz", *"vwxyz", "a"], {"a": 1.0}) == 0
    assert cranfield.mean_ndcg([["a"], ["x"]], [{"a": 1.0}, {"a": 1.0}]) == 0.5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("searched")
    tiny_bert(folder / "tiny")
    config = f"""
default: tiny
default_reranker: sorts
models:
  tiny: {{sources: [{{path: {folder / "tiny"}}}], dimensions: 64, pooling: mean}}
  sorts: {{kind: rerank, sources: [{{path: {FOLDER}}}], pooling: cls}}
"""
    with Server(folder / "home", config=config) as server:
        yield server


@pytest.mark.parametrize("write", [classic, beir])
def test_a_server_searches_and_sorts(write: Write, server: Server, tmp_path: Path) -> None:
    folder = write(tmp_path / "collection")

    done = subprocess.run(
        [sys.executable, cranfield.__file__, folder, "--url", server.url, "--json",
         "--python", sys.executable, "--most", "3"],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip

    found = json.loads(done.stdout)
    assert (found["documents"], found["queries"], found["most"]) == (6, 2, 3)
    assert found["ndcg@10"].keys() == {"dense", "BM25", "BM25 + dense, re-ranked"}
    assert found["ndcg@10"]["BM25"] == pytest.approx((1 / 1.6309298 + 1) / 2, abs=1e-6)
    assert all(0 <= value <= 1 for value in found["ndcg@10"].values())
